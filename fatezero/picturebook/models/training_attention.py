"""Attention as it is trained here: same results as diffusers' processors, faster on small inputs, and watched.

Shape letters: N clips or pictures, S their tokens or places, T tokens of text, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel, WanTransformer3DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_wan import WanAttention
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

PROMPT_TOKENS = 512  # what Wan's pipeline pads every prompt to


def attention_map(attn: WanAttention, queries_NSD: Tensor, keys_NTD: Tensor, raised: Tensor | None) -> Tensor:
    """Softmax of every head, N,heads,S,T, of queries and keys that still hold all heads; `raised` adds to the logits.

    As a plain product it is twice as fast as CPUs' fused attention on these few tokens.
    """
    queries, keys = (part.unflatten(2, (attn.heads, -1)).transpose(1, 2) for part in (queries_NSD, keys_NTD))
    logits = (queries * queries.shape[-1] ** -0.5) @ keys.mT
    weights: Tensor = (logits if raised is None else logits + raised).softmax(-1)
    return weights


def attention_output(attn: WanAttention, weights: Tensor, values_NTD: Tensor) -> Tensor:
    """The layer's output N,S,D."""
    values = values_NTD.unflatten(2, (attn.heads, -1)).transpose(1, 2)
    output: Tensor = attn.to_out[0]((weights.to(values.dtype) @ values).transpose(1, 2).flatten(2))
    return output


def rotated(parts_NSD: Tensor, heads: int, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding of all heads (Su et al., 2021): pairs of channels turned by their position's angle."""
    pairs = parts_NSD.unflatten(2, (heads, -1, 2))
    cosine, sine = rotary[0][..., 0::2], rotary[1][..., 1::2]  # diffusers repeats each for both channels of a pair
    first, second = pairs[..., 0], pairs[..., 1]
    turned = torch.stack([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
    return turned.flatten(2).to(parts_NSD.dtype)


class WatchedAttention:
    """The processor of both kinds of layer; texts of few tokens stand for all PROMPT_TOKENS.

    All padding has the same key and value, so a pad token that stands for n weighs as much as they when log n is
    added to its logits.

    Attributes:
        maps: of each cross-attention layer called so far, N,S,T, the mean over heads.
    """

    def __init__(self, padding: Tensor) -> None:
        """`padding` is bool N,T: which tokens are padding, at least one of each text."""
        pads = padding.sum(1, keepdim=True)
        share = (PROMPT_TOKENS - padding.shape[1] + pads) / pads
        self.raised = (padding * share.log())[:, None, None]
        self.maps: list[Tensor] = []

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,  # noqa: ARG002
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The layer's output for tokens N,S,D and, of cross-attention, texts N,T,D."""
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        queries, keys = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(text))
        values = attn.to_v(text)
        if rotary_emb is not None:
            queries, keys = (rotated(part, attn.heads, rotary_emb).to(values.dtype) for part in (queries, keys))
            return attention_output(attn, attention_map(attn, queries, keys, None), values)
        weights = attention_map(attn, queries, keys, self.raised)
        self.maps.append(weights.mean(1))
        return attention_output(attn, weights, values)


@contextmanager
def watched_attention(transformer: WanTransformer3DModel, padding: Tensor) -> Iterator[list[Tensor]]:
    """Let the transformer read texts of few tokens as if they were padded to PROMPT_TOKENS, and watch it.

    Args:
        transformer: the network; its processors are put back afterwards.
        padding: bool N,T, which tokens are padding; at least one of each text.

    Yields:
        The cross-attention maps of the next forward pass, one a layer: N,S,T, the mean over heads.
    """
    layers = [layer for block in transformer.blocks for layer in (block.attn1, block.attn2)]
    before, watching = [layer.processor for layer in layers], WatchedAttention(padding)
    for layer in layers:
        layer.set_processor(watching)
    try:
        yield watching.maps
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)


class WatchedPictureAttention:
    """The processor of both kinds of a UNet's layers.

    Self-attention is float32 whatever surrounds it: on a CPU its gradient is twice as slow in bfloat16. Attention to
    the few tokens of a text is faster as a plain product, which makes the maps that are watched anyway.

    Attributes:
        maps: of the cross-attention layers called so far, N,S,T, the mean over heads, by their number of places.
    """

    def __init__(self) -> None:
        self.maps: dict[int, list[Tensor]] = {}

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,  # noqa: ARG002
    ) -> Tensor:
        """The layer's output for places N,S,D and, of cross-attention, texts N,T,D."""
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        queries, keys, values = (
            part.unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for part in (attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text))
        )
        if encoder_hidden_states is None:
            with torch.autocast(queries.device.type, enabled=False):
                output = scaled_dot_product_attention(queries.float(), keys.float(), values.float()).to(values.dtype)
        else:
            weights = ((queries * queries.shape[-1] ** -0.5) @ keys.mT).float().softmax(-1)
            self.maps.setdefault(weights.shape[2], []).append(weights.mean(1))
            output = weights.to(values.dtype) @ values
        projected: Tensor = attn.to_out[0](output.transpose(1, 2).flatten(2))
        return projected


@contextmanager
def watched_words(unet: UNet2DConditionModel) -> Iterator[dict[int, list[Tensor]]]:
    """Watch where tokens look in the UNet's next forward pass.

    Args:
        unet: the network; its processors are put back afterwards.

    Yields:
        The cross-attention maps by their number of places, one a layer: N,S,T, the mean over heads.
    """
    before, watching = dict(unet.attn_processors), WatchedPictureAttention()
    unet.set_attn_processor(watching)
    try:
        yield watching.maps
    finally:
        unet.set_attn_processor(before)
