"""Frames in batches of a fixed size, so that an embedding depends on its frame alone.

A frame is encoded in a batch of fixed size, filled up with black frames, at the place its index in the clip
gives it: an embedding depends neither on the length of the clip nor on how a long one was cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fatezero.types import Frames

if TYPE_CHECKING:
    from PIL import Image

BATCH = 8


def in_batches(
    frames: Frames, prepare: Callable[[Image.Image], Tensor], encode: Callable[[Tensor], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """Encode frames in batches of `BATCH`, the last one filled up with black; float32, first axis F.

    Whatever is done with the result must work on one frame at a time: how a matrix product rounds depends on its
    number of rows.

    Args:
        frames: uint8 F,H,W,3.
        prepare: makes one network input C,h,w of a picture.
        encode: the network, from B,C,h,w to its outputs, B,… each.
    """
    from PIL import Image  # noqa: PLC0415

    batches = []
    with torch.inference_mode():
        for start in range(0, len(frames), BATCH):
            inputs = torch.stack([prepare(Image.fromarray(f)) for f in frames[start : start + BATCH]])
            padding = inputs.new_zeros(BATCH - len(inputs), *inputs.shape[1:])
            encoded = encode(torch.cat([inputs, padding]))
            batches.append([each[: len(inputs)].float().cpu() for each in encoded])
    return tuple(torch.cat(each) for each in zip(*batches, strict=True))
