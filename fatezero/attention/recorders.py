"""What watches the attention layers during one network call.

Shape letters: F frames, H heads, Q queries, K keys, D width of a head, T tokens, J key frames per frame; B rows of
keys: one of every frame, or the one of the prompt that all frames read.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import torch
from torch import Tensor

from fatezero.attention.fusion import probabilities, text_probabilities
from fatezero.attention.sites import Site

# Of one row, whose maps exist at once: more than a UNet's rows have, fewer than a clip's places are in a transformer,
# where 75,600 places, 512 tokens and 40 heads are 6 GB.
QUERIES_AT_ONCE = 8192


class Recorder(Protocol):
    """Watches every attention layer of one network call."""

    def see(
        self,
        site: Site,
        queries_FQHD: Tensor,
        keys_BKHD: Tensor,
        key_positions_FJ: Tensor | None,
        text_keys_FTHD: Tensor | None = None,
    ) -> None:
        """Take what is wanted of queries and keys, those of every frame, before key frames are gathered.

        In temporal layers F is spatial positions, and Q and K are frames. In layers of joint attention queries and keys
        are those of places, which attend to the keys of the text as well.
        """


class CrossMapAverage:
    """Attention to the prompt averaged over the heads of some layers of one size: F,Q,T."""

    def __init__(self, sites: Collection[str], tokens: int) -> None:
        self._sites = sites
        self._tokens = tokens
        self._sum: Tensor | None = None
        self._heads = 0

    def see(
        self,
        site: Site,
        queries_FQHD: Tensor,
        keys_BKHD: Tensor,
        key_positions_FJ: Tensor | None,  # noqa: ARG002
        text_keys_FTHD: Tensor | None = None,
    ) -> None:
        """Add this layer's maps of the first tokens."""
        if site.name not in self._sites:
            return
        if text_keys_FTHD is None:
            parts = queries_FQHD.split(QUERIES_AT_ONCE, dim=1)
            maps_FQT = torch.cat([probabilities(part, keys_BKHD)[..., : self._tokens].sum(1) for part in parts], dim=1)
        else:
            maps_FQT = text_probabilities(queries_FQHD, keys_BKHD, text_keys_FTHD, self._tokens).sum(2)
        self._sum = maps_FQT if self._sum is None else self._sum + maps_FQT
        self._heads += queries_FQHD.shape[2]

    def mean(self, size: tuple[int, int]) -> Tensor:
        """F,h,w,T for layers of h x w queries a frame, whose frames are rows or lie one after the other in one row."""
        if self._sum is None:
            raise RuntimeError("no network call was watched")
        return (self._sum / self._heads).reshape(-1, *size, self._tokens)
