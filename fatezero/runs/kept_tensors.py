"""Files of tensors that are believed only when they are whole: safetensors with a digest of their content."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from safetensors import SafetensorError, safe_open

from fatezero.errors import first_line, out_of_memory

if TYPE_CHECKING:  # what a file says of itself is read without waiting for torch
    import torch
    from torch import Tensor

Tensors: TypeAlias = "Mapping[str, Tensor]"
DIGEST = "digest"  # of the tensors, beside what else is said about them


class DamagedFileError(Exception):
    """A file is not what was written, or not what its name says."""


def write_tensors(path: Path, tensors: Tensors, about: Mapping[str, str]) -> None:
    """Write tensors with words about them, and their digest.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.torch import save_file  # noqa: PLC0415  (imports torch)

    kept = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(kept, path, metadata={**about, DIGEST: _digest(kept)})
    except SafetensorError as error:  # its way to say that the disk is full
        raise OSError(str(error)) from error


@contextmanager
def opened_tensors(path: Path, framework: Literal["pt", "np"] = "pt") -> Iterator[Any]:
    """A file of tensors, of which nothing but names and shapes is read yet.

    Args:
        path: the file.
        framework: whose tensors are read of it: torch's, or NumPy's.

    Raises:
        DamagedFileError: also for what the block raises of it: a damaged file makes safetensors and torch raise much.
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(path.lstat().st_mode):  # a pipe would be waited for, a link may lead anywhere
        raise DamagedFileError("it is no regular file")
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (OSError, DamagedFileError):
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise DamagedFileError(first_line(error)) from error


def shapes_in(file: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by name, which are in proportion to the file's size."""
    return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  (no mapping)


def whole_tensors(file: Any) -> dict[str, Tensor]:
    """The tensors of a file.

    Raises:
        DamagedFileError: they are not those that were written.
    """
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    if (file.metadata() or {}).get(DIGEST) != _digest(tensors):
        raise DamagedFileError("its content is not what was written")
    return tensors


def check_numbers(name: str, tensor: Tensor, dtype: torch.dtype) -> None:
    """Refuse a tensor of another dtype, or with anything but finite numbers.

    Raises:
        DamagedFileError: it is one.
    """
    if tensor.dtype != dtype or not bool(tensor.isfinite().all()):
        raise DamagedFileError(f"its {name} are not all finite numbers of {dtype}")


def remove_whatever(path: Path) -> None:
    """Take away what lies where a file belongs, be it a folder.

    Raises:
        OSError: it is not ours to take away.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _digest(tensors: Tensors) -> str:
    import torch  # noqa: PLC0415

    total = blake2b(digest_size=16)
    for name in sorted(tensors):
        total.update(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype} ".encode())
        total.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
