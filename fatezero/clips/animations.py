"""Writes gif and webp."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from fatezero.clips.source import Frame
from fatezero.types import Timing

# The shortest time that browsers show a frame: at 10 ms or less they take 100. A gif counts in hundredths of a second.
FASTEST_FRAMES = {".gif": 50, ".webp": 90}  # a second
_TOLD = 1  # ms by which a frame may be off its time without a word


def write_animation(path: Path, frames: Iterable[Frame], timing: Timing) -> tuple[str, ...]:
    """Writes frames that end at the hundredth (gif) or thousandth (webp) of a second that is nearest to their time.

    Returns:
        One sentence for each way in which the file differs from the frames in number or time.
    """
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    unit = 10 if path.suffix.lower() == ".gif" else 1
    exact = [1000 * time for time in timing] if isinstance(timing, tuple) else _even(len(images), timing)
    ends = [unit * round(time / unit) for time in exact]  # rounded each, so that the clip keeps its length
    durations = [end - start for start, end in pairwise(ends)]
    first, rest = images[0], images[1:]
    if unit == 10:
        first.save(path, save_all=True, append_images=rest, duration=durations, loop=0)
    else:
        first.save(path, save_all=True, append_images=rest, duration=durations, loop=0, quality=90, method=4)
    notes = []
    off = max(abs(end - time) for end, time in zip(ends, exact, strict=True))
    if off > _TOLD:
        notes.append(f"Frames are up to {off:.1f} ms off their times, since gif files count in hundredths of a second.")
    with Image.open(path) as written:
        repeats = len(images) - getattr(written, "n_frames", 1)
    if repeats:
        notes.append(f"Frames equal to the one before ({repeats}) are stored as a longer duration of it.")
    return tuple(notes)


def _even(count: int, fps: float) -> list[float]:
    return [1000 * index / fps for index in range(count + 1)]
