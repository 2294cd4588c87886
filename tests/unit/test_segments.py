"""Kept segments: put together as they were, and never believed when damaged."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fatezero.config import MethodConfig
from fatezero.data.layout import segment_folder
from fatezero.errors import UserError
from fatezero.results import EditResult, Target
from fatezero.runs.kept_tensors import write_tensors
from fatezero.runs.segment_folder import SegmentFolder
from fatezero.runs.segments import Segment
from fatezero.types import Clip

SEGMENTS = Segment(0, 3, 7).all


def part(segment: Segment, **other: object) -> EditResult:
    """A segment's own part, every number its own."""
    count, random = segment.stop - segment.start, np.random.default_rng(segment.start)
    frames = random.integers(0, 255, (count, 8, 8, 3), np.uint8)
    result = EditResult(
        frames=frames,
        source=Clip(255 - frames, 8.0),
        source_prompt="a cat",
        target=Target(prompt="a dog", method=MethodConfig()),
        latents=torch.from_numpy(random.random((count, 4, 2, 2))),
        masks=random.random((count, 8, 8), np.float32),
        attention={"cat": random.random((count, 4, 4), np.float32), "déjà": random.random((count, 4, 4), np.float32)},
        choice=None,
        bytes_kept={"latents": 10 + segment.start},
        seconds={"encode": 0.5, "editing": 1.0},
        peak_memory_bytes=100 + segment.start,
    )
    return replace(result, **other)


@pytest.fixture
def kept(tmp_path: Path) -> SegmentFolder:
    """All segments of a clip."""
    folder = SegmentFolder(tmp_path / "result", "d1")
    for segment in SEGMENTS:
        folder.keep(segment, part(segment))
    return folder


def files(tmp_path: Path) -> list[Path]:
    return sorted(segment_folder(tmp_path / "result", "d1").iterdir())


@pytest.mark.parametrize("blended", [True, False])
def test_segments_come_together_as_they_were(tmp_path: Path, *, blended: bool) -> None:
    folder = SegmentFolder(tmp_path / "result", "d1")
    parts = [part(segment) if blended else part(segment, masks=None, attention={}) for segment in SEGMENTS]
    for segment, one in zip(SEGMENTS, parts, strict=True):
        assert not folder.holds(segment)
        folder.keep(segment, one)
        assert folder.holds(segment)
    whole = folder.assemble(SEGMENTS, parts[1])
    for name in ("frames", "source_frames", *(["masks"] if blended else [])):
        assert np.array_equal(getattr(whole, name), np.concatenate([getattr(one, name) for one in parts]))
    assert torch.equal(whole.latents, torch.cat([one.latents for one in parts]))
    assert whole.attention.keys() == parts[0].attention.keys()
    assert whole.seconds == {"encode": 1.5, "editing": 3.0}
    assert whole.bytes_kept == {"latents": 16}
    assert whole.peak_memory_bytes == 106
    folder.discard()
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("harm", ["flipped", "flipped header", "cut", "empty", "foreign", "swapped", "pipe", "folder"])
def test_a_damaged_segment_is_missing_and_made_again(
    harm: str, kept: SegmentFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other, _ = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[20 if harm == "flipped header" else len(content) // 2] ^= 1
    path.unlink()
    if harm == "pipe":
        os.mkfifo(path)
    elif harm == "folder":
        path.mkdir()
    else:
        harmed = {"cut": content[:500], "empty": b"", "foreign": b"text" * 400, "swapped": other.read_bytes()}
        path.write_bytes(harmed.get(harm, content))
    with pytest.raises(UserError, match="run again"):
        kept.assemble(SEGMENTS, part(SEGMENTS[1]))
    assert not os.path.lexists(path)
    path.write_bytes(content)
    for _ in range(2):
        assert [kept.holds(segment) for segment in SEGMENTS] == [False, True, True]
    assert capsys.readouterr().err.count("is damaged") == 1
    kept.keep(SEGMENTS[0], part(SEGMENTS[0]))
    assert kept.holds(SEGMENTS[0])
    assert len(kept.assemble(SEGMENTS, part(SEGMENTS[1])).frames) == 7


WRONG = {
    "fewer": {"frames": torch.zeros(2, 8, 8, 3, dtype=torch.uint8)},
    "wider": {"frames": torch.zeros(3, 8, 9, 3, dtype=torch.uint8)},
    "other numbers": {"masks": torch.zeros(3, 8, 8).double()},
    "no numbers": {"latents": torch.full((3, 4, 2, 2), torch.nan).double()},
    "more": {"more": torch.zeros(3, 1)},
    "no list": {"about": torch.frombuffer(bytearray(b"[1]"), dtype=torch.uint8)},
    "no times": {"about": {"seconds": {}}},
    "no number of times": {"about": {"seconds": {"encode": "1", "editing": None}}},
    "times that are a list": {"about": {"seconds": [1]}},
    "other frames": {"about": {"start": 3}},
    "another job": {"about": {"job": "d2"}},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_segment_with_other_content_is_not_taken(wrong: str, kept: SegmentFolder, tmp_path: Path) -> None:
    path = files(tmp_path)[0]
    tensors, change = load_file(path), WRONG[wrong]
    if isinstance(change.get("about"), dict):
        about = json.loads(bytes(tensors["about"].numpy())) | change["about"]
        change = {"about": torch.frombuffer(bytearray(json.dumps(about).encode()), dtype=torch.uint8)}
    write_tensors(path, tensors | change, {})  # with a right digest
    with pytest.raises(UserError, match="run again"):
        kept.assemble(SEGMENTS, part(SEGMENTS[1]))
    assert not path.exists()


def test_a_long_name_has_segments_too(tmp_path: Path) -> None:
    folder = SegmentFolder(tmp_path / ("x" * 240), "0" * 32)
    folder.keep(SEGMENTS[0], part(SEGMENTS[0]))
    assert folder.holds(SEGMENTS[0])
