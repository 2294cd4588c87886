"""Weighted scores: VBench's formula, what is undefined, other weights, and files of weights that cannot be used."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from fatezero.cli import main
from fatezero.errors import UserError
from fatezero_eval.tables.leaderboard_files import write_leaderboard
from fatezero_eval.tables.scored_runs import read_scored_run
from fatezero_eval.tables.weighing import CONCENTRATION
from fatezero_eval.tables.weights import read_weights
from tests.eval.scored_folders import rows_of, scored_folder

TEXT, STEADY, WARP, OUTSIDE = "text_alignment@1", "frame_consistency@1", "warp_error@1", "psnr/outside@1"
CLIPS = 6
WEIGHTS = """
quality:
  weight: 4
  metrics:
    frame_consistency: {weight: 1, worst: 0.5, best: 1}
    warp_error: {weight: 0.5, worst: 20, best: 0}
meaning:
  metrics:
    text_alignment: {worst: 0, best: 50}
"""


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.yaml"
    path.write_text(WEIGHTS, encoding="utf-8")
    return path


def scored(folder, methods):
    """Each method's scores, the same on all clips: consistency, warp error and text alignment."""
    scores = {}
    for method, values in methods.items():
        for metric, value in zip((STEADY, WARP, TEXT), values, strict=True):
            scores[method, metric] = [value] * CLIPS
    return scored_folder(folder, rows_of(scores, categories=["style", "shape"] * (CLIPS // 2)))


METHODS = {"steady": (0.9, 0.002, 20.0), "apt": (0.8, 0.010, 45.0), "no edit": (1.0, 0.0, 10.0)}


def vbench(steady, warp, text):
    """As VBench's `cal_final_score.py` has it: scaled, weighted within a half, and the halves weighted."""
    quality = ((steady - 0.5) / 0.5 * 1 + (20 - 1000 * warp) / 20 * 0.5) / (1 + 0.5)
    return (4 * quality + 1 * text / 50) / 5


def test_weighted_scores_are_vbenchs(tmp_path, weights):
    (weighing,) = write_leaderboard([scored(tmp_path / "run", METHODS)], tmp_path / "out", weights=weights).weighings
    totals = {(score.variant, score.category): score.total for score in weighing.scores}
    for method, values in METHODS.items():
        for category in ("", "style", "shape"):
            assert totals[method, category] == pytest.approx(vbench(*values), abs=1e-12)
    assert weighing.first == ("steady",)
    assert [found.variant for found in weighing.robustness] == ["steady", "apt"]  # baselines are not ranked
    (steady,) = [s for s in weighing.scores if (s.variant, s.category) == ("steady", "")]
    assert steady.parts[WARP] == pytest.approx(0.9)
    assert steady.groups["meaning"] == pytest.approx(0.4)
    assert sum(weighted.share for weighted in weighing.weights) == pytest.approx(1)


def test_the_example_can_be_read():
    weights = read_weights(Path(__file__).parents[2] / "experiments" / "weights.yaml")
    assert {weighted.group: round(weighted.share, 3) for weighted in weights} == {
        "success": 0.2,  # each of two
        "preservation": 0.4,
        "motion": 0.2,
    }


def test_what_is_undefined_has_no_weighted_score(tmp_path, weights):
    methods = {**METHODS, "half": (0.99, None, 50.0)}
    run = scored(tmp_path / "run", methods)
    (weighing,) = write_leaderboard([run], tmp_path / "out", weights=weights).weighings
    (half,) = [s for s in weighing.scores if (s.variant, s.category) == ("half", "")]
    assert (half.total, half.missing, half.groups["quality"]) == (None, (WARP,), None)
    assert half.groups["meaning"] == pytest.approx(1)
    assert "half" not in {*weighing.first, *(found.variant for found in weighing.robustness)}
    markdown = (tmp_path / "out" / "weighted.md").read_text(encoding="utf-8")
    assert f"half has no weighted score: it has no {WARP}." in markdown
    assert "| half | - | - | 1.000 | - | - |" in markdown


def test_other_weights_change_the_first_place_as_often_as_the_beta_distribution_says(tmp_path):
    """With two metrics that prefer different methods, the heavier weight decides: it is Beta distributed."""
    path = tmp_path / "weights.yaml"
    lines = "{weight: 0.6, worst: 0, best: 1}\n    text_alignment: {weight: 0.4, worst: 0, best: 100}\n"
    path.write_text(f"all:\n  metrics:\n    frame_consistency: {lines}", encoding="utf-8")
    run = scored(tmp_path / "run", {"steady": (1.0, 0.0, 0.0), "apt": (0.0, 0.0, 100.0), "apt too": (0.0, 0.0, 100.0)})
    (weighing,) = write_leaderboard([run], tmp_path / "out", weights=path).weighings
    found = {robust.variant: robust for robust in weighing.robustness}
    share = stats.beta.sf(0.5, CONCENTRATION * 0.6, CONCENTRATION * 0.4)
    assert found["steady"].first == pytest.approx(share, abs=3 * np.sqrt(share * (1 - share) / 10_000))
    assert found["apt"].first == found["apt too"].first == pytest.approx((1 - found["steady"].first) / 2)
    assert (found["steady"].best_rank, found["steady"].worst_rank) == (1, 3)  # the other two share a place
    assert weighing.first_without == {STEADY: ("apt", "apt too"), TEXT: ("steady",)}
    markdown = (tmp_path / "out" / "weighted.md").read_text(encoding="utf-8")
    assert f"In {1 - found['steady'].first:.0%} of draws another is first." in markdown
    assert "| frame_consistency@1 ↑ | apt, apt too | changes |" in markdown
    assert "| text_alignment@1 ↑ | steady | the same |" in markdown


def test_the_files_say_the_same_and_go_when_no_longer_asked_for(tmp_path, weights, capsys):
    run, out = scored(tmp_path / "run", METHODS), tmp_path / "out"
    asked = ["leaderboard", str(run), "--out", str(out)]
    assert main([*asked, "--weights", str(weights)]) == 0
    assert "| steady | 0.7" in capsys.readouterr().out
    files = {
        suffix: (out / f"weighted.{suffix}").read_text(encoding="utf-8") for suffix in ("md", "csv", "json", "svg")
    }
    table = {
        (r["variant"], r["category"], r["metric"]): float(r["value"]) for r in csv.DictReader(files["csv"].splitlines())
    }
    (saved,) = json.loads(files["json"])
    assert {(s["variant"], s["category"], ""): s["total"] for s in saved["scores"]}.items() <= table.items()
    polygons = [
        p.get("points").split()
        for p in ElementTree.fromstring(files["svg"]).iter("{http://www.w3.org/2000/svg}polygon")
    ]
    assert len(polygons) == 4 + 3  # rings and methods
    assert "430.0,60.0" in polygons[-1]  # `no edit` has the best consistency: the end of the first spoke, upwards
    assert main([*asked, "--weights", str(weights)]) == 0
    assert files["svg"] == (out / "weighted.svg").read_text(encoding="utf-8")
    assert main(asked) == 0
    assert not list(out.glob("weighted.*"))


def test_published_scores_are_weighed_and_not_ranked(tmp_path, weights):
    run = scored(tmp_path / "run", METHODS)
    edits = sorted({row.edit for row in read_scored_run(run).rows})
    best = {STEADY: 1.0, WARP: 0.0, TEXT: 50.0}
    lines = ["edit,metric,value", *(f"{edit},{metric},{value}" for edit in edits for metric, value in best.items())]
    (tmp_path / "theirs.csv").write_text("\n".join(lines), encoding="utf-8")
    (weighing,) = write_leaderboard([run, tmp_path / "theirs.csv"], tmp_path / "out", weights=weights).weighings
    totals = {score.variant: score.total for score in weighing.scores if not score.category}
    assert totals["theirs (published)"] == pytest.approx(1)
    assert weighing.first == ("steady",)
    assert {found.variant for found in weighing.robustness} == {"steady", "apt"}


def test_a_method_over_fewer_clips_is_named(tmp_path, weights):
    scores = {(name, metric): [0.5] * CLIPS for name in ("whole", "part") for metric in (STEADY, WARP, TEXT)}
    scores["part", WARP] = [None, *[0.001] * (CLIPS - 1)]
    write_leaderboard([scored_folder(tmp_path / "run", rows_of(scores))], tmp_path / "out", weights=weights)
    markdown = (tmp_path / "out" / "weighted.md").read_text(encoding="utf-8")
    assert "part is compared over other clips: a metric of it averages 5, not 6." in markdown
    assert "whole is compared" not in markdown


def test_two_metrics_are_no_picture(tmp_path, weights):
    run, out = scored(tmp_path / "run", METHODS), tmp_path / "out"
    write_leaderboard([run], out, weights=weights)
    assert (out / "weighted.svg").exists()
    two = "a: {metrics: {text_alignment: {worst: 0, best: 1}, warp_error: {worst: 1, best: 0}}}"
    weights.write_text(two, encoding="utf-8")
    write_leaderboard([run], out, weights=weights)
    assert not (out / "weighted.svg").exists()
    assert "weighted.svg" not in (out / "weighted.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r"states no weights: write groups"),
        ("a: 3", r"line 1: 3 is not an entry"),
        ("a: {weight: 1}", r"field 'metrics': missing; write at least one metric"),
        ("a: {metrics: {text_alignment: {worst: 0}}}", r"field 'best': missing; write which value of text_alignment"),
        ("a: {metrics: {text_alignment: {worst: 9, best: 1}}}", r"1 is not above the worst, 9, as text_alignment ↑"),
        ("a: {metrics: {warp_error: {worst: 0, best: 1}}}", r"1 is not below the worst, 0, as warp_error ↓ needs"),
        ("a: {metrics: {text_alignment: {worst: 0, best: 0}}}", r"0 is not above the worst, 0"),
        ("a: {weight: 0, metrics: {text_alignment: {worst: 0, best: 1}}}", r"field 'weight': 0 is not above zero"),
        ("a: {metrics: {text_alignment: {worst: 0, best: 1, weight: -2}}}", r"field 'weight': -2 is not above zero"),
        (
            "a: {metrics: {text_alinment: {worst: 0, best: 1}}}",
            r"there is no metric 'text_alinment'; did you mean text_a",
        ),
        ("a: {metrics: {'warp*': {worst: 1, best: 0}}}", r"'warp\*' is no single metric"),
        ("a: {metrics: {valid_pixels: {worst: 0, best: 1}}}", r"'valid_pixels' has no better way"),
        ("a: {metrics: {text_alignment: {worst: 0, best: 1, max: 2}}}", r"field 'max': unknown"),
        (
            "a: {metrics: {text_alignment: {worst: 0, best: 1}}}\nb: {metrics: {text_alignment: {worst: 0, best: 1}}}",
            r"line 2: text_alignment stands there twice",
        ),
    ],
)
def test_weights_that_cannot_be_used_are_one_sentence(tmp_path, text, problem):
    path = tmp_path / "weights.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=problem):
        read_weights(path)


def test_a_metric_that_no_method_has_is_not_weighed(tmp_path):
    path = tmp_path / "weights.yaml"
    path.write_text("a: {metrics: {psnr/outside: {worst: 0, best: 50}}}", encoding="utf-8")
    with pytest.raises(UserError, match=f"no method has a {OUTSIDE} to weigh: score the runs with it"):
        write_leaderboard([scored(tmp_path / "run", METHODS)], tmp_path / "out", weights=path)
