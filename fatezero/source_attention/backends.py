"""How the source's attention is kept between inversion and edit: what a recording holds, and how it reads back.

Shape letters: F frames, H heads, Q queries, K keys, D width of a head, J key frames per frame; B rows of keys: one of
every frame, or the one of the prompt that all frames read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fatezero.attention.fusion import AttentionMap, Probabilities, QueriesAndKeys, probabilities
from fatezero.attention.key_frames import gather_key_frames
from fatezero.attention.sites import Site
from fatezero.source_attention.needs import Needs
from fatezero.source_attention.stores import Recording, Store


class Backend(Protocol):
    """How the source's attention is kept between inversion and edit."""

    def record(self, site: Site, queries_FQHD: Tensor, keys_BKHD: Tensor, key_positions_FJ: Tensor | None) -> Recording:
        """What is kept of one layer."""

    def source_map(self, recording: Recording, site: Site, key_positions_FJ: Tensor | None) -> AttentionMap:
        """One layer of a recording as an attention map."""


class KeepQueriesAndKeys:
    """Backend `qk`: the map is implied and never made."""

    def record(self, site: Site, queries_FQHD: Tensor, keys_BKHD: Tensor, key_positions_FJ: Tensor | None) -> Recording:  # noqa: ARG002
        """Queries of all frames; keys of all frames, or of the prompt."""
        return {f"{site.name}/queries": queries_FQHD, f"{site.name}/keys": keys_BKHD}

    def source_map(self, recording: Recording, site: Site, key_positions_FJ: Tensor | None) -> AttentionMap:
        """The layer's queries and keys."""
        queries, keys = recording[f"{site.name}/queries"], recording[f"{site.name}/keys"]
        return QueriesAndKeys(queries, gather_key_frames(keys, key_positions_FJ))


class KeepMaps:
    """Backend `maps`: materialised, as the original code does; the reference the others are held to."""

    def record(self, site: Site, queries_FQHD: Tensor, keys_BKHD: Tensor, key_positions_FJ: Tensor | None) -> Recording:
        """The layer's map."""
        return {
            f"{site.name}/maps": probabilities(queries_FQHD, gather_key_frames(keys_BKHD, key_positions_FJ)).to(
                queries_FQHD.dtype
            )
        }

    def source_map(self, recording: Recording, site: Site, key_positions_FJ: Tensor | None) -> AttentionMap:  # noqa: ARG002
        """The layer's map."""
        return Probabilities(recording[f"{site.name}/maps"])


class LayerRecorder:
    """Records some layers the way a backend does."""

    def __init__(self, backend: Backend, sites: Collection[str], kinds: Collection[str]) -> None:
        """Record sites of some names and kinds ("self", "cross", "temporal", "joint")."""
        self._backend = backend
        self._sites = sites
        self._kinds = kinds
        self.recording: Recording = {}

    def see(
        self,
        site: Site,
        queries_FQHD: Tensor,
        keys_BKHD: Tensor,
        key_positions_FJ: Tensor | None,
        text_keys_FTHD: Tensor | None = None,  # noqa: ARG002  (the text's part of a map is the edit's own)
    ) -> None:
        """Record the layer if it is wanted."""
        if site.name in self._sites and site.kind in self._kinds:
            self.recording |= self._backend.record(site, queries_FQHD, keys_BKHD, key_positions_FJ)


@dataclass(frozen=True)
class SourceAttention:
    """The source's attention between inversion and edit, beyond the latents.

    Attributes:
        backend: how it is kept.
        store: where it is kept.
        needs: what is kept.
    """

    backend: Backend
    store: Store
    needs: Needs

    def recorders(self, step: int, chunks: int) -> list[LayerRecorder]:
        """One recorder for each chunk at an inversion step; none where nothing is kept."""
        selfs = {"self", "temporal", "joint"} if step in self.needs.self_steps else set()
        kinds = selfs | ({"cross"} if step in self.needs.cross_steps else set())
        return [LayerRecorder(self.backend, self.needs.sites, kinds) for _ in range(chunks)] if kinds else []

    def put(self, step: int, recorders: Sequence[LayerRecorder]) -> None:
        """Keep the recordings of an inversion step, one for each chunk."""
        for chunk_index, recorder in enumerate(recorders):
            self.store.put((step, chunk_index), recorder.recording)
