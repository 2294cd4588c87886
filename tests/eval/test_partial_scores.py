"""One metric's refusal costs that metric of that edit, with its sentence, once; all other numbers stand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models.optical_flow import raft_small

from fatezero.cli import main
from fatezero.clips.video import write_frames
from fatezero.errors import UserError
from fatezero.types import Frames
from fatezero_eval.networks.given_flow import Flow
from fatezero_eval.options import RESERVED_METHODS, EvaluateVideos, ScoringOptions
from fatezero_eval.pages.run_page import write_report
from fatezero_eval.scoring.evaluation import (
    Evaluation,
    Scorer,
    evaluate_jobs,
    evaluate_run,
    evaluate_videos,
    load_scorer,
)
from fatezero_eval.scoring.refusals import told_once
from fatezero_eval.scoring.rows import read_rows
from fatezero_eval.scoring.scoring_jobs import Truths, finished_jobs
from fatezero_eval.tables.leaderboard_files import write_leaderboard
from tests.eval.conftest import drifting
from tests.eval.test_evaluate import config

MASKED = ("psnr/outside", "mse/inside", "mask_iou")
OTHERS = ("psnr/truth", "text_alignment", "temporal_flickering")


def values_of(found: Evaluation) -> dict[tuple[str, str, str], float | None]:
    return {(row.variant, row.edit, row.metric.partition("@")[0]): row.value for row in found.rows}


def mask_of(run: Path) -> list[Path]:
    return sorted((run.parents[1] / "clips" / "fox-mask").iterdir())


def fill(level: int) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        for path in mask_of(run):
            Image.new("L", (40, 32), level).save(path)

    return spoil


def resize(run: Path) -> None:
    for path in mask_of(run):
        Image.new("L", (20, 16), 255).save(path)


def damage(run: Path) -> None:
    path = mask_of(run)[3]
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (fill(0), "the mask is empty in every frame"),
        (lambda run: mask_of(run)[-1].unlink(), "has 4 frames, but frame 4 of fox"),
        (lambda run: Image.new("L", (40, 32)).save(mask_of(run)[-1].with_name("00005.png")), "has 6 frames"),
        (resize, "is 20x16, the clip 40x32"),
        (damage, "00003.png"),
        (lambda run: [path.unlink() for path in mask_of(run)], "holds no images"),
    ],
)
def test_a_mask_that_cannot_be_used_costs_its_metrics_alone(
    spoil: Callable[[Path], Any], sentence: str, run_folder: Path, tiny_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = config(run_folder, tiny_clip, metrics=(*MASKED, *OTHERS))
    before = values_of(evaluate_run(wanted))
    spoil(run_folder)
    words = ["evaluate", str(run_folder), f"--manifest={wanted.manifest}", f"--judge={tiny_clip}", "--metrics"]
    for _ in range(2):  # as scored, and as kept
        assert main([*words, *MASKED, *OTHERS]) == 1
        said = capsys.readouterr()
        assert said.err.count(sentence) == said.err.count("\n") == 1  # of two variants
        assert f"full/fox-1/1, {', '.join(MASKED)}; no fusion/fox-1/1, {', '.join(MASKED[:2])}" in said.err
    rows = read_rows(run_folder / "evaluation" / "rows.jsonl")
    after = {(row.variant, row.edit, row.metric.partition("@")[0]): row.value for row in rows}
    lost = {key for key, value in after.items() if value != before[key]}
    assert {edit for _, edit, _ in lost} == {"fox-1"}
    assert {metric for _, _, metric in lost} <= set(MASKED)
    assert all(after[key] is None for key in lost)
    assert {metric for variant, _, metric in lost if variant == "full"} == set(MASKED)


def test_one_reason_is_told_once_however_many_it_holds_for() -> None:
    failures = {**{f"full/{name}": "no mask" for name in "abcde"}, "full/f": "too long"}
    assert told_once(failures) == ["full/a; full/b; full/c; and 2 more: no mask", "full/f: too long"]


def test_a_full_mask_has_no_outside_and_that_is_said(
    run_folder: Path, tiny_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(255)(run_folder)
    words = ["evaluate", str(run_folder), f"--manifest={run_folder.parents[1] / 'manifest.jsonl'}"]
    assert main([*words, "--metrics", "psnr/outside", "psnr/inside"]) == 0
    sentence = "Undefined in 2 of 6 results, since the mask leaves no pixel in any frame: psnr/outside."
    assert sentence in capsys.readouterr().out


def test_pages_show_what_a_bad_mask_leaves(run_folder: Path, tiny_clip: Path) -> None:
    resize(run_folder)
    wanted = config(run_folder, tiny_clip, metrics=(*MASKED, *OTHERS))
    evaluate_run(wanted)
    page = write_report(run_folder, wanted.manifest)
    text = page.path.read_text(encoding="utf-8")
    assert "is 20x16, the clip 40x32" in text
    board = write_leaderboard([run_folder], run_folder)
    clips = {(score.variant, score.metric): score.clips for score in board.tables[0].scores if not score.category}
    assert clips["full", "psnr/truth@1"] == 3
    assert clips["full", "psnr/outside@1"] == 2


def restate(run: Path, edit: str, **fields: Any) -> None:
    """Change what manifest and records say of an edit."""
    manifest = run.parents[1] / "manifest.jsonl"
    entries = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({**entry, **fields} if entry["id"] == edit else entry) for entry in entries]
    manifest.write_text("\n".join(lines), encoding="utf-8")
    for meta in run.glob(f"*/{edit}/meta.json"):
        values = json.loads(meta.read_text(encoding="utf-8"))
        meta.write_text(json.dumps({**values, "request": {**values["request"], **fields}}), encoding="utf-8")


TEXTS = ("text_alignment", "frame_accuracy", "directional_similarity", "frame_consistency")


def test_a_prompt_beyond_the_judge_costs_what_compares_with_it(run_folder: Path, tiny_clip: Path) -> None:
    restate(run_folder, "fox-1", source_prompt="a " * 30)
    found = evaluate_run(config(run_folder, tiny_clip, metrics=TEXTS))
    assert list(found.failures) == [
        f"{variant}/fox-1/1, frame_accuracy, directional_similarity" for variant in ("full", "no fusion")
    ]
    assert all("longer than the 24 tokens" in reason for reason in found.failures.values())
    values = values_of(found)
    assert values["full", "fox-1", "text_alignment"] is not None
    assert values["full", "fox-1", "frame_consistency"] is not None
    assert values["full", "owl-1", "frame_accuracy"] is not None


@pytest.mark.parametrize(
    ("stated", "undefined"),
    [
        ({"source_prompt": ""}, TEXTS[1:3]),
        ({"source_prompt": "  "}, TEXTS[1:3]),
        ({"target_prompt": " \t"}, TEXTS[:3]),
        ({"source_prompt": "", "target_prompt": ""}, TEXTS[:3]),
    ],
)
def test_what_is_not_stated_is_undefined_and_no_failure(
    stated: dict[str, str], undefined: tuple[str, ...], run_folder: Path, tiny_clip: Path
) -> None:
    restate(run_folder, "fox-1", **stated)
    found = evaluate_run(config(run_folder, tiny_clip, metrics=TEXTS))
    assert found.failures == {}
    own = [row for row in found.rows if row.edit == "fox-1" and row.variant == "full"]
    assert [row.metric.partition("@")[0] for row in own if row.value is None] == list(undefined)
    assert all("prompt is stated" in row.reason for row in own if row.value is None)


class Unsteady:
    """A flow that breaks as none should."""

    id = "unsteady"

    def __call__(self, before: Frames, after: Frames) -> Flow:
        raise ArithmeticError("out of luck")


def test_an_error_that_nobody_foresaw_leaves_its_trace_and_the_other_scores(run_folder: Path, tiny_clip: Path) -> None:
    wanted = config(run_folder, tiny_clip, metrics=("motion_fidelity", "warp_error", "psnr/truth"))
    loaded = load_scorer(wanted)
    scorer = Scorer(loaded.metrics, replace(loaded.networks, flow=Unsteady()), "given")
    jobs = finished_jobs(run_folder, Truths(None, None, run_folder / "truth")).scorable
    found = evaluate_jobs(jobs, wanted, run_folder / "evaluation", None, scorer)
    assert len(found.failures) == 4  # of the clips of more than one frame, under two variants
    name, reason = next(iter(found.failures.items()))
    assert name.endswith(", warp_error, motion_fidelity")
    assert reason.startswith(
        "Stopped by an error that was not foreseen (ArithmeticError: out of luck). Its trace is in "
    )
    log = Path(reason.partition("Its trace is in ")[2].removesuffix("."))
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert {row.reason for row in found.rows if row.edit == "fox-1" and row.metric == "warp_error@1"} == {
        "Stopped by an error that was not foreseen (ArithmeticError: out of luck)."
    }
    again = evaluate_jobs(jobs, wanted, run_folder / "evaluation", None, scorer)
    assert (again.rows, again.failures) == (found.rows, found.failures)


def test_raft_and_ssim_refuse_small_frames_in_a_sentence(tmp_path: Path, tiny_clip: Path) -> None:
    torch.manual_seed(0)
    save_file(raft_small(weights=None).state_dict(), tmp_path / "raft.safetensors")
    write_frames(tmp_path / "clips" / "small", np.zeros((2, 10, 64, 3), np.uint8))
    write_frames(tmp_path / "clips" / "large", drifting(2, 0, 121, 128))
    shutil.copytree(tmp_path / "clips", tmp_path / "edited")
    edits = [
        {"id": name, "clip": f"clips/{name}", "source_prompt": "an owl", "target_prompt": "a red owl",
         "truth": {"clip": f"clips/{name}"}}
        for name in ("small", "large")
    ]  # fmt: skip
    (tmp_path / "m.json").write_text(json.dumps(edits), encoding="utf-8")
    options = ScoringOptions(
        judge=str(tiny_clip), flow="raft_small", raft=tmp_path / "raft.safetensors",
        metrics=("motion_fidelity", "ssim/truth", "psnr/truth"),
    )  # fmt: skip
    found = evaluate_videos(
        EvaluateVideos(
            **vars(options), method="m", videos=tmp_path / "edited", manifest=tmp_path / "m.json", out=tmp_path / "out"
        )
    )
    assert found.failures == {
        "m/small/0, motion_fidelity": "RAFT estimates no flow of frames below 121x121 pixels, and these are 64x10: use "
        "--flow dis.",
        "m/small/0, ssim/truth": "SSIM's window needs frames of at least 11x11 pixels, and these are 64x10.",
    }
    values = values_of(found)
    assert values["m", "small", "psnr/truth"] == 100
    assert values["m", "large", "ssim/truth"] == 1
    assert values["m", "large", "motion_fidelity"] == 0


@pytest.mark.slow
def test_two_processes_refuse_as_one_does(run_folder: Path, tiny_clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damage(run_folder)
    restate(run_folder, "owl-1", target_prompt="a " * 30)
    wanted = config(run_folder, tiny_clip, metrics=("psnr/outside", "text_alignment"))
    one = evaluate_run(wanted)
    capfd.readouterr()
    two = evaluate_run(replace(wanted, processes=2, out=run_folder.parent / "two"))
    assert (one.rows, one.failures) == (two.rows, two.failures)
    assert len(one.failures) == 4
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [*RESERVED_METHODS, " Source ", "NO EDIT", ""])
def test_a_method_is_not_called_as_other_rows_are(name: str, run_folder: Path, tiny_clip: Path) -> None:
    with pytest.raises(UserError, match="tables have other rows of that name"):
        EvaluateVideos(
            method=name, videos=run_folder, manifest=run_folder / "m.json", out=run_folder, judge=str(tiny_clip)
        )
