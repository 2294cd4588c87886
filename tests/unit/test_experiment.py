"""What an ablation compares: variants, sweeps, edits and seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fatezero.commands.ablate import VARIANTS, AblationOptions, small_frames, usual_variants
from fatezero.commands.edit import EditOptions, edit
from fatezero.commands.work_options import WorkOptions
from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.data.manifest import Manifest
from fatezero.diffusion.layouts import COGVIDEOX, FLUX, STABLE_DIFFUSION, WAN, Family
from fatezero.diffusion.recommendations import with_settings
from fatezero.errors import UserError
from fatezero.runs.variants import choose_edits, make_variants, record, with_seeds
from fatezero.types import ClipSpec, EditRequest

BASE = MethodConfig(steps=10)


def manifest(*categories: str) -> Manifest:
    requests = [
        EditRequest(
            id=f"{category}{number}", clip=ClipSpec(path="x.mp4"), source_prompt="a", target_prompt="b",
            category=category, seed=100,
        )
        for number in range(3)
        for category in categories
    ]  # fmt: skip
    return Manifest(Path("m.yaml"), "m", tuple(requests))


@pytest.mark.parametrize(
    ("family", "left_out", "flow"),
    [
        (STABLE_DIFFUSION, set(), False),
        (WAN, {"no_st_attention", "frame_norms"}, True),
        (FLUX, {"no_st_attention", "frame_norms", "no_cross_fusion"}, True),
        (COGVIDEOX, {"no_st_attention", "frame_norms", "no_cross_fusion"}, False),
    ],
)
def test_usual_variants_mean_something_to_the_model(family: Family, left_out: set[str], flow: bool) -> None:
    base = with_settings(MethodConfig(), family.settings, family.name)
    made = make_variants(usual_variants(family), {}, base)
    assert made.keys() == (VARIANTS.keys() - left_out) | ({"flow_edit"} if flow else set())
    assert len({repr(variant.method) for variant in made.values()}) == len(made)


def test_small_clips_have_lengths_that_fit_the_model() -> None:
    assert [small_frames(unit) for unit in (1, 4, 8, 16)] == [6, 5, 9, 17]


def test_every_shipped_variant_is_a_configuration() -> None:
    made = make_variants(VARIANTS, {}, BASE)
    assert list(made) == list(VARIANTS)
    assert made["full"].method == BASE
    assert made["no_fusion"].method.fusion is None
    assert made["no_self_fusion"].method.fusion is not None
    assert made["no_self_fusion"].method.fusion.self_window is None
    assert made["no_st_attention"].method.key_frames == ()
    assert made["sdedit"].method.sdedit_strength == 0.6
    assert len({repr(variant.method) for variant in made.values()}) == len(made)


def test_a_sweep_is_a_grid() -> None:
    sweep: dict[str, list[Any]] = {"blending.threshold": [0.1, 0.5], "fusion.self_window": [[0.0, 0.5], None]}
    made = make_variants({"full": {}}, sweep, BASE)
    assert list(made) == [
        "full",
        "blending.threshold=0.1-fusion.self_window=-0.0-0.5",
        "blending.threshold=0.1-fusion.self_window=null",
        "blending.threshold=0.5-fusion.self_window=-0.0-0.5",
        "blending.threshold=0.5-fusion.self_window=null",
    ]
    last = list(made.values())[-1].method
    assert last.blending is not None
    assert last.blending.threshold == 0.5
    assert last.fusion is not None
    assert last.fusion.self_window is None


def test_a_sweep_makes_no_variant_twice() -> None:
    assert BASE.blending is not None
    sweep = {"blending.threshold": [0.1, BASE.blending.threshold]}
    assert list(make_variants({"full": {}}, sweep, BASE)) == ["full", "blending.threshold=0.1"]
    asked = {"blending.threshold": BASE.blending.threshold}  # by the agent of a W&B sweep, which waits for its numbers
    assert len(make_variants({"full": {}}, asked, BASE)) == 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"variants": {"full": {"nothing": 1}}}, "variant full"),
        ({"variants": {"full": {}, "..": {}}}, "'..'"),
        ({"variants": {"full": {}, "evaluation": {}}}, "'evaluation'"),
        ({"variants": {"full": {}}, "sweep": {"steps": ["many"]}}, "steps=many"),
        ({"variants": {"a b": {}, "full": {}, "a-b": {}}}, "a-b"),
    ],
)
def test_wrong_variants_are_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        make_variants(options["variants"], options.get("sweep", {}), BASE)


@pytest.mark.parametrize("options", [{"seeds": 0}, {"edits": 0}, {"reference": "fool"}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        AblationOptions(**options)


def test_edits_are_taken_from_each_category() -> None:
    bench = manifest("style", "shape", "object")
    chosen = choose_edits(bench, ("style", "shape"), edits=2, frames=4)
    assert [request.id for request in chosen] == ["style0", "shape0", "style1", "shape1"]
    assert {request.clip.frames for request in chosen} == {4}
    assert len(choose_edits(bench)) == 9
    with pytest.raises(UserError, match="object, shape, style"):
        choose_edits(bench, ("motion",))


def test_seeds_are_drawn_where_they_matter() -> None:
    requests = manifest("style").requests
    made = make_variants(VARIANTS, {}, BASE)
    assert with_seeds(requests, made["full"].method, 3) == list(requests)
    drawn = with_seeds(requests[:1], made["sdedit"].method, 3)
    assert [(request.id, request.seed) for request in drawn] == [("style0", 100), ("style0", 101), ("style0", 102)]


@pytest.mark.parametrize("name", ["index.html", "INDEX.html", "evaluation", "source"])
def test_an_edits_variant_is_not_called_as_a_runs_own_file(name: str) -> None:
    with pytest.raises(UserError, match=name):
        edit(EditOptions(variant=name), ModelOptions(), MethodConfig(), RuntimeConfig(), WorkOptions())


def test_the_record_says_what_was_compared(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("edits: []")
    record(tmp_path / "run", "full", make_variants(VARIANTS, {}, BASE), tmp_path / "m.yaml", "fatezero ablate")
    said = json.loads((tmp_path / "run/experiment.json").read_text())
    assert said["reference"] == "full"
    assert said["variants"]["no_fusion"]["settings"] == {"fusion": None, "blending": None}
    assert said["variants"]["no_fusion"]["config"]["fusion"] is None
    assert said["variants"]["full"]["config"]["steps"] == 10
