"""Inversions kept on disk under the digest of all that decides them, shared by edits, variants and runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fatezero.data.files import json_digest
from fatezero.errors import UserError
from fatezero.runs.kept_tensors import (
    DIGEST,
    DamagedFileError,
    Tensors,
    check_numbers,
    opened_tensors,
    remove_whatever,
    shapes_in,
    whole_tensors,
    write_tensors,
)
from fatezero.system.publishing import clear_leftovers, replacing

if TYPE_CHECKING:  # entries are listed without waiting for torch
    import torch

Expected: TypeAlias = "Mapping[str, tuple[tuple[int, ...], torch.dtype]]"  # shape and dtype by name


@dataclass(frozen=True)
class CacheEntry:
    """One kept inversion.

    Attributes:
        key: digest of what it was made from.
        bytes: size on disk.
        used: when it was last wanted, seconds since 1970.
        about: what it was made from, for people; None where the entry is damaged.
    """

    key: str
    bytes: int
    used: float
    about: Mapping[str, str] | None


class InversionCache:
    """A folder of inversions; safe with several writers and readers, and safe to delete.

    An entry is one safetensors file that appears whole. Every wanted entry is marked as used; when the folder grows
    over its bound, the entries that were not wanted for the longest time go first.
    """

    def __init__(self, folder: Path, bound: int | None = None) -> None:
        """Take the folder and its bound in bytes; None is no bound."""
        self.folder = folder
        self.bound = bound

    def get(
        self, about: Mapping[str, str], device: torch.device, expected: Expected, report: Callable[[str], None]
    ) -> Tensors | None:
        """The tensors of what was made from this.

        Args:
            about: everything that they are made from.
            device: where they go.
            expected: their shapes and dtypes.
            report: told of an entry that is damaged, or cannot be read.

        Returns:
            None where there are none; a damaged entry, or one with other tensors, is taken away.
        """
        path = self._path(cache_key(about))
        try:
            tensors = _read(path, device, expected)
        except FileNotFoundError:
            return None
        except (DamagedFileError, OSError) as error:
            report(f"{path} is {_take_away(path, error)}: the clip is inverted again")
            return None
        with suppress(OSError):  # another process may just have taken it away
            os.utime(path)
        return tensors

    def put(self, about: Mapping[str, str], tensors: Tensors) -> None:
        """Keep tensors under the digest of what they were made from; concurrent writes of one are harmless.

        Raises:
            UserError: the folder cannot be written, the disk is full, or the entry alone is over the bound.
        """
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self.bound is not None and size > self.bound:
            raise UserError(
                f"An inversion of {size / 1e9:.3f} GB does not fit the cache's bound of {self.bound / 1e9:.3f} GB: "
                "raise --cache-gb, or take fewer frames or steps."
            )
        with replacing(self._path(cache_key(about))) as partial:
            write_tensors(partial, tensors, about)
        self.prune(self.bound)

    def entries(self) -> list[CacheEntry]:
        """All entries, least recently used first; of their tensors nothing is read."""
        found = []
        for path in self._files():
            with suppress(FileNotFoundError):  # another process may just have taken it away
                status = path.lstat()
                about = None
                with suppress(DamagedFileError, OSError):
                    about = _read_about(path)
                found.append(CacheEntry(path.stem, status.st_size, status.st_mtime, about))
        return sorted(found, key=lambda entry: (entry.used, entry.key))

    def verify(self) -> tuple[list[str], dict[str, str]]:
        """Read every entry and take damaged ones away, and what killed processes left.

        Returns:
            Keys of the sound; for those of the damaged, what was found and done.
        """
        self._clear()
        sound, damaged = [], {}
        for path in sorted(self._files()):
            try:
                _read(path, "cpu")
                sound.append(path.stem)
            except FileNotFoundError:  # another process may just have taken it away
                continue
            except (DamagedFileError, OSError) as error:
                damaged[path.stem] = _take_away(path, error)
        return sound, damaged

    def prune(self, bound: int | None) -> list[str]:
        """Take away the least recently used entries until the rest fits a bound in bytes: the keys that went.

        What killed processes left goes too.
        """
        if bound is None:
            return []
        self._clear()
        ages = []
        for path in self._files():
            with suppress(OSError):
                about = path.lstat()
                ages.append((about.st_mtime_ns, path, about.st_size))
        total, gone = sum(size for *_, size in ages), []
        for _, path, size in sorted(ages):
            if total <= bound:
                break
            with suppress(OSError):  # not ours to take away
                remove_whatever(path)
                total -= size
                gone.append(path.stem)
        return gone

    def _clear(self) -> None:
        for shard in self.folder.glob("[0-9a-f][0-9a-f]"):
            clear_leftovers(shard)

    def _files(self) -> Iterator[Path]:
        return self.folder.glob("[0-9a-f][0-9a-f]/[0-9a-f]*.safetensors")

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def cache_key(about: Mapping[str, str]) -> str:
    """The digest of what an inversion is made from."""
    return json_digest(dict(about))


def _read(path: Path, device: torch.device | str, expected: Expected | None = None) -> Tensors:
    """An entry's tensors, nothing of which is read where its name, shapes or dtypes are others.

    Raises:
        DamagedFileError: the entry is not what it should be.
        OSError: it cannot be read.
    """
    with opened_tensors(path) as file:
        about = dict(file.metadata() or {})
        _check_key(path, about)
        if expected is not None and shapes_in(file) != {name: shape for name, (shape, _) in expected.items()}:
            raise DamagedFileError(f"it holds tensors of {shapes_in(file)}")
        tensors = whole_tensors(file)
    for name, (_, dtype) in (expected or {}).items():
        check_numbers(name, tensors[name], dtype)
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _read_about(path: Path) -> Mapping[str, str]:
    """What an entry was made from. Raises as `_read` does."""
    with opened_tensors(path, "np") as file:
        about = dict(file.metadata() or {})
        _check_key(path, about)
        del about[DIGEST]
        return about


def _check_key(path: Path, about: Mapping[str, str]) -> None:
    made_from = {name: value for name, value in about.items() if name != DIGEST}
    if DIGEST not in about or cache_key(made_from) != path.stem:
        raise DamagedFileError("it was made from other things than its name says")


def _take_away(path: Path, error: Exception) -> str:
    """Take a damaged entry away: what was found and done."""
    if isinstance(error, OSError):
        return f"not readable ({error.strerror or error})"
    try:
        remove_whatever(path)
    except OSError as refusal:
        return f"damaged ({error}) and cannot be taken away ({refusal.strerror or refusal})"
    return f"damaged ({error}) and taken away"
