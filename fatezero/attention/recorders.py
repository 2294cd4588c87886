"""What watches the attention layers during one UNet call.

Shape letters: F frames, H heads, Q queries, K keys, D width of a head, T tokens, J key frames per frame; B rows of
keys: one of every frame, or the one of the prompt that all frames read.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from torch import Tensor

from fatezero.attention.fusion import probabilities
from fatezero.attention.sites import Site


class Recorder(Protocol):
    """Watches every attention layer of one UNet call."""

    def see(self, site: Site, queries_FQHD: Tensor, keys_BKHD: Tensor, key_positions_FJ: Tensor | None) -> None:
        """Take what is wanted of queries and keys, those of every frame, before key frames are gathered.

        In temporal layers F is spatial positions, and Q and K are frames.
        """


class CrossMapAverage:
    """Cross-attention averaged over the heads of some layers of one size: F,Q,T."""

    def __init__(self, sites: Collection[str], tokens: int) -> None:
        self._sites = sites
        self._tokens = tokens
        self._sum: Tensor | None = None
        self._heads = 0

    def see(self, site: Site, queries_FQHD: Tensor, keys_BKHD: Tensor, key_positions_FJ: Tensor | None) -> None:  # noqa: ARG002
        """Add this layer's maps of the first tokens."""
        if site.name not in self._sites:
            return
        maps_FQT = probabilities(queries_FQHD, keys_BKHD)[..., : self._tokens].sum(1)
        self._sum = maps_FQT if self._sum is None else self._sum + maps_FQT
        self._heads += queries_FQHD.shape[2]

    def mean(self, size: tuple[int, int]) -> Tensor:
        """F,h,w,T for layers of h x w queries."""
        if self._sum is None:
            raise RuntimeError("no UNet call was watched")
        return (self._sum / self._heads).reshape(len(self._sum), *size, self._tokens)
