"""The blending mask M_t (FateZero, section 3.3): where the edited words look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d


@dataclass(frozen=True)
class WordMask:
    """The mask of some words, at any resolution.

    Attributes:
        attention: F,h,w cross-attention of the words, averaged over heads and layers, summed over tokens.
        threshold: tau.
    """

    attention: Tensor
    threshold: float

    def soft(self, size: tuple[int, int]) -> Tensor:
        """F,rows,columns in [0, 1]: grown by one cell (3 x 3 maximum), resized (nearest), over each frame's maximum."""
        grown = max_pool2d(self.attention[:, None], kernel_size=3, stride=1, padding=1)
        resized = interpolate(grown, size=size, mode="nearest")[:, 0]
        peak = resized.amax((1, 2), keepdim=True)
        return resized / torch.where(peak > 0, peak, torch.ones_like(peak))

    def hard(self, size: tuple[int, int]) -> Tensor:
        """Bool F,rows,columns: where `soft` exceeds the threshold."""
        return self.soft(size) > self.threshold


def word_attention(maps: Tensor, tokens: Sequence[int]) -> Tensor:
    """Sum of the maps F,h,w,T of the given tokens: F,h,w."""
    return maps[..., list(tokens)].sum(-1)
