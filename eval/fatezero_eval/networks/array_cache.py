"""Arrays on disk under the digest of what they were computed from."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fatezero.data.files import replacing

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
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except (OSError, ValueError, zipfile.BadZipFile, EOFError):
            arrays = compute()
            with replacing(path) as partial:
                np.savez(partial, allow_pickle=False, **arrays)
            return arrays
