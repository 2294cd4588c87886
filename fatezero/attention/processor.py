"""The attention of a UNet whose batch holds the frames of a clip: key frames, recording and fusion in one place.

A batch is branches x frames, branch by branch: the source first (where it is run again beside the edit), then the
unconditional branch (where there is guidance), the edit last.

Shape letters: F frames, Q queries, K keys, H heads, D width of a head, T tokens of a prompt.
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
    """What fusion does in one network call of the edit.

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

    def reads_own_map(self, site: Site) -> bool:
        """Whether something of the edit's own map remains in a layer that is touched."""
        if site.kind == "cross":
            return self.cross is not None and self.cross.own is not None
        return self.mask is not None


class PromptProjections:
    """Keys and values of prompts, made once for each layer: they depend on no step and no frame."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Tensor, Tensor]] = {}

    def of(self, site: Site, make: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """A layer's keys and values branches,T,H,D, made where they have not been."""
        if site.name not in self._made:
            self._made[site.name] = make()
        return self._made[site.name]


@dataclass(frozen=True)
class Call:
    """What the processors need to know about the network call under way.

    Attributes:
        branches: how many branches the batch has.
        frames: how many frames each branch has.
        latent_size: rows and columns of the latent.
        key_positions: int64 F,J from `key_frames.key_positions`, on the network's device, or None.
        key_frames_min_width: layers with fewer channels attend to their own frame only.
        recorders: watch the last branch.
        fusion: None leaves the attention alone.
        images: the batch is unrelated single images; temporal layers are skipped.
        prompts: keeps what is made of each branch's prompt, which all its frames read; None where every row of the
            batch has a prompt of its own.
        prompts_apart: in a transformer, keeps what is made of each branch's prompt, with how many places it has.
        twins: the last two branches start from the same latents and differ in their prompts alone.
        source_leaves: index of the first upsampling block that the source's branch, the batch's first, does not enter;
            None where it stays, or is not there.
        source_left: it has left the batch by now.
    """

    branches: int
    frames: int
    latent_size: tuple[int, int]
    key_positions: Tensor | None = None
    key_frames_min_width: int = 0
    recorders: Sequence[Recorder] = ()
    fusion: CallFusion | None = None
    images: bool = False
    prompts: PromptProjections | None = None
    prompts_apart: Sequence[tuple[PromptProjections, int]] = ()
    twins: bool = False
    source_leaves: int | None = None
    source_left: bool = False

    @property
    def prompt_places(self) -> tuple[int, ...]:
        """How many places each branch's prompt has, in a transformer."""
        return tuple(places for _, places in self.prompts_apart)

    def key_positions_of(self, site: Site) -> Tensor | None:
        """Key positions of this layer; None for cross-attention and where each frame sees itself only."""
        return self.key_positions if site.kind == "self" and site.width >= self.key_frames_min_width else None

    def fusion_of(self, site: Site) -> CallFusion | None:
        """The fusion where it changes this layer's attention."""
        return self.fusion if self.fusion is not None and self.fusion.touches(site) else None

    def asking(self, site: Site, x: Tensor) -> Tensor:
        """Rows of x, of all branches, that a layer's queries and keys are made of.

        The last branch's are left out where nothing reads its own map: neither fusion, nor what watches it.
        """
        fusion = self.fusion_of(site)
        reads_own_map = fusion is None or fusion.reads_own_map(site) or bool(self.recorders)
        return x if reads_own_map else x[: -(len(x) // self.branches)]


class AttentionState:
    """Holds the call under way for all processors and norms of a network."""

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
        call, site = self._state.call, self._site
        n = len(hidden_states) // call.branches
        asking = call.asking(site, hidden_states)
        queries = by_head(attn, attn.to_q(asking))
        if encoder_hidden_states is None:
            keys, values = by_head(attn, attn.to_k(asking)), by_head(attn, attn.to_v(hidden_states))
        elif call.prompts is None:
            keys, values = (by_head(attn, to(encoder_hidden_states)) for to in (attn.to_k, attn.to_v))
        else:
            prompts = encoder_hidden_states[::n]
            keys, values = call.prompts.of(
                site, lambda: (by_head(attn, attn.to_k(prompts)), by_head(attn, attn.to_v(prompts)))
            )
        projected: Tensor = attn.to_out[0](attend(site, call, n, queries, keys, values).flatten(2))
        return projected


def attend(site: Site, call: Call, n: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One layer's attention in a network call, recorded and fused as the call says.

    Args:
        site: the layer.
        call: the network call under way.
        n: rows of queries of one branch; all branches' lie in the batch.
        queries: (branches * n),Q,H,D; those of the last branch may be left out where nothing reads its own map.
        keys: K,H,D of as many rows a branch as the values, before key frames are gathered; left out like the queries.
        values: K,H,D of n rows a branch, or of one where all its rows read the same prompt.

    Returns:
        (branches * n),Q,H,D.
    """
    positions, fusion = call.key_positions_of(site), call.fusion_of(site)
    for recorder in call.recorders:
        recorder.see(site, queries[-n:], keys[-(len(keys) // call.branches) :], positions)
    keys, values = gather_key_frames(keys, positions), gather_key_frames(values, positions)
    if fusion is None:
        return QueriesAndKeys(queries, keys).apply(values)
    k = len(values) // call.branches
    others, other_keys = n * (call.branches - 1), k * (call.branches - 1)
    edited = QueriesAndKeys(queries[others:], keys[other_keys:]) if len(queries) > others else None
    source = fusion.stored(site, positions) if fusion.stored else QueriesAndKeys(queries[:n], keys[:k])
    if site.kind == "cross" and fusion.cross is not None:
        fused = fuse_cross_attention(edited, source, values[other_keys:], fusion.cross)
    else:
        fused = fuse_self_attention(edited, source, values[other_keys:], mask_of(site, call, fusion, n))
    if not others:
        return fused
    beside = QueriesAndKeys(queries[:others], keys[:other_keys]).apply(values[:other_keys])
    return torch.cat([beside, fused])


def mask_of(site: Site, call: Call, fusion: CallFusion, n: int) -> Tensor | None:
    """M_t for a layer's n rows of queries, bool n,Q.

    Rows are frames, or all frames in one; in temporal layers rows are places and queries are frames.
    """
    if fusion.mask is None:
        return None
    mask_Fmn = fusion.mask(site.size(*call.latent_size))
    return mask_Fmn.flatten(1).T if site.kind == "temporal" else mask_Fmn.reshape(n, -1)


def by_head(attn: Any, x: Tensor) -> Tensor:
    """Channels by head: rows,tokens,H,D."""
    heads: Tensor = x.unflatten(-1, (attn.heads, -1))
    return heads
