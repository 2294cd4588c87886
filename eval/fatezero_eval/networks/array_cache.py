"""Arrays on disk under the digest of what they were computed from."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fatezero.system.publishing import replacing

MAX_BYTES = 2**30  # of one entry: a window's embeddings, or its flow; that of 17 frames of 3840x2160 pixels fits
Arrays = Mapping[str, npt.NDArray[np.float32]]


def digest(*parts: str | npt.NDArray[np.uint8]) -> str:
    """Content of the parts as 32 hexadecimal digits; an array counts with its shape."""
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            total.update(f"text {len(part)} {part}".encode())
        else:
            total.update(f"array {part.shape} ".encode())
            total.update(np.ascontiguousarray(part).data)
    return total.hexdigest()


def check_archive(path: Path, limit: int) -> None:
    """Refuse an `.npz` that would fill the memory, before any of it is loaded: anyone may have written it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file, or its members or its arrays' headers state more bytes than `limit`.
        Exception: of many kinds, for damaged archives.
    """
    if not path.is_file():  # a pipe would be waited for
        raise ValueError("it is no file")
    with zipfile.ZipFile(path) as archive:
        _check_bytes(sum(member.file_size for member in archive.infolist()), limit)
        _check_bytes(sum(_stated_bytes(archive, member) for member in archive.infolist()), limit)


def _check_bytes(stated: int, limit: int) -> None:
    if stated > limit:
        raise ValueError(f"it states {stated:,} bytes, more than {limit:,}")


def _stated_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Bytes of the array that a member's header promises."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return math.prod(shape) * dtype.itemsize


@dataclass(frozen=True)
class ArrayCache:
    """Named arrays kept as `<folder>/<first two digits>/<digest>.npz`; safe to share and to delete.

    Attributes:
        folder: where the arrays are kept; None keeps nothing.
    """

    folder: Path | None = None

    def get(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """What is stored under the key, or else what `compute` returns; a damaged file is replaced."""
        if self.folder is None:
            return compute()
        path = self.folder / key[:2] / f"{key}.npz"
        try:
            check_archive(path, MAX_BYTES)
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except Exception:  # damaged archives raise errors of many kinds
            arrays = compute()
            with replacing(path) as partial:
                np.savez(partial, allow_pickle=False, **arrays)
            return arrays
