"""Attention fusion as pure tensor functions (FateZero, section 3.2).

Replacing an attention map by the source's is attending with the source's queries and keys, and every rule by
which cross-attention maps are mixed is linear in the maps: (A R) V = A (R V). So no map has to exist.

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

    def apply(self, values_FHKD: Tensor) -> Tensor:
        """The map times values: F,H,Q,D."""


@dataclass(frozen=True)
class QueriesAndKeys:
    """The map softmax(Q Kᵀ / sqrt(D)) given by its queries F,H,Q,D and keys F,H,K,D."""

    queries: Tensor
    keys: Tensor

    def apply(self, values_FHKD: Tensor) -> Tensor:
        """The map times values, by scaled-dot-product attention."""
        return scaled_dot_product_attention(self.queries, self.keys, values_FHKD)


@dataclass(frozen=True)
class Probabilities:
    """A materialised map F,H,Q,K."""

    probs: Tensor

    def apply(self, values_FHKD: Tensor) -> Tensor:
        """The map times values."""
        return self.probs @ values_FHKD


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


def probabilities(queries_FHQD: Tensor, keys_FHKD: Tensor) -> Tensor:
    """softmax(Q Kᵀ / sqrt(D)) in at least float32: F,H,Q,K."""
    precise = torch.promote_types(queries_FHQD.dtype, torch.float32)
    scaled_FHQD = queries_FHQD.to(precise).mul(queries_FHQD.shape[-1] ** -0.5)
    return (scaled_FHQD @ keys_FHKD.to(precise).transpose(-1, -2)).softmax(-1)


def fuse_self_attention(
    edited: QueriesAndKeys, source: AttentionMap, values_FHKD: Tensor, mask_FQ: Tensor | None
) -> Tensor:
    """M_t * edited + (1 - M_t) * source, applied to the edit's values ("Attention Map Blending").

    Args:
        edited: the edit's own map.
        source: the source's map at the same layer and timestep.
        values_FHKD: values of the edit.
        mask_FQ: bool, True where the edit's own map is used (M_t of the paper); None uses the source's everywhere.

    Returns:
        F,H,Q,D.
    """
    from_source_FHQD = source.apply(values_FHKD)
    if mask_FQ is None:
        return from_source_FHQD
    M_t = mask_FQ[:, None, :, None].to(values_FHKD.dtype)
    return M_t * edited.apply(values_FHKD) + (1 - M_t) * from_source_FHQD


def fuse_cross_attention(edited: QueriesAndKeys, source: AttentionMap, values_FHTD: Tensor, mix: CrossMix) -> Tensor:
    """Cross-attention of the edit, mixed with the source's word by word.

    Args:
        edited: the edit's own map over T target tokens.
        source: the source's map over S source tokens.
        values_FHTD: values of the target prompt.
        mix: the step's coefficients.

    Returns:
        F,H,Q,D.
    """
    parts = []
    if mix.from_source is not None:
        parts.append(source.apply(mix.from_source.to(values_FHTD) @ values_FHTD))
    if mix.own is not None:
        parts.append(edited.apply(mix.own.to(values_FHTD)[:, None] * values_FHTD))
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]
