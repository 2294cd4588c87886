"""Many processes, killed processes, several runs at once: nothing lost, nothing twice, the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from fatezero.clips.video import read_clip, write_video
from fatezero.types import ClipSpec
from tests.faults.warm_process import WarmProcess

WORDS = ("red", "blue", "green", "golden", "black", "white", "silver", "purple")

Command = Callable[..., list[str]]
Warm = Callable[..., str]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Path]:
    """A manifest of some clips with some edits each, 2 frames of 64 x 64."""

    def write(clips: int, edits: int) -> Path:
        folder = tmp_path_factory.mktemp("clips")
        entries = []
        for number in range(clips):
            frames = np.random.default_rng(number).integers(0, 255, (2, 64, 64, 3), np.uint8)
            write_video(folder / f"clip{number}.mp4", frames, 8)
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


@pytest.fixture(scope="module")
def command(golden_folder: Path) -> Command:
    """The words of `fatezero edit` on the tiny checkpoint, two steps."""

    def words(manifest: Path, out: Path, *more: str, steps: int = 2) -> list[str]:
        options = {"model": golden_folder / "model", "manifest": manifest, "out": out, "steps": steps, "device": "cpu"}
        return [sys.executable, "-m", "fatezero", "edit", *(f"--{k}={v}" for k, v in options.items()), *more]

    return words


@pytest.fixture(scope="module")
def four_edits(manifest: Callable[[int, int], Path]) -> Path:
    """A manifest of two clips with two edits each."""
    return manifest(2, 2)


@pytest.fixture(scope="module")
def by_one_process(four_edits: Path, command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of these edits by one process."""
    made = tmp_path_factory.mktemp("runs") / "one"
    run(command(four_edits, made))
    return made


def run(words: list[str], status: int = 0) -> str:
    finished = subprocess.run(words, capture_output=True, text=True, check=False, env=environment())
    assert finished.returncode == status, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr
    return finished.stdout + finished.stderr


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """As `run`, in a child of a process that has imported everything: for what other processes are compared with."""
    process = WarmProcess(tmp_path_factory.mktemp("said"))

    def run_warm(words: list[str], status: int = 0) -> str:
        ended = process.run(*words[words.index("fatezero") + 1 :])
        assert ended.status == status, ended.said
        assert "Traceback" not in ended.said
        return ended.said

    yield run_warm
    process.close()


def environment() -> dict[str, str]:
    """As a user's: how many threads there are is the command's to say."""
    return {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}


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
    devices: int, four_edits: Path, by_one_process: Path, command: Command, tmp_path: Path
) -> None:
    many = tmp_path / "many"
    run(command(four_edits, many, f"--devices={devices}"))  # four processes for three groups: one has no work
    assert digests(many) == digests(by_one_process)
    assert len(digests(many)) == 4
    for meta in [*many.glob("*/*/meta.json"), *by_one_process.glob("*/*/meta.json")]:
        made_with = json.loads(meta.read_text(encoding="utf-8"))
        assert made_with["runtime"]["threads"] == 1
        assert made_with["runtime"]["memory_gb"] == 2.0
        assert made_with["source_attention"]["backend"] == "qk"


@pytest.mark.slow
def test_torchrun_starts_the_processes(
    four_edits: Path, by_one_process: Path, command: Command, tmp_path: Path
) -> None:
    words = command(four_edits, tmp_path / "torchrun", "--devices=2")[1:]
    said = run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *words])
    assert digests(tmp_path / "torchrun") == digests(by_one_process)
    assert said.count("4 of 4 edits are in") == 1


@pytest.mark.slow
def test_more_processes_than_edits(manifest: Callable[[int, int], Path], command: Command, tmp_path: Path) -> None:
    run(command(manifest(1, 1), tmp_path / "run", "--devices=3"))
    assert len(digests(tmp_path / "run")) == 1


@pytest.mark.slow
def test_one_process_that_dies_is_told_and_made_good(
    manifest: Callable[[int, int], Path], command: Command, warm: Warm, tmp_path: Path
) -> None:
    edits = manifest(2, 4)
    words = command(edits, tmp_path / "run", "--devices=2", steps=6)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment())
    while not digests(tmp_path / "run"):
        time.sleep(0.05)
    servers = [child for child in psutil.Process(process.pid).children() if "forkserver" in " ".join(child.cmdline())]
    workers = [worker for server in servers for worker in server.children()]
    workers[-1].send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "died" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "run").rglob(".*"))  # the lock of a killed process goes as well
    before = made_at(tmp_path / "run")
    assert len(before) < 8
    warm(command(edits, tmp_path / "run", steps=6))
    after = made_at(tmp_path / "run")
    assert len(after) == 8
    assert {name: after[name] for name in before} == before  # nothing was made twice
    warm(command(edits, tmp_path / "undisturbed", steps=6))
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
def test_kept_inversions_change_nothing(
    four_edits: Path, command: Command, warm: Warm, golden_folder: Path, tmp_path: Path
) -> None:
    edits, cache = four_edits, tmp_path / "cache"
    inverting = [sys.executable, "-m", "fatezero", "invert", f"--model={golden_folder / 'model'}", "--device=cpu"]
    run([*inverting, f"--manifest={edits}", f"--cache={cache}", "--steps=2", "--devices=2"])
    listed = warm([sys.executable, "-m", "fatezero", "cache", "ls", str(cache)])
    assert "2 inversions" in listed
    said = warm(command(edits, tmp_path / "found", f"--cache={cache}", "--verbose"))
    assert said.count("from the cache") == 2
    warm(command(edits, tmp_path / "made", "--backend=recompute"))
    assert digests(tmp_path / "found") == digests(tmp_path / "made")


@pytest.mark.slow
def test_a_long_clip_is_shared_by_processes(golden_folder: Path, warm: Warm, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (11, 64, 64, 3), np.uint8)
    write_video(tmp_path / "long.webp", frames, 8)
    asked = {"clip": tmp_path / "long.webp", "source": "a grey ball", "target": "a red ball", "edited_words": "ball"}
    asked |= {"model": golden_folder / "model", "steps": 3, "norm_scope": "frame", "key_frames": '["first","middle"]'}
    asked |= {"height": 64, "width": 64, "id": "long", "device": "cpu", "chunk": 4}
    words = [sys.executable, "-m", "fatezero", "edit", *(f"--{name}={value}" for name, value in asked.items())]
    warm([*words, f"--out={tmp_path / 'whole'}"])
    for devices in (1, 2, 3):
        edit = warm if devices == 1 else run
        edit([*words, f"--out={tmp_path / str(devices)}", "--segment=4", f"--devices={devices}"])
        assert digests(tmp_path / str(devices)) == digests(tmp_path / "1")
        assert not list(tmp_path.rglob("*.pieces"))
    for folder in ("frames", "masks"):
        whole = read_clip(ClipSpec(path=str(tmp_path / "whole/fatezero/long" / folder))).frames.astype(int)
        segments = read_clip(ClipSpec(path=str(tmp_path / "2/fatezero/long" / folder))).frames.astype(int)
        assert whole.shape == segments.shape == (11, 64, 64, 3)
        assert np.abs(whole - segments).max() <= 1  # other batches round otherwise
    said = warm([*words, "--norm_scope=clip", f"--out={tmp_path / 'tied'}", "--segment=4"], status=1)
    assert "norm_scope is 'clip'" in said


@pytest.mark.slow
def test_killed_again_and_again(
    manifest: Callable[[int, int], Path], command: Command, warm: Warm, tmp_path: Path
) -> None:
    edits = manifest(6, 6)
    words, dice = command(edits, tmp_path / "run", "--devices=2"), random.Random(0)
    seen: dict[str, int] = {}
    for _ in range(4):  # at any time; tests/faults kills at every phase
        process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=environment()
        )
        try:
            process.wait(dice.uniform(0.0, 16.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        now = made_at(tmp_path / "run")
        assert {name: now[name] for name in seen} == seen  # what was done stays as it was
        seen = now
    assert "36 of 36 edits" in run(words)
    assert "36 done" in warm([sys.executable, "-m", "fatezero", "status", str(tmp_path / "run")])
    warm(command(edits, tmp_path / "undisturbed"))
    assert digests(tmp_path / "run") == digests(tmp_path / "undisturbed")
    assert len(digests(tmp_path / "run")) == 36


@pytest.mark.slow
@pytest.mark.parametrize("harmed", [0, 5])  # early in one process's share, late in another's
def test_a_clip_that_fails_stops_no_other(
    harmed: int, manifest: Callable[[int, int], Path], command: Command, warm: Warm, tmp_path: Path
) -> None:
    edits = manifest(6, 1)
    (edits.parent / f"clip{harmed}.mp4").write_bytes(b"no video")
    said = run(command(edits, tmp_path / "run", "--devices=2"), status=1)
    assert f"clip{harmed}.mp4 is not a video" in said
    assert len(digests(tmp_path / "run")) == 5
    said = warm([sys.executable, "-m", "fatezero", "status", str(tmp_path / "run")], status=1)
    assert "5 done, 1 failed" in said


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_fills_up_loses_nothing(
    manifest: Callable[[int, int], Path], command: Command, warm: Warm, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this sandbox allows no mounts")
    try:
        words = command(manifest(3, 4), disk / "run", steps=8)
        process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        while not digests(disk / "run"):
            time.sleep(0.02)
        (disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(disk).free - 4096))
        _, said = process.communicate(timeout=300)
        assert process.returncode == 1
        assert "cannot be written" in said
        assert "Traceback" not in said
        before = made_at(disk / "run")
        assert 0 < len(before) < 12
        (disk / "ballast").unlink()
        warm(words)
        after = made_at(disk / "run")
        assert len(after) == 12
        assert {name: after[name] for name in before} == before
    finally:
        subprocess.run(["umount", str(disk)], check=True)
