"""Points followed through a clip by OpenCV's pyramidal Lucas–Kanade, with no weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fatezero.types import Frames

Points = npt.NDArray[np.float32]  # N,2 in pixels, x then y

POINTS = 32  # along the shorter side of the first frame
TOLERANCE = 1.0  # pixels by which a point may miss its start, followed there and back
WINDOW_SIDE, PYRAMID = 21, 3  # OpenCV's defaults: pixels, and halvings of the frame


class LucasKanade:
    """Follows points from one frame to the next. Bouguet 2001; forward-backward check of Kalal et al. 2010."""

    id = f"lucas-kanade-{WINDOW_SIDE}-{PYRAMID}"

    def follow(self, before: Frames, after: Frames, points: Points) -> tuple[Points, npt.NDArray[np.bool_]]:
        """Where the points are in the next of two uint8 H,W,3 frames, and which of them could be followed, N bool."""
        forward, found = self._step(before, after, points)
        back, returned = self._step(after, before, forward)
        close = np.linalg.norm(back - points, axis=1) <= TOLERANCE
        return forward, found & returned & close & _inside(forward, after)

    def _step(self, before: Frames, after: Frames, points: Points) -> tuple[Points, npt.NDArray[np.bool_]]:
        import cv2  # noqa: PLC0415

        here, there = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after))
        size = (WINDOW_SIDE, WINDOW_SIDE)
        moved, status, _ = cv2.calcOpticalFlowPyrLK(here, there, points[:, None], None, winSize=size, maxLevel=PYRAMID)
        return np.asarray(moved[:, 0], np.float32), np.asarray(status[:, 0] == 1)


def _inside(points: Points, frame: Frames) -> npt.NDArray[np.bool_]:
    height, width = frame.shape[:2]
    return np.asarray(((points >= 0) & (points <= (width - 1, height - 1))).all(1))


def first_points(frame: Frames) -> Points:
    """Centres of the squares of a grid, `POINTS` along the shorter side of a frame H,W,3."""
    height, width = frame.shape[:2]
    spacing = min(height, width) / POINTS
    columns, rows = (np.arange(spacing / 2, side, spacing) - 0.5 for side in (width, height))
    grid = np.meshgrid(columns, rows)
    return np.stack([side.ravel() for side in grid], axis=1).astype(np.float32)


@dataclass
class TrackedClip:
    """The points of a clip's first frame, followed as its frames come.

    Attributes:
        tracker: follows them.
    """

    tracker: LucasKanade
    _places: list[Points] = field(default_factory=list)
    _alive: npt.NDArray[np.bool_] = field(default_factory=lambda: np.ones(0, bool))

    def add(self, frames: Frames) -> None:
        """Go through more frames F,H,W,3, the first of which is the last of those before, if there were any."""
        if not self._places:
            self._places = [first_points(frames[0])]
            self._alive = np.ones(len(self._places[0]), bool)
        for before, after in pairwise(frames):
            points, followed = self.tracker.follow(before, after, self._places[-1])
            self._places.append(points)
            self._alive &= followed

    @property
    def tracks(self) -> Points:
        """N,F,2: the points that were followed through all frames."""
        return np.stack(self._places, axis=1)[self._alive]
