"""Many processes, killed processes, several runs at once: nothing lost, nothing twice, the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fatezero.data.video import write_video

WORDS = ("red", "blue", "green", "golden", "black", "white", "silver", "purple")

Command = Callable[..., list[str]]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Path]:
    """A manifest of some clips with some edits each, 2 frames of 64 x 64."""

    def write(clips: int, edits: int) -> Path:
        folder = tmp_path_factory.mktemp("clips")
        entries = []
        for number in range(clips):
            frames = np.random.default_rng(number).integers(0, 255, (2, 64, 64, 3), np.uint8)
            write_video(folder / f"clip{number}.mp4", frames, fps=8)
            entries += [
                {
                    "id": f"clip{number}-{WORDS[edit]}",
                    "clip": {"path": f"clip{number}.mp4", "height": 64, "width": 64},
                    "source_prompt": "a grey ball",
                    "target_prompt": f"a {WORDS[edit]} ball",
                }
                for edit in range(edits)
            ]
        path = folder / "manifest.jsonl"
        path.write_text("\n".join(map(json.dumps, entries)))
        return path

    return write


@pytest.fixture
def command(golden_folder: Path) -> Command:
    """The words of `fatezero edit` on the tiny checkpoint, two steps."""

    def words(manifest: Path, out: Path, *more: str, steps: int = 2) -> list[str]:
        options = {"model": golden_folder / "model", "manifest": manifest, "out": out, "steps": steps, "device": "cpu"}
        return [sys.executable, "-m", "fatezero", "edit", *(f"--{k}={v}" for k, v in options.items()), *more]

    return words


def run(words: list[str], status: int = 0) -> str:
    finished = subprocess.run(words, capture_output=True, text=True, check=False, env=environment())
    assert finished.returncode == status, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr
    return finished.stdout + finished.stderr


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def digests(run: Path) -> dict[str, str]:
    """By result, the digest of its frames."""
    return {
        meta.parent.name: json.loads(meta.read_text())["frames_digest"] for meta in sorted(run.glob("*/*/meta.json"))
    }


def made_at(run: Path) -> dict[str, int]:
    return {meta.parent.name: meta.stat().st_mtime_ns for meta in sorted(run.glob("*/*/meta.json"))}


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_processes_change_nothing(
    devices: int, manifest: Callable[[int, int], Path], command: Command, tmp_path: Path
) -> None:
    edits = manifest(2, 2)
    run(command(edits, tmp_path / "one"))
    run(command(edits, tmp_path / "many", f"--devices={devices}"))  # four processes for three jobs: one has no work
    assert digests(tmp_path / "many") == digests(tmp_path / "one")
    assert len(digests(tmp_path / "one")) == 4


@pytest.mark.slow
def test_more_processes_than_edits(manifest: Callable[[int, int], Path], command: Command, tmp_path: Path) -> None:
    run(command(manifest(1, 1), tmp_path / "run", "--devices=3"))
    assert len(digests(tmp_path / "run")) == 1


@pytest.mark.slow
def test_one_process_that_dies_is_told_and_made_good(
    manifest: Callable[[int, int], Path], command: Command, tmp_path: Path
) -> None:
    edits = manifest(2, 4)
    words = command(edits, tmp_path / "run", "--devices=2", steps=6)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment())
    while not digests(tmp_path / "run"):
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    workers = [int(pid) for pid in children.split() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(workers[-1], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "died" in said
    assert "Traceback" not in said
    before = made_at(tmp_path / "run")
    assert len(before) < 8
    run(words)
    after = made_at(tmp_path / "run")
    assert len(after) == 8
    assert {name: after[name] for name in before} == before  # nothing was made twice
    run(command(edits, tmp_path / "undisturbed", steps=6))
    assert digests(tmp_path / "run") == digests(tmp_path / "undisturbed")


@pytest.mark.slow
def test_two_runs_on_one_folder_share_the_work(
    manifest: Callable[[int, int], Path], command: Command, tmp_path: Path
) -> None:
    words = command(manifest(3, 2), tmp_path / "run", steps=4)
    both = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(digests(tmp_path / "run")) == 6
    assert not list(tmp_path.rglob("*.partial*"))
    assert not list(tmp_path.rglob("*.lock"))


@pytest.mark.slow
def test_killed_again_and_again(manifest: Callable[[int, int], Path], command: Command, tmp_path: Path) -> None:
    edits = manifest(4, 6)
    words, dice = command(edits, tmp_path / "run"), random.Random(0)
    seen: dict[str, int] = {}
    for _ in range(20):
        process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=environment()
        )
        try:
            process.wait(dice.uniform(0.0, 12.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        now = made_at(tmp_path / "run")
        assert {name: now[name] for name in seen} == seen  # what was done stays as it was
        seen = now
    run(words)
    run(command(edits, tmp_path / "undisturbed"))
    assert digests(tmp_path / "run") == digests(tmp_path / "undisturbed")
    assert len(digests(tmp_path / "run")) == 24
