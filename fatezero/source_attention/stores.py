"""Where recordings of the source's attention are kept, by inversion step and chunk: on a device, the host or disk.

What has to be moved moves beside the networks' work: an inversion goes on while its recordings leave, and as an edit
asks for them from the last step to the first, the next one is known and on its way while one is used.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
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

# Bytes that are asked for: the system can neither swap nor lend what is pinned, and CUDA rounds up to powers of two.
MAX_PINNED = 8_000_000_000
MOVING = 2  # recordings that leave at once; more would pile up on the device where the networks are faster


class Store(Protocol):
    """Recordings by inversion step and chunk."""

    bytes_kept: int

    def put(self, key: Key, recording: Recording) -> None:
        """Keep a recording, whose tensors nobody changes any more."""

    def get(self, key: Key, device: torch.device) -> Mapping[str, Tensor]:
        """Give a recording back on a device."""


class MemoryStore:
    """Keeps recordings in the memory of a device or the host; where they are there already, nothing is copied."""

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


class PinnedStore:
    """Keeps recordings of a CUDA device in the host's memory, and copies both ways beside the device's work.

    One stream of its own does all copies, so that none overtakes another; the host waits for none that is pinned. What
    is beyond `MAX_PINNED` lies in ordinary memory, whose copies the host waits for.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._recordings: dict[Key, Recording] = {}
        self._leaving: deque[torch.cuda.Event] = deque()
        self._coming: tuple[Key, Recording] | None = None
        self.bytes_kept = 0

    def put(self, key: Key, recording: Recording) -> None:
        """Keep a recording."""
        while len(self._leaving) >= MOVING:
            self._leaving.popleft().synchronize()
        pinned = self.bytes_kept + _bytes(recording) <= MAX_PINNED
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            kept = {}
            for name, tensor in recording.items():
                kept[name] = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
                kept[name].copy_(tensor, non_blocking=True)
                tensor.record_stream(self._stream)  # its memory is not used again before the copy is done
            self._leaving.append(self._stream.record_event())
        self._recordings[key] = kept
        self.bytes_kept += _bytes(recording)

    def get(self, key: Key, device: torch.device) -> Recording:
        """Give a recording back on the device, and set out the next one."""
        recording = self._coming[1] if self._coming and self._coming[0] == key else self._fetch(key, device)
        current = torch.cuda.current_stream(device)
        current.wait_stream(self._stream)
        for tensor in recording.values():
            tensor.record_stream(current)
        following = next_wanted(key, self._recordings)
        self._coming = (following, self._fetch(following, device)) if following else None
        return recording

    def _fetch(self, key: Key, device: torch.device) -> Recording:
        with torch.cuda.stream(self._stream):
            return {name: tensor.to(device, non_blocking=True) for name, tensor in self._recordings[key].items()}


class DiskStore:
    """Keeps each recording as a safetensors file in a temporary folder, which goes when the store does.

    A thread writes what was put; an error of writing is raised by the next `put` but one, or by the `get` that asks for
    the recording. Files are mapped when they are read, so that the system reads ahead by itself.
    """

    def __init__(self) -> None:
        kept = ExitStack()
        self._folder = kept.enter_context(scratch_folder())
        self._thread = ThreadPoolExecutor(1, "attention")
        kept.callback(self._thread.shutdown, cancel_futures=True)
        weakref.finalize(self, kept.close)
        self._written: dict[Key, Future[None]] = {}
        self._leaving: deque[Future[None]] = deque()
        self.bytes_kept = 0

    def put(self, key: Key, recording: Recording) -> None:
        """Keep a recording.

        Raises:
            UserError: an earlier one could not be written.
        """
        while len(self._leaving) >= MOVING:
            self._leaving.popleft().result()
        on_host = {name: tensor.cpu() for name, tensor in recording.items()}
        self._written[key] = self._thread.submit(_write, self._path(key), on_host)
        self._leaving.append(self._written[key])
        self.bytes_kept += _bytes(recording)

    def get(self, key: Key, device: torch.device) -> Recording:
        """Give a recording back on a device.

        Raises:
            UserError: it could not be written, or cannot be read any more.
        """
        self._written[key].result()
        return _read(self._path(key), device)

    def _path(self, key: Key) -> Path:
        return self._folder / f"step{key[0]:04d}-chunk{key[1]:04d}.safetensors"


def next_wanted(key: Key, kept: Collection[Key]) -> Key | None:
    """The recording that an edit asks for after this one: the step's next chunk, or the first of the step before."""
    step, chunk = key
    later = [other for other in kept if (-other[0], other[1]) > (-step, chunk)]
    return min(later, key=lambda other: (-other[0], other[1]), default=None)


def _write(path: Path, recording: Recording) -> None:
    try:
        save_file({name: tensor.contiguous() for name, tensor in recording.items()}, path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The source's attention cannot be kept in {path.parent} ({error}): free some space, point "
            "TMPDIR elsewhere, or use backend 'recompute'."
        ) from error


def _read(path: Path, device: torch.device) -> Recording:
    try:
        recording: Recording = load_file(path, device=str(device))
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The source's attention was kept in {path.parent} and cannot be read any more ({error}): leave that "
            "folder alone and run again, or use backend 'recompute'."
        ) from error
    return recording


def _bytes(recording: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in recording.values())
