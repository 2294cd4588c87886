"""Frames as bytes and as tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from fatezero.types import Frames


def to_unit_range(frames: Frames) -> Tensor:
    """uint8 F,H,W,3 as float64 F,3,H,W in [0, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).double().div(255)


def to_bytes(frames: Tensor) -> Frames:
    """Float F,3,H,W in [0, 1] on any device as uint8 F,H,W,3, rounded to nearest."""
    rounded: Frames = frames.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return rounded
