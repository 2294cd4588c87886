from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import fatezero.picturebook.benchmark.edits as writing
from fatezero.clips.video import read_clip
from fatezero.data.manifest import Manifest, read_manifest
from fatezero.picturebook.benchmark.recipes import ClipRecipe, render_clip
from fatezero.picturebook.benchmark.truth import render_truth
from fatezero.picturebook.world.scenes import Scene, held_out
from fatezero.shipped import DEMO
from fatezero.types import ClipSpec, Frames

FOLDER = Path(__file__).parents[2] / "datasets" / "picturebook"


@pytest.fixture(scope="module")
def bench() -> Manifest:
    return read_manifest(FOLDER / "manifest.yaml")


def test_equal_parts_half_held_out(bench: Manifest) -> None:
    rare = {name for name, truth in bench.truth.items() if truth["held_out"]}
    counts = Counter((request.category, request.id in rare) for request in bench.requests)
    assert counts == {
        (category, half): 6
        for category in ("style", "attribute", "object", "shape", "background")
        for half in (True, False)
    }
    assert len({request.clip.path for request in bench.requests}) >= 30


def test_prompts_and_words_say_the_scenes(bench: Manifest) -> None:
    for request in bench.requests:
        truth = bench.truth[request.id]
        source, target = Scene(**truth["recipe"]["scene"]), Scene(**truth["target"])
        assert (request.source_prompt, request.target_prompt) == (source.caption, target.caption)
        assert set(request.edited_words) <= set(source.caption.split())
        assert set(request.target_words) <= set(target.caption.split())
        assert not held_out(source)
        assert held_out(target) == truth["held_out"]


@pytest.mark.parametrize("number", [0, 21, 58])
def test_truth_renders_the_shipped_clip(bench: Manifest, number: int) -> None:
    request = bench.requests[number]
    clip = read_clip(request.clip)
    source, edited = render_truth(dict(bench.truth[request.id]))
    assert clip.frames.shape == source.frames.shape == edited.frames.shape
    error = np.square(clip.frames.astype(float) - source.frames).mean()
    assert 10 * np.log10(255**2 / error) > 28
    assert np.abs(source.frames.astype(int) - edited.frames).mean() > 1


@pytest.mark.slow
def test_distractors_are_there_and_no_edit_names_them() -> None:
    crowded = read_manifest(FOLDER / "distractor.yaml")
    assert set(Counter(request.category for request in crowded.requests).values()) == {2}
    for request in crowded.requests:
        truth = crowded.truth[request.id]
        distractor = truth["recipe"]["distractor"]
        assert distractor not in f"{request.source_prompt} {request.target_prompt}".split()
        source, _ = render_truth(dict(truth))
        without, _ = render_truth({**truth, "recipe": {**truth["recipe"], "distractor": None}})
        shown = (source.frames != without.frames).any(axis=3)
        assert (shown.sum(axis=(1, 2)) > 100).all()
        shipped = np.square(read_clip(request.clip).frames.astype(float) - source.frames).mean()
        assert 10 * np.log10(255**2 / shipped) > 28


def test_long_clips_are_long() -> None:
    requests = read_manifest(FOLDER / "long.yaml").requests
    assert {len(read_clip(request.clip).frames) for request in requests} == {64}


def near(written: Path, frames: Frames) -> bool:
    """Whether a video shows these frames but for what its encoder lost: 28 dB and more."""
    decoded = read_clip(ClipSpec(path=str(written))).frames
    return (
        decoded.shape == frames.shape and 10 * np.log10(255**2 / np.square(decoded - frames.astype(float)).mean()) > 28
    )


def test_the_demo_is_written_as_it_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = read_clip(DEMO.clip)
    written = tmp_path / "demo.mp4"
    monkeypatch.setattr(writing, "DEMO", replace(DEMO, clip=ClipSpec(path=str(written))))
    writing.write_demo()
    scene = Scene(object="jeep", background="road")
    assert DEMO.source_prompt == scene.caption
    assert DEMO.target_prompt == replace(scene, background="snow").caption
    for path in (Path(DEMO.clip.path), written):
        assert near(path, render_clip(ClipRecipe(scene=scene, seed=1, frames=8)).frames)
    again = read_clip(ClipSpec(path=str(written)))
    assert (len(again.frames), again.fps) == (len(shipped.frames), shipped.fps) == (8, 8)


@pytest.mark.slow
def test_the_bench_is_written_as_it_is_shipped(tmp_path: Path) -> None:
    """Its manifests word by word; its clips are those the truth in them renders."""
    writing.write_benchmark(tmp_path)
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {path.relative_to(FOLDER) for suffix in ("yaml", "mp4") for path in FOLDER.rglob(f"*.{suffix}")}
    for name in ("manifest.yaml", "long.yaml", "distractor.yaml"):
        assert yaml.safe_load((tmp_path / name).read_text()) == yaml.safe_load((FOLDER / name).read_text())
        written = read_manifest(tmp_path / name)
        for request in written.requests[::10]:
            source, _ = render_truth(dict(written.truth[request.id]))
            assert near(Path(request.clip.path), source.frames)
