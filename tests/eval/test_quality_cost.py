"""Which variants are worth their cost, of scores that are stated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fatezero.errors import UserError
from fatezero_eval.tables.cost_grids import (
    CostedVariant,
    cheapest_alike,
    costed_variants,
    pareto_front,
    quality_cost_grid,
)
from fatezero_eval.tables.joining import Table, join
from fatezero_eval.tables.notation import markdown
from fatezero_eval.tables.pareto_plot import pareto_plot
from fatezero_eval.tables.resampling import Interval
from fatezero_eval.tables.scored_runs import named_apart, read_scored_run
from tests.eval.scored_folders import rows_of, scored_folder

PSNR, WARP = "psnr/truth@1", "warp_error@1"
CLIPS = 8
SECONDS = {"s50": 4.0, "s20": 1.6, "s5": 0.4, "dear": 5.0}


def table_of(folder: Path, clips: int = CLIPS, reference: str | None = "s50") -> Table:
    """s20 is as good as s50, s5 is 1 dB worse, "dear" half a dB worse and steadier."""
    wobble = [0.1 * (-1) ** clip for clip in range(clips)]
    scores = {
        ("s50", PSNR): [20.0 + clip for clip in range(clips)],
        ("s20", PSNR): [20.0 + clip + more for clip, more in enumerate(wobble)],
        ("s5", PSNR): [19.0 + clip + more for clip, more in enumerate(wobble)],
        ("dear", PSNR): [19.5 + clip + more for clip, more in enumerate(wobble)],
        ("s50", WARP): [0.01] * clips,
        ("s20", WARP): [0.01] * clips,
        ("s5", WARP): [0.01] * clips,
        ("dear", WARP): [0.005] * clips,
    }
    (table,) = join([read_scored_run(scored_folder(folder, rows_of(scores)))], reference)
    return table


def costed(name: str, seconds: float, quality: float) -> CostedVariant:
    return CostedVariant(name, seconds, Interval(quality, quality - 0.1, quality + 0.1))


def test_the_front_is_what_nothing_cheaper_equals() -> None:
    variants = [costed("a", 1, -1), costed("b", 2, 0), costed("c", 3, -0.5), costed("d", 2, -0.2), costed("e", 4, 0)]
    assert [one.variant for one in pareto_front(variants)] == ["a", "b"]


def test_the_cheapest_that_is_not_worse(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    variants = costed_variants(table, SECONDS, "psnr/truth")
    assert [one.variant for one in variants] == ["s5", "s20", "s50", "dear"]
    assert variants[0].quality.value == pytest.approx(-1)
    assert cheapest_alike(table, variants) == "s20"


def test_every_variant_has_its_line(tmp_path: Path) -> None:
    table = table_of(tmp_path)
    grid = quality_cost_grid(table, costed_variants(table, SECONDS, "psnr/truth"), {"s5": "steps 5"})
    lines = {line[0]: line for line in grid.lines}
    assert [*lines] == ["**s5**", "**s20**", "s50", "dear"]
    assert lines["**s5**"][1:4] == ["steps 5", "0.4", "0.10"]
    assert lines["**s5**"][-1] == f"worse: {PSNR}"
    assert lines["**s20**"][-1] == "no"
    assert lines["s50"][-1] == "reference"
    assert lines["dear"][-1] == f"worse: {PSNR}; better: {WARP}"
    assert "steps 5" in markdown(grid)


def test_few_clips_tell_nothing(tmp_path: Path) -> None:
    table = table_of(tmp_path, clips=3)
    variants = costed_variants(table, SECONDS, "psnr/truth")
    assert cheapest_alike(table, variants) is None
    assert quality_cost_grid(table, variants, {}).lines[0][-1] == "too few clips"


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no reference"):
        costed_variants(table_of(tmp_path / "a", reference=None), SECONDS, "psnr/truth")
    with pytest.raises(UserError, match="not compared in ssim/truth"):
        costed_variants(table_of(tmp_path / "b"), SECONDS, "ssim/truth")


def test_the_picture_shows_every_variant_and_names_the_front() -> None:
    variants = [costed("a & b", 0.5, -1), costed("c", 2, 0), costed("behind", 3, -0.5)]
    picture = pareto_plot(variants, "psnr/truth")
    assert picture == pareto_plot(variants, "psnr/truth")
    root = ElementTree.fromstring(picture)
    dots = {dot[0].text: dot for dot in root.iter("{http://www.w3.org/2000/svg}circle")}
    names = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert dots.keys() == {"a & b", "c", "behind"}
    assert float(dots["a & b"].attrib["cx"]) < float(dots["c"].attrib["cx"]) < float(dots["behind"].attrib["cx"])
    assert float(dots["c"].attrib["cy"]) < float(dots["behind"].attrib["cy"]) < float(dots["a & b"].attrib["cy"])
    assert "a & b" in names
    assert "behind" not in names


def test_variants_that_runs_share_keep_their_configurations(tmp_path: Path) -> None:
    """By the name that the tables call them by."""
    runs = []
    for name, steps in (("float32", 50), ("bfloat16", 20)):
        run = read_scored_run(scored_folder(tmp_path / name, rows_of({("s50", PSNR): [20.0] * CLIPS})))
        runs.append(replace(run, experiment=replace(run.experiment, configs={"s50": {"steps": steps}})))
    apart = named_apart(runs)
    assert [dict(run.experiment.configs) for run in apart] == [
        {"float32/s50": {"steps": 50}},
        {"bfloat16/s50": {"steps": 20}},
    ]
