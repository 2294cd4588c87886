"""Words that look at what they name: cross-attention maps, and the loss that ties them to the true masks.

The idea is TokenCompose's (Wang et al., CVPR 2024, eqs. 3 and 5): a word's attention should fall inside the object it
names, and cover it. Here the covering term acts on the very map that latent blending thresholds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from fatezero.picturebook.world import Scene

WORDS = 4  # object, colour, and up to two words of the background
SIDES = (16, 8)  # attention maps of these sides are grounded


class CrossAttentionMaps:
    """Records the cross-attention of a UNet's forward passes, averaged over heads and layers of one resolution."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.seen: dict[int, list[Tensor]] = {}
        processors = dict(unet.attn_processors)
        for name in processors:
            if name.endswith("attn2.processor"):
                processors[name] = RecordingProcessor(self.seen)
        unet.set_attn_processor(processors)

    def take(self, side: int) -> Tensor:
        """Maps of the last forward pass at one resolution: batch, side·side, tokens; each position sums to 1."""
        return torch.stack(self.seen.pop(side)).mean(dim=0)


class RecordingProcessor:
    """Attention as ever, its probabilities written down."""

    def __init__(self, seen: dict[int, list[Tensor]]) -> None:
        self.seen = seen

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        """Cross-attention of hidden_states (N,Q,C) to encoder_hidden_states (N,T,D)."""
        query, key, value = (
            attn.head_to_batch_dim(projected)
            for projected in (
                attn.to_q(hidden_states),
                attn.to_k(encoder_hidden_states),
                attn.to_v(encoder_hidden_states),
            )
        )
        probs = attn.get_attention_scores(query, key, attention_mask)
        side = round(hidden_states.shape[1] ** 0.5)
        if side in SIDES:
            self.seen.setdefault(side, []).append(probs.unflatten(0, (-1, attn.heads)).mean(dim=1))
        output = attn.batch_to_head_dim(probs @ value)
        return attn.to_out[1](attn.to_out[0](output))  # type: ignore[no-any-return]


def word_columns(scene: Scene) -> npt.NDArray[np.int64]:
    """Token numbers of the scene's object, colour and background words: int64 WORDS, -1 where there is none."""
    words = scene.caption.split()
    named = [scene.object, scene.colour, *scene.background.split()]
    columns = [1 + words.index(word) if word else -1 for word in named]
    return np.array(columns + [-1] * (WORDS - len(columns)))


def blending_map(attention: Tensor, side: int) -> Tensor:
    """The map that latent blending thresholds: max-pooled 3×3, divided by its maximum.

    Args:
        attention: N,side·side,W attention to W words.
        side: of the map.

    Returns:
        N,side·side,W in 0..1.
    """
    squares = attention.transpose(1, 2).unflatten(2, (side, side))
    pooled = F.max_pool2d(squares, 3, stride=1, padding=1).flatten(2).transpose(1, 2)
    return pooled / pooled.amax(dim=1, keepdim=True).clamp_min(1e-8)


def grounding_loss(attention: Tensor, columns: Tensor, coverage: Tensor, weight: Tensor) -> Tensor:
    """How far words look away from what they name.

    Args:
        attention: N,Q,T maps of one resolution.
        columns: N,WORDS token numbers of `word_columns`.
        coverage: N,Q share of each position that the object covers.
        weight: N weight of each picture.

    Returns:
        Mean over pictures and words of (1 - share of attention on the right side)² plus the binary cross-entropy
        between the blending map and the true coverage.
    """
    side = round(attention.shape[1] ** 0.5)
    maps = attention.gather(2, columns.clamp_min(0)[:, None].expand(-1, attention.shape[1], -1))
    inside = torch.tensor([True, True, False, False])
    target = torch.where(inside, coverage[..., None], 1 - coverage[..., None])
    share = (maps * target).sum(1) / maps.sum(1).clamp_min(1e-8)
    cover = F.binary_cross_entropy(blending_map(maps, side).clamp(1e-3, 1 - 1e-3), target, reduction="none").mean(dim=1)
    counts = (columns >= 0) * weight[:, None]
    return (((1 - share).square() + cover) * counts).sum() / counts.sum().clamp_min(1e-8)
