"""What any input is to the rest: a size, a time for each frame, and a way to decode some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]  # H,W,3 RGB, 0..255


@dataclass(frozen=True)
class Source:
    """An opened input, of which nothing is held but the index.

    Attributes:
        path: file or folder.
        height: rows, as shown (after the file's rotation).
        width: columns, as shown.
        times: seconds from the first frame to each frame; their number is the number of frames.
        duration: seconds from the first frame to the end of the last.
        fps: mean frames per second; None where the input states no time.
        decode: yields the frames of these indices, which never fall.
        notes: one sentence for each thing done to every frame.
    """

    path: Path
    height: int
    width: int
    times: tuple[float, ...]
    duration: float
    fps: float | None
    decode: Callable[[Sequence[int]], Iterator[Frame]]
    notes: tuple[str, ...]


def on_white(rgba: npt.NDArray[np.uint8]) -> Frame:
    """Composites H,W,4 on white: what a browser shows of a transparent picture on an empty page."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


ON_WHITE = "Transparent pixels are shown on white."
