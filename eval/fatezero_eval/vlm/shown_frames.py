"""Which frames of a clip a model is shown, in which order and at what size: a part of every question's version."""

from __future__ import annotations

import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from fatezero.types import Frames

SHOWN = 4  # frames of a video, as many as FiVE-Acc means to show
LONGER_SIDE = 512  # pixels, at most


@dataclass(frozen=True)
class ShownFrames:
    """What a question is about.

    Attributes:
        edited: frames of the edit, uint8 N,H,W,3.
        source: the same frames of the source; None where they are not shown.
    """

    edited: Frames
    source: Frames | None = None

    @property
    def parts(self) -> tuple[str | Image.Image, ...]:
        """What the model gets before the question, in order: words and pictures."""
        count = len(self.edited)
        shown = [Image.fromarray(frame) for frame in self.edited]
        how_many = f"{count} frames of it, in order of time:" if count > 1 else "one frame of it:"
        if self.source is None:
            return (f"A video; {how_many}", *shown)
        before = [Image.fromarray(frame) for frame in self.source]
        return (f"The first video; {how_many}", *before, f"The second video; {how_many}", *shown)


def shown_indices(frames: int) -> list[int]:
    """The frames in the middle of SHOWN equal parts of a clip; all of a clip that has no more."""
    count = min(SHOWN, frames)
    return [(2 * part + 1) * frames // (2 * count) for part in range(count)]


def reduced(frames: Frames) -> Frames:
    """The frames with their longer side scaled to LONGER_SIDE where it is longer, uint8 N,h,w,3."""
    height, width = frames.shape[1:3]
    scale = LONGER_SIDE / max(height, width)
    if scale >= 1:
        return frames
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def as_png(picture: Image.Image) -> bytes:
    """The picture without loss, so that nothing is seen that a codec has done."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
