"""Killed at every phase, resumed, and equal to a run that nobody disturbed: no byte lost, no file left behind."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.conftest import contents, hidden
from tests.faults.warm_process import Blow, WarmProcess

pytestmark = pytest.mark.slow
Editing = Callable[..., list[str]]

# Phases of an edit: the function whose n-th call is the last, and how often a whole run calls it.
PHASES = {
    "decode": ("fatezero.lightning.datamodule:read_clip", 2),
    "invert and edit": ("fatezero.diffusion.model_families.unet:UNetBackbone.predict_told", 18),
    "keep masks": ("fatezero.pipeline:MaskAverage.mean", 4),
    "write frames": ("fatezero.viewing.result_files:write_frames", 8),
    "write videos": ("fatezero.viewing.result_files:write_video", 12),
    "flush": ("fatezero.system.publishing:_flush", 100),
    "rename": ("pathlib:Path.replace", 13),
    "count": ("fatezero.commands.shared:write_results_table", 1),
}


def kill_again_and_again(warm: WarmProcess, words: Sequence[str], blows: Sequence[Blow]) -> None:
    """Run a command until each blow has hit it, then to its end."""
    for number, blow in enumerate(blows):
        ended = warm.run(*words, blow=blow)
        assert ended.status in ((-9, 0) if number else (-9,)), ended.said  # what is left may have fewer calls
        assert "Traceback" not in ended.said
    ended = warm.run(*words)
    assert ended.status == 0, ended.said


@pytest.mark.parametrize("phase", PHASES)
def test_edits_killed_at_any_phase(
    phase: str, warm: WarmProcess, editing: Editing, undisturbed: Path, tmp_path: Path
) -> None:
    dice = random.Random(phase)
    at, calls = PHASES[phase]
    # Of a run that starts anew the calls of a half, so that both hit.
    blows = [Blow(at, dice.randint(1, max(1, calls // 2))) for _ in range(2)]
    kill_again_and_again(warm, editing(tmp_path / "run"), blows)
    assert contents(tmp_path / "run") == contents(undisturbed)
    assert not hidden(tmp_path / "run")


@pytest.mark.parametrize("move", ["pathlib:Path.rename", "pathlib:Path.replace", "shutil:rmtree"])
def test_a_redo_killed_between_two_moves_loses_neither_result(
    move: str, warm: WarmProcess, editing: Editing, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert warm.run(*editing(run, steps=2)).status == 0
    for call in (1, 2, 3):
        assert warm.run(*editing(run, "--redo"), blow=Blow(move, call)).status in (-9, 0)
        said = warm.run("status", run).said
        assert "Traceback" not in said
        kept = [f"{p.name}" for p in run.glob("*/*/meta.json") if not p.parent.name.startswith(".")]
        assert len(kept) >= 3  # at most one is between its two moves
    assert warm.run(*editing(run, "--redo")).status == 0
    assert contents(run) == contents(undisturbed)
    assert not hidden(run)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_stops_at_any_phase(
    phase: str, signum: int, warm: WarmProcess, editing: Editing, undisturbed: Path, tmp_path: Path
) -> None:
    dice = random.Random(f"{phase} {signum}")
    at, calls = PHASES[phase]
    ended = warm.run(*editing(tmp_path / "run"), blow=Blow(at, dice.randint(1, calls), signum))
    assert ended.status == 128 + signum, ended.said
    assert "interrupted" in ended.said
    assert "Traceback" not in ended.said
    assert not hidden(tmp_path / "run")
    assert warm.run(*editing(tmp_path / "run")).status == 0
    assert contents(tmp_path / "run") == contents(undisturbed)


@pytest.mark.parametrize(
    ("at", "calls"),
    [
        ("fatezero_eval.scoring.scorer:keep_rows", 6),
        ("fatezero_eval.scoring.kept_rows:replace_text", 6),
        ("fatezero_eval.scoring.rows:replace_text", 1),
        ("pathlib:Path.replace", 9),
        ("fatezero_eval.scoring.provenance:replace_text", 1),
    ],
)
def test_evaluations_killed_at_any_phase(
    at: str, calls: int, warm: WarmProcess, undisturbed: Path, small_manifest: Path, tmp_path: Path
) -> None:
    words = ["evaluate", undisturbed, f"--manifest={small_manifest}", "--metrics", "warp_error*"]
    assert warm.run(*words, f"--out={tmp_path / 'whole'}").status == 0
    kill_again_and_again(
        warm, [*words, f"--out={tmp_path / 'killed'}"], [Blow(at, random.Random(at).randint(1, calls))]
    )
    for rows in ("rows.jsonl", "rows.csv", "provenance.json"):
        assert (tmp_path / "killed" / rows).read_bytes() == (tmp_path / "whole" / rows).read_bytes()
    assert not hidden(tmp_path / "killed")
    assert not hidden(undisturbed)


@pytest.mark.parametrize("verb", ["report", "leaderboard"])
def test_pages_and_tables_killed_while_they_are_written(
    verb: str, warm: WarmProcess, undisturbed: Path, small_manifest: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    assert warm.run("evaluate", run, f"--manifest={small_manifest}", "--metrics", "warp_error*").status == 0
    kill_again_and_again(warm, [verb, str(run)], [Blow("pathlib:Path.replace", call) for call in (1, 2)])
    once = contents(run)
    assert warm.run(verb, run).status == 0
    assert contents(run) == once
    assert not hidden(run)


@pytest.mark.parametrize(
    "at",
    ["fatezero.runs.inversion_cache:write_tensors", "pathlib:Path.replace", "fatezero.runs.inversion_cache:os.utime"],
)
def test_the_cache_killed_while_it_is_written_and_read(
    at: str, warm: WarmProcess, editing: Editing, tmp_path: Path
) -> None:
    cache = f"--cache={tmp_path / 'cache'}"
    if at.endswith("utime"):  # marks what is found
        assert warm.run(*editing(tmp_path / "first", cache)).status == 0
    words = editing(tmp_path / "run", cache)
    kill_again_and_again(warm, words, [Blow(at, call) for call in (1, 2)])
    assert warm.run(*editing(tmp_path / "whole", "--backend=recompute")).status == 0
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    ended = warm.run("cache", "verify", tmp_path / "cache")
    assert ended.status == 0
    assert "2 sound" in ended.said
    assert not hidden(tmp_path)


@pytest.mark.parametrize("phase", ["keep", "assemble", "discard"])
def test_segments_killed_while_they_are_kept_and_joined(
    phase: str, warm: WarmProcess, editing: Editing, tmp_path: Path
) -> None:
    cut = ("--segment=2", "--norm_scope=frame", '--key_frames=["first"]')
    blows = [Blow(f"fatezero.runs.segment_folder:SegmentFolder.{phase}", call) for call in (1, 2)]
    kill_again_and_again(warm, editing(tmp_path / "run", *cut), blows)
    assert warm.run(*editing(tmp_path / "whole", *cut)).status == 0
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert not hidden(tmp_path)


@pytest.mark.parametrize(
    "at", ["fsspec.implementations.local:LocalFileSystem.put_file", "fatezero.data.remote:RemoteRun.publish"]
)
def test_a_store_killed_while_results_go_there(
    at: str, warm: WarmProcess, editing: Editing, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    calls = {"put_file": 30, "publish": 4}[at.rpartition(".")[2]]
    blows = [Blow(at, random.Random(f"{at} {time}").randint(1, calls)) for time in range(3)]
    kill_again_and_again(warm, editing(f"file://{store}"), blows)
    assert contents(store) == contents(undisturbed)
    assert not hidden(store)


def tune_words(golden_folder: Path, small_manifest: Path, out: Path) -> list[str]:
    options = {"model": golden_folder / "model", "clip": small_manifest.parent / "clip0.mp4", "prompt": "a grey ball"}
    options |= {"steps": 4, "rank": 2, "checkpoint_every": 1, "device": "cpu", "threads": 1, "height": 64, "width": 64}
    return ["tune", f"--out={out}", *(f"--{name}={value}" for name, value in options.items())]


@pytest.mark.parametrize(
    "at",
    [
        "fatezero.training.tune_a_video:Tuning.training_step",
        "pathlib:Path.replace",
        "fatezero.training.tuning:save_inflated",
    ],
)
def test_tunings_killed_at_any_phase(
    at: str, warm: WarmProcess, golden_folder: Path, small_manifest: Path, tmp_path: Path
) -> None:
    killed = tune_words(golden_folder, small_manifest, tmp_path / "killed")
    kill_again_and_again(warm, killed, [Blow(at, call) for call in (1, 3)])
    assert warm.run(*tune_words(golden_folder, small_manifest, tmp_path / "whole")).status == 0
    assert contents(tmp_path / "killed" / "model") == contents(tmp_path / "whole" / "model")
    assert not hidden(tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_what_is_no_edit(
    signum: int, warm: WarmProcess, undisturbed: Path, golden_folder: Path, small_manifest: Path, tmp_path: Path
) -> None:
    evaluating = ["evaluate", undisturbed, f"--out={tmp_path / 'scores'}", "--metrics", "warp_error*"]
    tuning = tune_words(golden_folder, small_manifest, tmp_path / "tuned")
    for words, at in (
        (evaluating, "fatezero_eval.scoring.scorer:keep_rows"),
        (tuning, "fatezero.training.tune_a_video:Tuning.training_step"),
    ):
        ended = warm.run(*words, blow=Blow(at, 2, signum))
        assert ended.status == 128 + signum, ended.said
        assert "interrupted" in ended.said
        assert "Traceback" not in ended.said
        assert warm.run(*words).status == 0
    assert not hidden(tmp_path)
