"""Known optical flow: of a clip whose motion is known, cut to the frames that are taken of it.

A flow is in pixels, x then y: the pixel p of a frame is found at p + flow(p) in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fatezero.errors import UserError
from fatezero_eval.networks.array_cache import check_archive

MAX_BYTES = 2**32  # of a flow file's arrays: a thousand pairs of 512x512 pixels
Flow = npt.NDArray[np.float32]  # 2,H,W, or P,2,H,W for P pairs of neighbouring frames


@dataclass(frozen=True)
class GivenFlow:
    """The known motion of a clip.

    Attributes:
        forward: P,2,H,W from frame t to t + 1.
        backward: P,2,H,W from frame t + 1 to t.
        visible: P,H,W bool, whether frame t + 1 still shows what frame t shows there; None if not known.
    """

    forward: Flow
    backward: Flow
    visible: npt.NDArray[np.bool_] | None = None

    def check(self, frames: int, size: tuple[int, ...]) -> None:
        """See to it that there is a pair for each two neighbours of so many frames of a size H,W.

        Raises:
            UserError: if not.
        """
        pairs, _, height, width = self.forward.shape
        if (height, width) != size or pairs < frames - 1:
            raise UserError(
                f"the given flow has {pairs} pairs of {width}x{height}, but the clip has at least {frames} frames of "
                f"{size[1]}x{size[0]}: give the flow of its own frames, or leave it out."
            )

    def between(self, indices: Sequence[int]) -> GivenFlow:
        """The motion from each of these frames to the next of them, which never go back.

        Between frames that are no neighbours, a pixel is followed from frame to frame, each step read bilinearly where
        the one before has led; it is visible if it is so all along.

        Raises:
            UserError: the flow ends before.
        """
        if max(indices) > len(self.forward):
            raise UserError(
                f"the given flow has {len(self.forward)} pairs, but frame {max(indices)} of the clip is taken too: "
                "give the flow of all its frames, or leave it out."
            )
        if list(indices) == list(range(indices[0], indices[0] + len(indices))):
            pairs = slice(indices[0], indices[-1])
            visible = None if self.visible is None else self.visible[pairs]
            return GivenFlow(self.forward[pairs], self.backward[pairs], visible)
        ways = [range(before, after) for before, after in pairwise(indices)]
        forward = np.stack([self._followed(self.forward, way) for way in ways])
        backward = np.stack([self._followed(self.backward, way[::-1]) for way in ways])
        visible = None if self.visible is None else np.stack([self._seen(self.visible, way) for way in ways])
        return GivenFlow(forward, backward, visible)

    def _followed(self, flows: Flow, way: range) -> Flow:
        total = np.zeros(flows.shape[1:], np.float32)
        for pair in way:
            total = total + _sampled(flows[pair].transpose(1, 2, 0), total).transpose(2, 0, 1)
        return total

    def _seen(self, visible: npt.NDArray[np.bool_], way: range) -> npt.NDArray[np.bool_]:
        seen, total = np.ones(visible.shape[1:], bool), np.zeros(self.forward.shape[1:], np.float32)
        for pair in way:
            seen &= _sampled(visible[pair].astype(np.float32), total) == 1
            total = total + _sampled(self.forward[pair].transpose(1, 2, 0), total).transpose(2, 0, 1)
        return seen


def _sampled(values: npt.NDArray[np.float32], flow: Flow) -> npt.NDArray[np.float32]:
    """Values H,W or H,W,C where a flow leads, bilinearly; beyond the frame those at its border."""
    import cv2  # noqa: PLC0415

    rows, columns = np.mgrid[: flow.shape[1], : flow.shape[2]].astype(np.float32)
    x, y = columns + flow[0], rows + flow[1]
    return np.asarray(cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def read_flow(path: Path) -> GivenFlow:
    """Read an `.npz` with `forward` and `backward`, each P,2,H,W or P,H,W,2 finite numbers, and perhaps `visible`.

    Raises:
        UserError: the file is unreadable, or its arrays have other names, shapes or types, or hold NaN or infinity.
    """
    try:
        check_archive(path, MAX_BYTES)
        with np.load(path, allow_pickle=False) as stored:
            forward, backward = (_pairs_first(stored[name]) for name in ("forward", "backward"))
            visible = stored["visible"].astype(bool) if "visible" in stored else None
    except Exception as error:  # damaged archives raise errors of many kinds
        raise UserError(
            f"{path}: not a flow file ({error}); it must hold `forward` and `backward`, each P,2,H,W."
        ) from error
    if not (np.isfinite(forward).all() and np.isfinite(backward).all()):
        raise UserError(f"{path}: it holds NaN or infinite values: make them 0, and False in `visible` (P,H,W).")
    seen = forward[:, 0].shape if visible is None else visible.shape
    if not forward.shape == backward.shape == (seen[0], 2, *seen[1:]):
        shapes = f"forward {forward.shape}, backward {backward.shape}, visible {seen}"
        raise UserError(f"{path}: its arrays do not fit together ({shapes}).")
    return GivenFlow(forward, backward, visible)


def _pairs_first(flow: npt.NDArray[Any]) -> Flow:
    if flow.ndim == 4 and flow.shape[1] != 2 and flow.shape[3] == 2:
        flow = flow.transpose(0, 3, 1, 2)
    if flow.ndim != 4 or flow.shape[1] != 2 or flow.dtype.kind not in "fi":
        raise ValueError(f"shape {flow.shape} of {flow.dtype}")
    return np.ascontiguousarray(flow, dtype=np.float32)
