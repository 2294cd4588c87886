"""The scripts of `benchmarks/`, tried on a processor with the tiny checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.against_revision import checked_out, compare, main
from benchmarks.seeded_case import SeededCase
from fatezero.errors import UserError

ROOT = Path(__file__).parents[2]
IN_GIT = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="revisions are git's, and this is no checkout")
TRIED = ["--device=cpu", "--size=64", "--frames=2", "--long=3", "--steps=2", "--dtypes", "bfloat16"]


@pytest.mark.slow
def test_gpu_script_prints_its_tables(golden_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = ["times", "repeated", "autoencoder"]
    assert gpu.main([*TRIED, f"--model={golden_folder / 'model'}", "--items", *items]) == 0
    printed = capsys.readouterr().out
    for row in ("stock", "bare", "qk on the device", "qk on the host", "recompute", "encode by 2", "decode by 8"):
        assert f"\n  {row} " in printed
    assert "bfloat16: twice gives the same bytes" in printed
    assert [name for name in items if f"({name} took" in printed] == items


@pytest.mark.slow
def test_gpu_script_measures_a_transformer(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TRIED, "--items", "transformer", "--transformer=wan-small", "--clips", "32", "32", "5", "--memory-gb=0"]
    assert gpu.main(words) == 0
    said = capsys.readouterr().out
    assert "qk on the device is not measured: Backend 'qk' would keep" in said
    for row in ("stock", "bare", "recompute"):
        assert f"\n  {row} " in said
        assert f"\n  {row}: " in said  # extrapolated
    assert "(transformer took" in said


@pytest.mark.slow
def test_gpu_script_goes_on_behind_a_failure(golden_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TRIED, f"--model={golden_folder / 'nowhere'}", "--items", "times", "autoencoder"]
    assert gpu.main(words) == 1
    said = capsys.readouterr()
    assert "times failed (UserError)" in said.err
    assert "Traceback" not in said.err
    assert "(autoencoder took" in said.out


def test_gpu_script_draws_the_clip_that_it_edits() -> None:
    clip = gpu.jeep_clip(3)
    assert clip.shape == (3, 128, 128, 3)
    assert clip.dtype == np.uint8
    assert not np.array_equal(clip[0], clip[2])
    assert gpu.psnr(clip, clip) == float("inf")
    assert gpu.psnr(clip, np.clip(clip.astype(int) + 1, 1, 256).astype(np.uint8)) < 60


@pytest.mark.slow
def test_gpu_script_needs_no_video_library() -> None:
    """Nor the command line's parser: a machine with a GPU may have torch, diffusers and transformers alone."""
    needless = "av cv2 decord jsonargparse lightning open_clip wandb"
    script = f"import sys, benchmarks.gpu; print(sorted(set({needless.split()}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_equal_trees_give_equal_latents(golden_folder: Path, tmp_path: Path) -> None:
    case = SeededCase(model=str(golden_folder / "model"), size=64, frames=2, steps=2, backend="recompute")
    old, new, ratio, *spread, apart, _, most = compare(case, {"old": ROOT, "new": ROOT}, tmp_path, 2).split()
    assert min(float(number) for number in (old, new, ratio)) >= 0
    assert len(spread) == 3
    assert float(apart) == 0
    assert float(most) > 0


@pytest.mark.slow
def test_the_code_of_another_tree_is_refused(golden_folder: Path, tmp_path: Path) -> None:
    case = SeededCase(model=str(golden_folder / "model"), size=64, frames=2, steps=2, backend="recompute")
    with pytest.raises(UserError, match="was to run"):
        compare(case, {"old": tmp_path, "new": ROOT}, tmp_path, 1)


@IN_GIT
def test_a_revision_is_checked_out_and_taken_away(tmp_path: Path) -> None:
    with checked_out("HEAD", tmp_path) as tree:
        assert (tree / "fatezero/pipeline.py").is_file()
    assert not tree.exists()


@IN_GIT
def test_a_revision_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-revision", "--cases", "shipped-qk"]) == 1
    said = capsys.readouterr().err
    assert "git worktree add failed" in said
    assert "no-such-revision" in said
    assert "Traceback" not in said
