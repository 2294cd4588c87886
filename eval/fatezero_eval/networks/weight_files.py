"""Files of weights: what identifies them, where torchvision keeps them, and why they cannot be read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fatezero.data.files import read_json
from fatezero.errors import UserError
from fatezero.system.terminal import quoted


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


def check_complete(folder: Path, info: Mapping[str, Any], what: str) -> None:
    """Refuse a model of which some weights are missing, and would be random.

    Args:
        folder: the model's.
        info: transformers' loading info.
        what: the kind of model, for the message.

    Raises:
        UserError: weights are missing, or have other shapes.
    """
    wrong = sorted({*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])})
    if wrong:
        raise UserError(
            f"{folder} lacks weights of {what}, or has them in other shapes ({len(wrong)}, among them "
            f"{quoted(wrong[0])}): get the folder again."
        )


def model_type_of(folder: Path) -> str:
    """What transformers calls the kind of model in a folder.

    Raises:
        UserError: it has no config.json, or that does not say.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"{folder}: no folder of one of transformers' models, since it has no config.json.")
    try:
        return str(read_json(config)["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{config} does not say which model it is ({short_message(error)}): get it again.") from error


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder without a vocabulary: transformers would make one that knows no word, without a warning.

    Raises:
        UserError: there is none.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "tokenizer.model")):
        raise UserError(
            f"{folder} has no tokenizer (tokenizer.json, or vocab.json and merges.txt): get the folder again."
        )


def short_message(error: Exception) -> str:
    """The beginning of an error's message, cut to 200 characters, as one line."""
    return " ".join(str(error).split())[:200]


def torchvision_cache(file: str) -> Path:
    """Where torchvision keeps a file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / file
