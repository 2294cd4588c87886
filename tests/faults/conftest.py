"""A warm process, small clips with edits, and what a run folder holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fatezero.cli import main
from fatezero.clips.video import write_video
from tests.faults.warm_process import WarmProcess


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmProcess]:
    process = WarmProcess(tmp_path_factory.mktemp("said"))
    yield process
    process.close()


@pytest.fixture(scope="session")
def small_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of three frames of 64 x 64, two edits each."""
    folder = tmp_path_factory.mktemp("clips")
    entries = []
    for number in range(2):
        frames = np.random.default_rng(number).integers(0, 255, (3, 64, 64, 3), np.uint8)
        write_video(folder / f"clip{number}.mp4", frames, 8)
        entries += [
            {
                "id": f"clip{number}-{colour}",
                "clip": {"path": f"clip{number}.mp4", "height": 64, "width": 64},
                "source_prompt": "a grey ball",
                "target_prompt": f"a {colour} ball",
                "edited_words": ["ball"],
            }
            for colour in ("red", "blue")
        ]
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    return path


@pytest.fixture
def editing(golden_folder: Path, small_manifest: Path) -> Callable[..., list[str]]:
    """The words of `fatezero edit` on the tiny checkpoint."""

    def words(out: Path | str, *more: str, steps: int = 3, manifest: Path = small_manifest) -> list[str]:
        options = {"model": golden_folder / "model", "manifest": manifest, "out": out, "steps": steps, "device": "cpu"}
        return ["edit", *(f"--{name}={value}" for name, value in options.items()), *more]

    return words


UNLIKE = ("meta.json", "results.parquet", "experiment.json")  # say when and how long


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file that two equal runs have in common, by path; of records what is no measurement."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name == "meta.json":
            meta = json.loads(path.read_text(encoding="utf-8"))
            found[name] = json.dumps(
                {key: meta[key] for key in ("digest", "frames_digest", "request", "config")}
            ).encode()
        elif path.is_file() and path.name not in UNLIKE:
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="session")
def undisturbed(golden_folder: Path, small_manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the small manifest that nobody disturbed."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    options = {"model": golden_folder / "model", "manifest": small_manifest, "out": run, "steps": 3, "device": "cpu"}
    assert main(["edit", *(f"--{name}={value}" for name, value in options.items())]) == 0
    return run


def hidden(folder: Path) -> list[str]:
    """Files and folders that only work in progress has."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob(".*")]
