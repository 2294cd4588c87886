"""Attention fusion as pure tensor functions (FateZero, section 3.2).

Replacing an attention map by the source's is attending with the source's queries and keys, and every rule by
which cross-attention maps are mixed is linear in the maps: (A R) V = A (R V). So no map has to exist.

Shape letters: F frames, H heads, Q queries, K keys, D width of a head, S and T tokens of source and target; B rows of
keys, each of which serves F / B frames: one for every frame, or one for all frames that read the same prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class AttentionMap(Protocol):
    """A map that may never be materialised."""

    def apply(self, values_BKHD: Tensor) -> Tensor:
        """The map times values: F,Q,H,D."""


INDICATOR = 1024.0  # in place of one, as the share of one among many thousand keys is near the least of half precision


@dataclass(frozen=True)
class QueriesAndKeys:
    """The map softmax(Q Kᵀ / sqrt(D)) given by its queries F,Q,H,D and keys B,K,H,D."""

    queries: Tensor
    keys: Tensor

    def apply(self, values_BKHD: Tensor) -> Tensor:
        """The map times values, by the attention kernel in use: see diffusers' `attention_backend`."""
        from diffusers.models.attention_dispatch import dispatch_attention_fn  # noqa: PLC0415  (seconds to import)

        # Frames that share keys are one long row of queries: no copy of the keys is made for each.
        queries = self.queries.reshape(len(self.keys), -1, *self.queries.shape[2:])
        attended: Tensor = dispatch_attention_fn(queries, self.keys, values_BKHD)
        return attended.reshape(self.queries.shape)


@dataclass(frozen=True)
class Probabilities:
    """A materialised map F,H,Q,K."""

    probs: Tensor

    def apply(self, values_BKHD: Tensor) -> Tensor:
        """The map times values; B is F or 1."""
        return (self.probs @ values_BKHD.transpose(1, 2)).transpose(1, 2)


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

    def like(self, x: Tensor) -> CrossMix:
        """The same in x's format, on its device: moved once for all layers of a step."""
        parts = (None if part is None else part.to(x) for part in (self.from_source, self.own))
        return CrossMix(*parts)


def probabilities(queries_FQHD: Tensor, keys_BKHD: Tensor) -> Tensor:
    """softmax(Q Kᵀ / sqrt(D)) in at least float32: F,H,Q,K; B is F or 1."""
    precise = torch.promote_types(queries_FQHD.dtype, torch.float32)
    scaled_FHQD = queries_FQHD.transpose(1, 2).to(precise).mul(queries_FQHD.shape[-1] ** -0.5)
    return (scaled_FHQD @ keys_BKHD.permute(0, 2, 3, 1).to(precise)).softmax(-1)


def text_probabilities(queries_FQHD: Tensor, keys_FKHD: Tensor, text_keys_FTHD: Tensor, tokens: int) -> Tensor:
    """How much places attend to the first tokens where they attend to places and text in one softmax.

    A column of a map is the map applied to a value that is one at its key and zero elsewhere. So a channel of values
    stands for each token, the normaliser over all keys is the attention kernel's own, and no map exists.

    Returns:
        F,Q,H,tokens in at least float32.
    """
    joint = QueriesAndKeys(queries_FQHD, torch.cat([keys_FKHD, text_keys_FTHD], dim=1))
    places, width = keys_FKHD.shape[1], keys_FKHD.shape[-1]
    columns = []
    for first in range(0, tokens, width):
        among = range(first, min(first + width, tokens))
        values_FKHD = torch.zeros_like(joint.keys)
        for channel, token in enumerate(among):
            values_FKHD[:, places + token, :, channel] = INDICATOR
        columns.append(joint.apply(values_FKHD)[..., : len(among)])
    seen_FQHT = torch.cat(columns, dim=-1)
    return seen_FQHT.to(torch.promote_types(seen_FQHT.dtype, torch.float32)) / INDICATOR


def fuse_self_attention(
    edited: AttentionMap | None, source: AttentionMap, values_FKHD: Tensor, mask_FQ: Tensor | None
) -> Tensor:
    """M_t * edited + (1 - M_t) * source, applied to the edit's values ("Attention Map Blending").

    Args:
        edited: the edit's own map; not read where there is no mask.
        source: the source's map at the same layer and timestep.
        values_FKHD: values of the edit.
        mask_FQ: bool, True where the edit's own map is used (M_t of the paper); None uses the source's everywhere.

    Returns:
        F,Q,H,D.
    """
    from_source_FQHD = source.apply(values_FKHD)
    if mask_FQ is None or edited is None:
        return from_source_FQHD
    return torch.where(mask_FQ[:, :, None, None], edited.apply(values_FKHD), from_source_FQHD)


def fuse_cross_attention(
    edited: AttentionMap | None, source: AttentionMap, values_BTHD: Tensor, mix: CrossMix
) -> Tensor:
    """Cross-attention of the edit, mixed with the source's word by word.

    Args:
        edited: the edit's own map over T target tokens; not read where the mix takes nothing of it.
        source: the source's map over S source tokens.
        values_BTHD: values of the target prompt.
        mix: the step's coefficients, on the device of the values.

    Returns:
        F,Q,H,D.
    """
    parts = []
    if mix.from_source is not None:
        mixed_BSHD = mix.from_source.to(values_BTHD) @ values_BTHD.flatten(2)
        parts.append(source.apply(mixed_BSHD.unflatten(2, values_BTHD.shape[2:])))
    if mix.own is not None and edited is not None:
        parts.append(edited.apply(mix.own.to(values_BTHD)[:, None, None] * values_BTHD))
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]
