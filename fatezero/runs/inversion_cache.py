"""Inversions kept on disk under the digest of all that decides them, shared by edits, variants and runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fatezero.data.files import json_digest, replacing
from fatezero.errors import UserError

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class CacheEntry:
    """One kept inversion.

    Attributes:
        key: digest of what it was made from.
        bytes: size on disk.
        used: when it was last wanted, seconds since 1970.
        about: what it was made from, for people.
    """

    key: str
    bytes: int
    used: float
    about: Mapping[str, str]


class InversionCache:
    """A folder of inversions; safe with several writers and readers, and safe to delete.

    An entry is one safetensors file that appears whole. Every wanted entry is marked as used; when the folder grows
    over its bound, the entries that were not wanted for the longest time go first.
    """

    def __init__(self, folder: Path, bound: int | None = None) -> None:
        """Take the folder and its bound in bytes; None is no bound."""
        self.folder = folder
        self.bound = bound

    def get(self, about: Mapping[str, str], device: torch.device) -> Tensors | None:
        """The tensors of what was made from this; None where there are none or the file is damaged."""
        path = self._path(cache_key(about))
        try:
            tensors = _read(path, device)
        except (OSError, SafetensorError, ValueError):
            return None
        with suppress(OSError):  # another process may just have taken it away
            os.utime(path)
        return tensors

    def put(self, about: Mapping[str, str], tensors: Tensors) -> None:
        """Keep tensors under the digest of what they were made from; concurrent writes of one are harmless.

        Raises:
            UserError: the folder cannot be written, the disk is full, or the entry alone is over the bound.
        """
        kept = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        size = sum(tensor.nbytes for tensor in kept.values())
        if self.bound is not None and size > self.bound:
            raise UserError(
                f"An inversion of {size / 1e9:.3f} GB does not fit the cache's bound of {self.bound / 1e9:.3f} GB: "
                "raise --cache-gb, or take fewer frames or steps."
            )
        with replacing(self._path(cache_key(about))) as partial:
            try:
                save_file(kept, partial, metadata={**about, "digest": _digest(kept)})
            except SafetensorError as error:  # its way to say that the disk is full
                raise OSError(str(error)) from error
        self.prune(self.bound)

    def entries(self) -> list[CacheEntry]:
        """All entries, least recently used first."""
        found = []
        for path in self._files():
            with suppress(OSError, SafetensorError):
                about = path.stat()
                with safe_open(path, framework="pt") as file:
                    metadata = dict(file.metadata() or {})
                found.append(CacheEntry(path.stem, about.st_size, about.st_mtime, metadata))
        return sorted(found, key=lambda entry: (entry.used, entry.key))

    def verify(self) -> tuple[list[str], list[str]]:
        """Read every entry and take damaged ones away: keys of the sound and of the damaged."""
        sound, damaged = [], []
        for path in sorted(self._files()):
            try:
                _read(path, torch.device("cpu"))
                sound.append(path.stem)
            except (OSError, SafetensorError, ValueError):
                path.unlink(missing_ok=True)
                damaged.append(path.stem)
        return sound, damaged

    def prune(self, bound: int | None) -> list[str]:
        """Take away the least recently used entries until the rest fits a bound in bytes: the keys that went."""
        if bound is None:
            return []
        ages = []
        for path in self._files():
            with suppress(OSError):
                about = path.stat()
                ages.append((about.st_mtime_ns, path, about.st_size))
        total, gone = sum(size for *_, size in ages), []
        for _, path, size in sorted(ages):
            if total <= bound:
                break
            path.unlink(missing_ok=True)
            total -= size
            gone.append(path.stem)
        return gone

    def _files(self) -> Iterator[Path]:
        return self.folder.glob("[0-9a-f][0-9a-f]/[0-9a-f]*.safetensors")

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def cache_key(about: Mapping[str, str]) -> str:
    """The digest of what an inversion is made from."""
    return json_digest(dict(about))


def _read(path: Path, device: torch.device) -> Tensors:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        stated = (file.metadata() or {}).get("digest")
    if stated != _digest(tensors):
        raise ValueError(f"{path} is damaged")
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _digest(tensors: Tensors) -> str:
    total = blake2b(digest_size=16)
    for name in sorted(tensors):
        total.update(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype} ".encode())
        total.update(tensors[name].contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()
