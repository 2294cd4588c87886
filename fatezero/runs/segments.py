"""Long clips in segments that can be worked on apart, where frames meet only through anchors.

A segment is a shorter clip: its own frames and the anchors. What an anchor becomes depends on the anchors alone, so
every segment works it out alike, and together they are the edit of the whole clip, to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fatezero.attention.key_frames import anchor_frames, cut_into_chunks, middle_frame
from fatezero.config import MethodConfig
from fatezero.types import Frames

if TYPE_CHECKING:
    from fatezero.results import EditResult


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
        source=replace(result.source, frames=result.source_frames[own]),
        latents=result.latents[own],
        masks=None if result.masks is None else result.masks[own],
        attention={word: maps[own] for word, maps in result.attention.items()},
    )


def needed_frames(frames: Frames, segment: Segment, method: MethodConfig) -> Frames:
    """Of a clip's frames, those that a segment needs."""
    return frames[segment.frames(method)]
