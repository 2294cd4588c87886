"""Long clips in segments that can be worked on apart, where frames meet only through anchors.

A segment is a shorter clip: its own frames and the anchors. What an anchor becomes depends on the anchors alone, so
every segment works it out alike, and together they are the edit of the whole clip, to rounding.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fatezero.attention.key_frames import anchor_frames, cut_into_chunks, middle_frame
from fatezero.config import MethodConfig
from fatezero.data.files import replacing
from fatezero.data.layout import segment_folder
from fatezero.results import EditResult
from fatezero.types import Frames


@dataclass(frozen=True)
class Segment:
    """Part of a clip.

    Attributes:
        start: index of its first own frame.
        size: own frames of a segment; the last has what is left.
        length: frames of the whole clip.
    """

    start: int
    size: int
    length: int

    @property
    def stop(self) -> int:
        """Index after its last own frame."""
        return min(self.start + self.size, self.length)

    @property
    def all(self) -> list[Segment]:
        """Every segment of the clip, in order."""
        return [replace(self, start=start) for start in range(0, self.length, self.size)]

    def frames(self, method: MethodConfig) -> list[int]:
        """The clip's frames that are needed: its own and the anchors, rising."""
        return sorted(anchor_frames(method.key_frames, self.length) | set(range(self.start, self.stop)))

    def middle(self, method: MethodConfig) -> int | None:
        """Where the clip's middle frame is among them; None where nothing asks for it."""
        needed, middle = self.frames(method), middle_frame(self.length)
        return needed.index(middle) if middle in needed else None

    def own(self, method: MethodConfig) -> list[int]:
        """Where its own frames are among them."""
        return [place for place, frame in enumerate(self.frames(method)) if self.start <= frame < self.stop]


def cut_clip(length: int, size: int, method: MethodConfig) -> list[Segment]:
    """A clip's segments; none where it is no longer than one.

    Args:
        length: frames of the clip.
        size: own frames of a segment.
        method: says how frames meet.

    Raises:
        UserError: if frames meet in other ways than through anchors.
    """
    if length <= size:
        return []
    cut_into_chunks(length, method.key_frames, method.norm_scope, size)  # refuses what ties all frames together
    return Segment(0, size, length).all


def own_part(result: EditResult, segment: Segment) -> EditResult:
    """Drop the anchor frames from a segment's result."""
    own = segment.own(result.target.method)
    return replace(
        result,
        frames=result.frames[own],
        source_frames=result.source_frames[own],
        latents=result.latents[own],
        masks=None if result.masks is None else result.masks[own],
        attention={word: maps[own] for word, maps in result.attention.items()},
    )


class SegmentFolder:
    """Finished segments of one result, kept until all are there."""

    def __init__(self, result: Path, digest: str) -> None:
        """Take the result's folder and the digest of its job."""
        self._folder = segment_folder(result, digest)

    def holds(self, segment: Segment) -> bool:
        """Whether a segment is there."""
        return self._file(segment).exists()

    def keep(self, segment: Segment, result: EditResult) -> None:
        """Put a segment's own part away.

        Raises:
            UserError: it cannot be written.
        """
        arrays = {"frames": result.frames, "source_frames": result.source_frames, "latents": result.latents.numpy()}
        if result.masks is not None:
            arrays["masks"] = result.masks
        arrays |= {f"attention {word}": maps for word, maps in result.attention.items()}
        about = {"seconds": result.seconds, "kept": result.bytes_kept, "peak": result.peak_memory_bytes}
        with replacing(self._file(segment)) as partial:
            np.savez(partial, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)

    def assemble(self, segments: Sequence[Segment], last: EditResult) -> EditResult:
        """The result of the whole clip.

        Args:
            segments: all of the clip's, which are there.
            last: any segment's result, for what they share.
        """
        loaded = [_load(self._file(segment)) for segment in segments]
        joined = {name: np.concatenate([arrays[name] for arrays, _ in loaded]) for name in loaded[0][0]}
        about = [about for _, about in loaded]
        return replace(
            last,
            frames=joined["frames"],
            source_frames=joined["source_frames"],
            latents=torch.from_numpy(joined["latents"]),
            masks=joined.get("masks"),
            attention={name.partition(" ")[2]: maps for name, maps in joined.items() if name.startswith("attention ")},
            bytes_kept=reduce(_largest, (entry["kept"] for entry in about)),
            seconds={stage: sum(entry["seconds"][stage] for entry in about) for stage in about[0]["seconds"]},
            peak_memory_bytes=max(entry["peak"] for entry in about),
        )

    def discard(self) -> None:
        """Take the segments away."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, segment: Segment) -> Path:
        return self._folder / f"{segment.start:06d}-{segment.stop:06d}.npz"


def _load(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    return arrays, json.loads(str(arrays.pop("about")))


def _largest(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one[name], other[name]) for name in one}


def needed_frames(frames: Frames, segment: Segment, method: MethodConfig) -> Frames:
    """Of a clip's frames, those that a segment needs."""
    return frames[segment.frames(method)]
