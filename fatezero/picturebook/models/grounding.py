"""Words that look at what they name: cross-attention maps, and the loss that ties them to the true masks.

The idea is TokenCompose's (Wang et al., CVPR 2024, eqs. 3 and 5): a word's attention should fall inside the object it
names, and cover it. Here the covering term acts on the very map that latent blending thresholds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fatezero.blending.mask import soft_mask
from fatezero.picturebook.world.scenes import Scene

WORDS = 4  # object, colour, and up to two words of the background


def word_columns(scene: Scene, first: int = 1) -> npt.NDArray[np.int64]:
    """Token numbers of the scene's object, colour and background words: int64 WORDS, -1 for words that it lacks.

    The caption's first word is token number `first`: CLIP's tokenizers put a start mark before it, T5's do not.
    """
    words = scene.caption.split()
    named = [scene.object, scene.colour, *scene.background.split()]
    columns = [first + words.index(word) if word else -1 for word in named]
    return np.array(columns + [-1] * (WORDS - len(columns)))


def grounding_loss(attention: Tensor, columns: Tensor, coverage: Tensor, weight: Tensor) -> Tensor:
    """How far words look away from what they name.

    Args:
        attention: N,h,w,T maps of one resolution.
        columns: N,WORDS token numbers of `word_columns`.
        coverage: N,h,w share of each position that the object covers.
        weight: N weight of each picture.

    Returns:
        Mean over pictures and words of (1 - share of attention on the right side)² plus the binary cross-entropy
        between the words' blending masks and the true coverage.
    """
    maps = torch.take_along_dim(attention.movedim(-1, 1), columns.clamp_min(0)[..., None, None], 1)  # N,WORDS,h,w
    inside = (torch.arange(WORDS, device=attention.device) < 2)[:, None, None]  # object and colour; else background
    target = torch.where(inside, coverage[:, None], 1 - coverage[:, None])
    share = (maps * target).sum((2, 3)) / maps.sum((2, 3)).clamp_min(1e-8)
    masks = soft_mask(maps, (maps.shape[2], maps.shape[3])).clamp(1e-3, 1 - 1e-3)
    cover = F.binary_cross_entropy(masks, target, reduction="none").mean((2, 3))
    counts = (columns >= 0) * weight[:, None]
    return (((1 - share).square() + cover) * counts).sum() / counts.sum().clamp_min(1e-8)
