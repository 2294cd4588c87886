"""Files of weights: what identifies them, where torchvision keeps them, and why they cannot be read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from fatezero.errors import UserError


def identity_of(folder: Path, weights: str) -> str:
    """Folder name and first digits of the weights' SHA-256: retrained weights are another model."""
    path = folder / weights
    if not path.is_file():
        raise UserError(f"{folder}: {weights} is missing; only safetensors weights are read.")
    with path.open("rb") as file:
        return f"{folder.resolve().name}:{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"


def first_line(error: Exception) -> str:
    """The first line of an error's message, cut to 200 characters."""
    return str(error).strip().split("\n")[0][:200]


def torchvision_cached(file: str) -> bool:
    """Whether torchvision's cache holds the file."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file()
