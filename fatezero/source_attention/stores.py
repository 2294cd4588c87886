"""Where recordings of the source's attention are kept, by inversion step and chunk: on a device, the host or disk."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fatezero.errors import UserError
from fatezero.system.publishing import scratch_folder

Recording = dict[str, Tensor]  # "<site>/<what>" -> tensor
Key = tuple[int, int]  # inversion step, chunk


class Store(Protocol):
    """Recordings by inversion step and chunk."""

    bytes_kept: int

    def put(self, key: Key, recording: Recording) -> None:
        """Keep a recording."""

    def get(self, key: Key, device: torch.device) -> Mapping[str, Tensor]:
        """Give a recording back on a device."""


class MemoryStore:
    """Keeps recordings in the memory of a device or the host."""

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
        kept = ExitStack()
        self._folder = kept.enter_context(scratch_folder())
        weakref.finalize(self, kept.close)
        self.bytes_kept = 0

    def put(self, key: Key, recording: Recording) -> None:
        """Keep a recording."""
        try:
            save_file({name: tensor.cpu().contiguous() for name, tensor in recording.items()}, self._path(key))
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"The source's attention cannot be kept in {self._folder} ({error}): free some space, point "
                "TMPDIR elsewhere, or use backend 'recompute'."
            ) from error
        self.bytes_kept += _bytes(recording)

    def get(self, key: Key, device: torch.device) -> Recording:
        """Give a recording back on a device."""
        recording: Recording = load_file(self._path(key), device=str(device))
        return recording

    def _path(self, key: Key) -> Path:
        return self._folder / f"step{key[0]:04d}-chunk{key[1]:04d}.safetensors"


def _bytes(recording: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in recording.values())
