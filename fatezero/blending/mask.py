"""The blending mask M_t (FateZero, "Attention Map Blending"): where the edited words look.

Shape letters: F frames, m and n rows and columns of the maps, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d


def soft_mask(attention: Tensor, size: tuple[int, int]) -> Tensor:
    """Attention as masks: grown by one cell (3 x 3 maximum), resized (nearest), over each map's maximum.

    Args:
        attention: N,C,h,w maps.
        size: rows and columns of the masks.

    Returns:
        N,C,rows,columns in [0, 1]; a map of zeros stays zero.
    """
    grown = max_pool2d(attention, kernel_size=3, stride=1, padding=1)
    resized = interpolate(grown, size=size, mode="nearest")
    peak = resized.amax((2, 3), keepdim=True)
    return resized / torch.where(peak > 0, peak, torch.ones_like(peak))


@dataclass(frozen=True)
class WordMask:
    """The mask of some words, at any resolution.

    Attributes:
        attention: F,m,n cross-attention of the words, averaged over heads and layers, summed over tokens.
        threshold: tau.
    """

    attention: Tensor
    threshold: float

    def soft(self, size: tuple[int, int]) -> Tensor:
        """F,rows,columns in [0, 1]: see `soft_mask`."""
        return soft_mask(self.attention[:, None], size)[:, 0]

    def hard(self, size: tuple[int, int]) -> Tensor:
        """Bool F,rows,columns: where `soft` exceeds the threshold."""
        return self.soft(size) > self.threshold


def word_attention(maps_FmnT: Tensor, tokens: Sequence[int]) -> Tensor:
    """Sum of the maps of the given tokens: F,m,n."""
    return maps_FmnT[..., list(tokens)].sum(-1)


class MaskAverage:
    """Share of the blended steps in which a pixel was free to change."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Take rows and columns of the result."""
        self._size = size
        self._sum_Fmn: Tensor | None = None
        self._steps = 0

    def add(self, masks: Sequence[WordMask]) -> None:
        """Count a step that blended by these masks, any of which lets a pixel change; none is no blending."""
        if masks:
            rows, columns = masks[0].attention.shape[-2:]
            free_Fmn = torch.stack([mask.hard((rows, columns)) for mask in masks]).any(0).float()
            self._sum_Fmn = free_Fmn if self._sum_Fmn is None else self._sum_Fmn + free_Fmn
            self._steps += 1

    def mean(self) -> npt.NDArray[np.float32] | None:
        """Float F,rows,columns in [0, 1]; None where no step blended."""
        if self._sum_Fmn is None:
            return None
        # Enlarging the average equals averaging enlarged masks, for a fraction of the memory.
        mean_Fmn = self._sum_Fmn.cpu() / self._steps
        share: npt.NDArray[np.float32] = interpolate(mean_Fmn[:, None], self._size, mode="nearest")[:, 0].numpy()
        return share
