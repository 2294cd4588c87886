"""Attention fusion as pure tensor functions (FateZero, section 3.2 and 3.3).

Replacing an attention map by the source's is attending with the source's queries and keys, and every rule by
which cross-attention maps are mixed is linear in the maps. So no map has to exist: the rules act on the values.

Shape letters: F frames, H heads, Q queries, K keys, D width of a head, S and T tokens of source and target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


class AttentionMap(Protocol):
    """A map that may never be materialised."""

    def apply(self, values: Tensor) -> Tensor:
        """The map times values F,H,K,D: F,H,Q,D."""


@dataclass(frozen=True)
class QueriesAndKeys:
    """The map softmax(Q Kᵀ / sqrt(D)) given by its queries F,H,Q,D and keys F,H,K,D."""

    queries: Tensor
    keys: Tensor

    def apply(self, values: Tensor) -> Tensor:
        """The map times values, by scaled-dot-product attention."""
        return scaled_dot_product_attention(self.queries, self.keys, values)


@dataclass(frozen=True)
class Probabilities:
    """A materialised map F,H,Q,K."""

    probs: Tensor

    def apply(self, values: Tensor) -> Tensor:
        """The map times values."""
        return self.probs @ values


@dataclass(frozen=True)
class CrossMix:
    """How the source's and the edit's cross-attention make the fused one, at one step.

    fused[:, t] = Σ_s source[:, s] * from_source[s, t] + edited[:, t] * own[t], never renormalised.

    Attributes:
        from_source: S,T; None where the source gives nothing.
        own: T; None where the edit's own attention gives nothing.
    """

    from_source: Tensor | None
    own: Tensor | None


def probabilities(queries: Tensor, keys: Tensor) -> Tensor:
    """softmax(Q Kᵀ / sqrt(D)) in at least float32: F,H,Q,K."""
    precise = torch.promote_types(queries.dtype, torch.float32)
    scores = queries.to(precise).mul(queries.shape[-1] ** -0.5) @ keys.to(precise).transpose(-1, -2)
    return scores.softmax(-1)


def fuse_self_attention(edited: QueriesAndKeys, source: AttentionMap, values: Tensor, mask: Tensor | None) -> Tensor:
    """Self-attention of the edit with the source's map, or the blend of both.

    Args:
        edited: the edit's own map.
        source: the source's map at the same layer and timestep.
        values: F,H,K,D of the edit.
        mask: F,Q in {0, 1}, 1 where the edit's own map is used (M_t of the paper); None uses the source's everywhere.

    Returns:
        F,H,Q,D.
    """
    from_source = source.apply(values)
    if mask is None:
        return from_source
    blend = mask[:, None, :, None].to(values.dtype)
    return blend * edited.apply(values) + (1 - blend) * from_source


def fuse_cross_attention(edited: QueriesAndKeys, source: AttentionMap, values: Tensor, mix: CrossMix) -> Tensor:
    """Cross-attention of the edit, mixed with the source's word by word.

    Args:
        edited: the edit's own map over T target tokens.
        source: the source's map over S source tokens.
        values: F,H,T,D of the target prompt.
        mix: the step's coefficients.

    Returns:
        F,H,Q,D.
    """
    parts = []
    if mix.from_source is not None:
        parts.append(source.apply(mix.from_source.to(values) @ values))
    if mix.own is not None:
        parts.append(edited.apply(mix.own.to(values)[:, None] * values))
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]
