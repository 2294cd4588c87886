"""Videos read once, window by window, for all edits of a clip that are scored side by side.

Shapes: F frames of a window, the overlapping one included; H rows, W columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from fatezero.errors import UserError, attempt, unwrap
from fatezero.types import Frames
from fatezero_eval.networks.batching import BATCH

T = TypeVar("T")
Video = Callable[[int], Iterator[Frames]]  # given a size, yields that many frames at a time; fewer at the end

WINDOW = 2 * BATCH  # a multiple of BATCH, so that a frame's place in its batch follows from its index alone


@dataclass(frozen=True, eq=False)
class Footage:
    """A video's frames of one window, with what is computed of them alone, once for all edits that show them.

    Attributes:
        frames: uint8 F,H,W,3, the overlapping one included.
        start: index in the clip of the first frame.
        overlap: 0 for the first window, 1 after.
        number: that no other footage of this process has.
    """

    frames: Frames
    start: int
    overlap: int
    number: int = field(default_factory=count().__next__)
    _kept: dict[Hashable, object] = field(default_factory=dict)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` returned when it was first asked for under this key."""
        if key not in self._kept:
            self._kept[key] = compute()
        return cast(T, self._kept[key])

    @property
    def fresh(self) -> Frames:
        """The frames that no window before had, uint8 f,H,W,3."""
        return self.frames[self.overlap :]

    @property
    def tensor(self) -> Tensor:
        """All frames, float64 F,3,H,W in [0, 1]."""
        return self.once("tensor", lambda: torch.from_numpy(self.frames).permute(0, 3, 1, 2).double() / 255)


class Reel:
    """A video that is read once, whoever looks at it, as all of them go through its windows side by side.

    It holds a window until everyone has had it, and from then on the one frame that the next begins with.
    """

    def __init__(self, video: Video, viewers: int) -> None:
        self._parts = video(WINDOW)
        self._viewers = viewers
        self._waiting = 0
        self._number = -1
        self._now: Footage | UserError | None = None
        self._start = 0
        self._last: Frames | None = None

    def at(self, number: int) -> Footage | None:
        """The window of this number, which is the last one's or the next; None after the end.

        Raises:
            UserError: it cannot be read.
        """
        if number > self._number:
            self._number, self._waiting, self._now = number, self._viewers, attempt(self._next)
        found = self._now
        self._waiting -= 1
        if not self._waiting:
            self._now = None
        return unwrap(found)

    def _next(self) -> Footage | None:
        new = next(self._parts, None)
        if new is None:
            return None
        overlap = 0 if self._last is None else 1
        frames = new if self._last is None else np.concatenate([self._last, new])
        footage = Footage(frames, self._start - overlap, overlap)
        self._last = np.array(new[-1:])
        self._start += len(new)
        return footage


def reels_of(videos: Iterable[Video]) -> Mapping[Video, Reel]:
    """A reel of each video; one that is named several times has as many viewers."""
    return {video: Reel(video, viewers) for video, viewers in Counter(videos).items()}
