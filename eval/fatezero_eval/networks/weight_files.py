"""Files of weights: what identifies them, where torchvision keeps them, and why they cannot be read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from fatezero.errors import UserError


def identity_of(folder: Path, weights: str) -> str:
    """Folder name and first digits of the weights' SHA-256: retrained weights are another model.

    Args:
        folder: of the model.
        weights: name of the file, which may be cut into shards, such as model-00001-of-00002.safetensors.

    Raises:
        UserError: there is no such file.
    """
    stem, _, suffix = weights.partition(".")
    files = [folder / weights] if (folder / weights).is_file() else sorted(folder.glob(f"{stem}-*-of-*.{suffix}"))
    if not files:
        raise UserError(f"{folder}: {weights} is missing; only safetensors weights are read.")
    return f"{folder.resolve().name}:{digest_of(*files)}"


def digest_of(*files: Path) -> str:
    """First digits of the SHA-256 of what files hold, one after the other."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while part := file.read(2**20):
                total.update(part)
    return total.hexdigest()[:8]


@contextmanager
def reading(file: Path, what: str, remedy: str) -> Iterator[None]:
    """Read a user's file, whatever it turns out to be.

    Args:
        file: the file.
        what: what it should hold.
        remedy: what to give instead.

    Raises:
        UserError: it holds something else, or there is none.
    """
    try:
        if not file.is_file():
            raise ValueError("there is no such file")
        yield
    except Exception as error:  # damaged files raise errors of many kinds
        reason = f"no {error}" if isinstance(error, KeyError) else short_message(error)
        raise UserError(f"{file}: not {what} ({reason}); {remedy}") from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Raises:
        Exception: of many kinds; see `reading`.
    """
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        weights: dict[str, Tensor] = load_file(file)
    except Exception as error:
        if _looks_pickled(file):
            raise ValueError("it is a pickle: run fatezero convert on it") from error
        raise
    check_finite(weights)
    return weights


def _looks_pickled(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4).startswith((b"PK", b"\x80"))  # torch's zip, or a bare one


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that would turn every score into NaN.

    Raises:
        ValueError: some are infinite or NaN.
    """
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} is infinite or NaN")


def short_message(error: Exception) -> str:
    """The beginning of an error's message, cut to 200 characters, as one line."""
    return " ".join(str(error).split())[:200]


def torchvision_cache(file: str) -> Path:
    """Where torchvision keeps a file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / file
