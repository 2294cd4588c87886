"""Object stores, on fsspec's own in memory: inputs come here once, results go there whole."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest

from fatezero.data.manifest import check_manifest, read_manifest
from fatezero.data.remote import RemoteRun, local_copy
from fatezero.data.video import read_clip, write_frames, write_video
from fatezero.errors import UserError
from fatezero.types import ClipSpec


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fsspec.AbstractFileSystem:
    """An empty store, and an empty folder for its copies."""
    monkeypatch.setenv("FATEZERO_HOME", str(tmp_path / "home"))
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]  # it remembers folders after their files are gone
    return memory


def fill(store: fsspec.AbstractFileSystem, folder: Path) -> np.ndarray:
    frames = np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), np.uint8)
    write_frames(folder / "frames", frames)
    write_video(folder / "clip.webp", frames, fps=8)
    store.put(str(folder / "frames"), "/bucket/clips/frames", recursive=True)
    store.put_file(str(folder / "clip.webp"), "/bucket/clips/clip.webp")
    return frames


def test_clips_are_read_from_a_store(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    frames = fill(store, tmp_path)
    assert np.array_equal(read_clip(ClipSpec(path="memory://bucket/clips/frames")).frames, frames)
    assert len(read_clip(ClipSpec(path="memory://bucket/clips/clip.webp")).frames) == 3


def test_a_file_comes_here_once_until_it_changes(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    store.pipe("/bucket/a.txt", b"one")
    first = local_copy("memory://bucket/a.txt")
    assert local_copy("memory://bucket/a.txt") == first
    store.pipe("/bucket/a.txt", b"two!")
    assert local_copy("memory://bucket/a.txt").read_bytes() == b"two!"
    assert first.read_bytes() == b"one"


def test_a_manifest_in_a_store_names_clips_beside_it(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    fill(store, tmp_path)
    entry = {"id": "a", "clip": "clips/frames", "source_prompt": "x", "target_prompt": "y"}
    store.pipe("/bucket/m.json", json.dumps({"edits": [entry]}).encode())
    (request,) = read_manifest("memory://bucket/m.json").requests
    assert request.clip.path == "memory://bucket/clips/frames"
    assert not check_manifest("memory://bucket/m.json").problems
    store.pipe("/bucket/m.json", json.dumps({"edits": [entry | {"clip": "../secret"}]}).encode())
    with pytest.raises(UserError, match="leads out of"):
        read_manifest("memory://bucket/m.json")


@pytest.mark.parametrize("url", ["memory://bucket/gone.mp4", "nosuchstore://bucket/clip.mp4"])
def test_what_is_not_there_is_named(url: str) -> None:
    with pytest.raises(UserError, match=url):
        read_clip(ClipSpec(path=url))


def test_a_run_goes_to_the_store_and_its_state_comes_back(store: fsspec.AbstractFileSystem) -> None:
    run = RemoteRun("memory://bucket/run")
    result = run.folder / "full" / "one"
    (result / "frames").mkdir(parents=True)
    (result / "frames/00000.png").write_bytes(b"pixels")
    (result / "meta.json").write_text("{}")
    run.publish(result)
    assert store.cat("/bucket/run/full/one/frames/00000.png") == b"pixels"
    names = [str(entry) for entry in store.store]
    assert names[-1].endswith("meta.json")  # the last to arrive
    (result / "meta.json").unlink()
    run.fetch_state()
    assert (result / "meta.json").read_text() == "{}"
