"""What of a clip's frames an encoder is shown: the frames themselves, or what others make of them first.

Each function takes a window and the name of a version, and returns its fresh frames, uint8 f,h,w,3.
"""

from __future__ import annotations

import numpy as np

from fatezero.types import Frames
from fatezero_eval.metrics.fidelity import with_border
from fatezero_eval.scoring.windows import Window

TGVE_SIDE = 480


def whole_frames(window: Window, version: str) -> Frames:
    """The frames as they are."""
    return window.fresh_frames(version)


def bottom_squares(window: Window, version: str) -> Frames:
    """Portrait frames cropped to their bottom square, as FateZero's script does."""
    frames = window.fresh_frames(version)
    height, width = frames.shape[1:3]
    return np.ascontiguousarray(frames[:, max(0, height - width) :])


def squashed(window: Window, version: str) -> Frames:
    """Frames of 480 x 480 pixels, whatever their shape was, as TGVE's `scripts/run_eval.py` does."""
    from PIL import Image  # noqa: PLC0415

    side = (TGVE_SIDE, TGVE_SIDE)
    return np.stack([np.asarray(Image.fromarray(frame).resize(side)) for frame in window.fresh_frames(version)])


def inside_mask(window: Window, version: str) -> Frames:
    """Frames that are black outside the edit mask, with PIE's border, as PnPInversion's evaluation does."""
    mask = with_border(window.mask(window.edited_mask)).numpy()
    return np.where(mask[..., None], window.fresh_frames(version), np.uint8(0))
