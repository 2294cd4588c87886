"""The attention of a UNet whose batch holds the frames of a clip: key frames, recording and fusion in one place.

A batch is branches x frames, branch by branch: the source first (where it is run again beside the edit), then the
unconditional branch (where there is guidance), the edit last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fatezero.attention.fusion import (
    AttentionMap,
    CrossMix,
    QueriesAndKeys,
    fuse_cross_attention,
    fuse_self_attention,
)
from fatezero.attention.key_frames import gather_key_frames
from fatezero.attention.recorders import Recorder
from fatezero.attention.sites import Site


@dataclass(frozen=True)
class CallFusion:
    """What fusion does in one UNet call of the edit.

    Attributes:
        sites: names of the fused layers.
        self_attention: whether self-attention (and that of fused temporal layers) comes from the source.
        cross: how cross-attention is mixed; None leaves it alone.
        mask: M_t for layers of rows x columns queries, bool F,rows,columns; None means "the source everywhere".
        stored: (site, key positions) -> the source's map as it was kept; None: the source is the batch's first branch.
    """

    sites: frozenset[str]
    self_attention: bool
    cross: CrossMix | None
    mask: Callable[[tuple[int, int]], Tensor] | None
    stored: Callable[[Site, Tensor | None], AttentionMap] | None

    def touches(self, site: Site) -> bool:
        """Whether this layer's attention is changed."""
        return site.name in self.sites and (self.cross is not None if site.kind == "cross" else self.self_attention)


@dataclass(frozen=True)
class Call:
    """What the processors need to know about the UNet call under way.

    Attributes:
        branches: how many branches the batch has.
        frames: how many frames each branch has.
        latent_size: rows and columns of the latent.
        key_positions: int64 F,J from `key_frames.key_positions`, or None.
        key_frames_min_width: layers with fewer channels attend to their own frame only.
        recorders: watch the last branch.
        fusion: None leaves the attention alone.
        images: the batch is unrelated single images; temporal layers are skipped.
    """

    branches: int
    frames: int
    latent_size: tuple[int, int]
    key_positions: Tensor | None = None
    key_frames_min_width: int = 0
    recorders: Sequence[Recorder] = ()
    fusion: CallFusion | None = None
    images: bool = False

    def key_positions_of(self, site: Site) -> Tensor | None:
        """Key positions of this layer; None for cross-attention and where each frame sees itself only."""
        return self.key_positions if site.kind == "self" and site.width >= self.key_frames_min_width else None


class AttentionState:
    """Holds the call under way for all processors and norms of one UNet."""

    call: Call


class FrameAttention:
    """A diffusers attention processor for one layer."""

    def __init__(self, site: Site, state: AttentionState) -> None:
        self._site = site
        self._state = state

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Attend: (branches * F),tokens,channels in and out; in temporal layers (branches * places),F,channels."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        queries, keys, values = (
            projection(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for projection, x in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        call = self._state.call
        n = len(queries) // call.branches
        for recorder in call.recorders:
            recorder.see(self._site, queries[-n:], keys[-n:], call.key_positions_of(self._site))
        attended = self._attend(call, queries, keys, values)
        projected: Tensor = attn.to_out[0](attended.transpose(1, 2).flatten(2))
        return projected

    def _attend(self, call: Call, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        positions = call.key_positions_of(self._site)
        keys, values = gather_key_frames(keys, positions), gather_key_frames(values, positions)
        fusion, n = call.fusion, len(queries) // call.branches
        if fusion is None or not fusion.touches(self._site):
            return QueriesAndKeys(queries, keys).apply(values)
        edited = QueriesAndKeys(queries[-n:], keys[-n:])
        source = fusion.stored(self._site, positions) if fusion.stored else QueriesAndKeys(queries[:n], keys[:n])
        if self._site.kind == "cross" and fusion.cross is not None:
            fused = fuse_cross_attention(edited, source, values[-n:], fusion.cross)
        else:
            mask_FQ = fusion.mask(self._site.size(*call.latent_size)).flatten(1) if fusion.mask else None
            if mask_FQ is not None and self._site.kind == "temporal":
                mask_FQ = mask_FQ.T  # temporal layers: the batch axis is positions, the queries are frames
            fused = fuse_self_attention(edited, source, values[-n:], mask_FQ)
        if len(queries) == n:
            return fused
        return torch.cat([QueriesAndKeys(queries[:-n], keys[:-n]).apply(values[:-n]), fused])
