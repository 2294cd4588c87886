"""What is kept of the source's attention, and where.

Recorders watch the attention layers during one UNet call; a backend says what a recording holds and how it reads
back as attention maps; a store keeps recordings by step and chunk.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fatezero.attention.fusion import AttentionMap, Probabilities, QueriesAndKeys, probabilities
from fatezero.attention.sites import Site
from fatezero.attention.spatiotemporal import spread
from fatezero.errors import UserError

Recording = dict[str, Tensor]  # "<site>/<what>" -> tensor
Key = tuple[int, int]  # inversion step, chunk


class Recorder(Protocol):
    """Watches every attention layer of one UNet call."""

    def see(self, site: Site, queries: Tensor, keys: Tensor, key_positions: Tensor | None) -> None:
        """Take what is wanted of F,H,Q,D queries and F,H,K,D keys (of every frame, not yet spread)."""


class CrossMapAverage:
    """Cross-attention averaged over the heads of some layers of one size: F,Q,T."""

    def __init__(self, sites: Collection[str], tokens: int) -> None:
        self._sites = sites
        self._tokens = tokens
        self._sum: Tensor | None = None
        self._heads = 0

    def see(self, site: Site, queries: Tensor, keys: Tensor, key_positions: Tensor | None) -> None:  # noqa: ARG002
        """Add this layer's maps of the first tokens."""
        if site.name not in self._sites:
            return
        maps = probabilities(queries, keys)[..., : self._tokens].sum(1)
        self._sum = maps if self._sum is None else self._sum + maps
        self._heads += queries.shape[1]

    def mean(self, size: tuple[int, int]) -> Tensor:
        """F,h,w,T for layers of h x w queries."""
        if self._sum is None:
            raise RuntimeError("no UNet call was watched")
        return (self._sum / self._heads).reshape(len(self._sum), *size, self._tokens)


class Backend(Protocol):
    """How the source's attention is kept between inversion and edit."""

    def record(self, site: Site, queries: Tensor, keys: Tensor, key_positions: Tensor | None) -> Recording:
        """What is kept of one layer."""

    def source_map(self, recording: Recording, site: Site, key_positions: Tensor | None) -> AttentionMap:
        """One layer of a recording as an attention map."""


class KeepQueriesAndKeys:
    """Backend `qk`: the map is implied and never made. A prompt's keys are the same for all frames: kept once."""

    def record(self, site: Site, queries: Tensor, keys: Tensor, key_positions: Tensor | None) -> Recording:  # noqa: ARG002
        """Queries of all frames; keys of all frames, or of the prompt."""
        return {
            f"{site.name}/queries": queries,
            f"{site.name}/keys": keys[:1].clone() if site.kind == "cross" else keys,
        }

    def source_map(self, recording: Recording, site: Site, key_positions: Tensor | None) -> AttentionMap:
        """The layer's queries and keys."""
        queries, keys = recording[f"{site.name}/queries"], recording[f"{site.name}/keys"]
        if site.kind == "cross":
            return QueriesAndKeys(queries, keys.expand(len(queries), -1, -1, -1))
        return QueriesAndKeys(queries, spread(keys, key_positions))


class KeepMaps:
    """Backend `maps`: materialised, as the original code does; the reference the others are held to."""

    def record(self, site: Site, queries: Tensor, keys: Tensor, key_positions: Tensor | None) -> Recording:
        """The layer's map."""
        return {f"{site.name}/maps": probabilities(queries, spread(keys, key_positions)).to(queries.dtype)}

    def source_map(self, recording: Recording, site: Site, key_positions: Tensor | None) -> AttentionMap:  # noqa: ARG002
        """The layer's map."""
        return Probabilities(recording[f"{site.name}/maps"])


class LayerRecorder:
    """Records some layers the way a backend does."""

    def __init__(self, backend: Backend, sites: Collection[str], kinds: Collection[str]) -> None:
        """Record sites of some names and kinds ("self", "cross", "temporal")."""
        self._backend = backend
        self._sites = sites
        self._kinds = kinds
        self.recording: Recording = {}

    def see(self, site: Site, queries: Tensor, keys: Tensor, key_positions: Tensor | None) -> None:
        """Record the layer if it is wanted."""
        if site.name in self._sites and site.kind in self._kinds:
            self.recording |= self._backend.record(site, queries, keys, key_positions)


class Store(Protocol):
    """Recordings by inversion step and chunk."""

    bytes_kept: int

    def put(self, key: Key, recording: Recording) -> None:
        """Keep a recording."""

    def get(self, key: Key, device: torch.device) -> Mapping[str, Tensor]:
        """Give a recording back on a device."""


class MemoryStore:
    """Keeps recordings in the memory of a device, the host's by default."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._recordings: dict[Key, Recording] = {}
        self.bytes_kept = 0

    def put(self, key: Key, recording: Recording) -> None:
        """Keep a recording."""
        self._recordings[key] = {name: tensor.to(self._device) for name, tensor in recording.items()}
        self.bytes_kept += _bytes(recording)

    def get(self, key: Key, device: torch.device) -> Recording:
        """Give a recording back on a device."""
        return {name: tensor.to(device) for name, tensor in self._recordings[key].items()}


class DiskStore:
    """Keeps each recording as a safetensors file in a temporary folder, which goes when the store does."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="fatezero-")
        self.bytes_kept = 0

    def put(self, key: Key, recording: Recording) -> None:
        """Keep a recording."""
        try:
            save_file({name: tensor.cpu().contiguous() for name, tensor in recording.items()}, self._path(key))
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"The source's attention cannot be kept in {self._folder.name} ({error}): free some space, point "
                "TMPDIR elsewhere, or use backend 'recompute'."
            ) from error
        self.bytes_kept += _bytes(recording)

    def get(self, key: Key, device: torch.device) -> Recording:
        """Give a recording back on a device."""
        recording: Recording = load_file(self._path(key), device=str(device))
        return recording

    def _path(self, key: Key) -> Path:
        return Path(self._folder.name) / f"step{key[0]:04d}-chunk{key[1]:04d}.safetensors"


def _bytes(recording: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in recording.values())
