"""Joint attention fused by way of its maps, all of which exist: a reference that shares nothing with ours.

The pipelines keep diffusers' own attention processors. What they hand to torch's attention is taken on its way there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


@dataclass
class NaiveMaps:
    """What is known of a call's layers, by name.

    Attributes:
        places: queries and keys of places, rows,H,P,D.
        words: rows,P,T, how much places attend to each token in layers of joint attention, mean of the heads.
    """

    places: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    words: dict[str, Tensor] = field(default_factory=dict)


class NaiveAttention(TorchFunctionMode):
    """Computes attention in some layers by its maps, notes these, and puts a source's places into them.

    Args:
        places: of a row; the text has the other tokens.
        text_first: whether the text stands before the places.
        source: whose places ask and are asked in place of the own; None leaves them.
        inside: bool rows,P: places that keep their own attention.
    """

    def __init__(
        self, places: int, *, text_first: bool, source: NaiveMaps | None = None, inside: Tensor | None = None
    ) -> None:
        super().__init__()
        self.seen = NaiveMaps()
        self._places = places
        self._text_first = text_first
        self._source = source
        self._inside = inside
        self._layer: str | None = None

    @contextmanager
    def watching(self, transformer: nn.Module, layers: list[str]) -> Iterator[NaiveMaps]:
        """Attention of some layers is computed so while the context lasts."""
        hooks = []
        for name in layers:
            layer = transformer.get_submodule(name)
            hooks.append(layer.register_forward_pre_hook(lambda *_, name=name: setattr(self, "_layer", name)))
            hooks.append(layer.register_forward_hook(lambda *_: setattr(self, "_layer", None)))
        try:
            with self:
                yield self.seen
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not scaled_dot_product_attention or self._layer is None:
            return func(*args, **(kwargs or {}))
        arguments = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | (kwargs or {})
        return self._attend(
            self._layer, arguments["query"], arguments["key"], arguments["value"], arguments.get("attn_mask")
        )

    def _attend(self, layer: str, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        length = keys.shape[2]
        ours = slice(length - self._places, length) if self._text_first else slice(0, self._places)
        text = slice(0, length - self._places) if self._text_first else slice(self._places, length)
        own = whole_map(queries, keys, mask)
        self.seen.places[layer] = queries[:, :, ours].clone(), keys[:, :, ours].clone()
        if length > self._places:
            self.seen.words[layer] = own[..., ours, text].mean(1)
        if self._source is None:
            return own @ values
        asking, asked = queries.clone(), keys.clone()
        asking[:, :, ours], asked[:, :, ours] = self._source.places[layer]
        fused = whole_map(asking, asked, mask)
        if self._inside is not None:
            inside = torch.zeros(len(queries), length, dtype=torch.bool)
            inside[:, ours] = self._inside
            fused = torch.where(inside[:, None, :, None], own, fused)
        return fused @ values


def whole_map(queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
    """rows,H,N,N of all places and tokens; none attends to those that a mask leaves out."""
    logits = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
    seen: Tensor = logits if mask is None else logits.masked_fill(~mask, -torch.inf)
    return seen.softmax(-1)


def naive_mask(attention: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Bool N,rows,columns of attention N,m,n: its 3 x 3 maximum, by the nearest cell, over a share of its maximum."""
    grown = interpolate(max_pool2d(attention[:, None], 3, 1, 1), size=size, mode="nearest")[:, 0]
    share: Tensor = grown / grown.amax((1, 2), keepdim=True)
    return share > threshold
