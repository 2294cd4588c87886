"""The attention of a video transformer with cross-attention of its own (Wan, LTX): recording and fusion in one place.

A batch is the branches: the source first (where it is run again beside the edit), then the unconditional branch (where
there is guidance), the edit last. Each is one row, of the places of all its frames.

Shape letters: B branches, Q queries, K keys, H heads, D width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fatezero.attention.fusion import QueriesAndKeys, fuse_cross_attention
from fatezero.attention.processor import AttentionState, Call, attend, by_head
from fatezero.attention.sites import Site

Rotation = tuple[Tensor, Tensor]  # cosines and sines: 1,Q,1,D, the same of all heads, or B,Q,H * D, of all branches


class PlaceAttention:
    """A diffusers attention processor for one layer, of self-attention or of cross-attention."""

    def __init__(self, site: Site, state: AttentionState) -> None:
        self._site = site
        self._state = state

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,  # noqa: ARG002  (of padding, which is cut off)
        rotary_emb: Rotation | None = None,
    ) -> Tensor:
        """Attend: B,Q,channels in and out. Queries and keys are taken after their norms and rotations."""
        call, site = self._state.call, self._site
        asking = call.asking(site, hidden_states)
        queries = rotated(by_head(attn, attn.norm_q(attn.to_q(asking))), rotary_emb)
        if encoder_hidden_states is None:
            keys = rotated(by_head(attn, attn.norm_k(attn.to_k(asking))), rotary_emb)
            attended = attend(site, call, 1, queries, keys, by_head(attn, attn.to_v(hidden_states)))
        else:
            attended = attend_to_prompts(
                site, call, queries, _prompt_keys_and_values(attn, site, call, encoder_hidden_states)
            )
        projected: Tensor = attn.to_out[0](attended.flatten(2))
        return projected


def attend_to_prompts(site: Site, call: Call, queries: Tensor, prompts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """One layer's cross-attention, recorded and fused as the call says; no branch sees another's prompt or its padding.

    Args:
        site: the layer.
        call: the network call under way.
        queries: B,Q,H,D; those of the last branch may be left out where nothing reads its own map.
        prompts: keys and values 1,K,H,D of each branch.

    Returns:
        B,Q,H,D.
    """
    edit_keys, edit_values = prompts[-1]
    for recorder in call.recorders:
        recorder.see(site, queries[-1:], edit_keys, None)
    maps = [QueriesAndKeys(own[None], keys) for own, (keys, _) in zip(queries, prompts, strict=False)]
    fusion = call.fusion_of(site)
    if fusion is None or fusion.cross is None:
        return torch.cat([one.apply(values) for one, (_, values) in zip(maps, prompts, strict=True)])
    source = fusion.stored(site, None) if fusion.stored else maps[0]
    edited = maps[-1] if len(maps) == len(prompts) else None
    beside = [one.apply(values) for one, (_, values) in zip(maps, prompts[:-1], strict=False)]
    return torch.cat([*beside, fuse_cross_attention(edited, source, edit_values, fusion.cross)])


def _prompt_keys_and_values(attn: Any, site: Site, call: Call, texts: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of each branch's own places."""

    def project(text: Tensor) -> tuple[Tensor, Tensor]:
        return by_head(attn, attn.norm_k(attn.to_k(text))), by_head(attn, attn.to_v(text))

    return [
        kept.of(site, partial(project, text[None, :places]))
        for text, (kept, places) in zip(texts, call.prompts_apart, strict=True)
    ]


def rotated(x: Tensor, rotation: Rotation | None) -> Tensor:
    """Rotary position embedding (Su et al. 2021): neighbouring channels 2i and 2i + 1 turned by their place's angle.

    Args:
        x: B,Q,H,D.
        rotation: every cosine and sine stands twice, for both channels of a pair; None leaves x as it is.
    """
    if rotation is None:
        return x
    cosines, sines = (part[:1].reshape(1, x.shape[1], -1, x.shape[-1])[..., ::2] for part in rotation)
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = (first * cosines - second * sines, first * sines + second * cosines)
    return torch.stack([half.to(x.dtype) for half in turned], -1).flatten(-2)


@contextmanager
def tapped(networks: Sequence[nn.Module], processors: Mapping[str, Any]) -> Iterator[None]:
    """Attention layers have other processors while the context lasts.

    Args:
        networks: transformers that have the same layers; left as they were found, also after an error.
        processors: by the layer's name.
    """
    layers: list[tuple[Any, Any]] = [
        (network.get_submodule(name), processor) for network in networks for name, processor in processors.items()
    ]
    own = [layer.processor for layer, _ in layers]
    try:
        for layer, processor in layers:
            layer.processor = processor
        yield
    finally:
        for (layer, _), processor in zip(layers, own, strict=True):
            layer.processor = processor
