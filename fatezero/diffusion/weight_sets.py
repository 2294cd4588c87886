"""Which of a network's sets of weights is read. Light: importing this needs no torch.

A folder may hold the same network more than once: in full, and in variants such as "fp16", each in one file or in
several that an index lists. Names are those of diffusers and transformers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fatezero.errors import UserError
from fatezero.system.terminal import quoted

FITTING = {"float16": "fp16", "bfloat16": "bf16"}  # variant by dtype; every other dtype takes the full weights
ORIGINAL = "original.safetensors"  # a single file in its authors' layout, beside the configurations made for it
_VARIANT = r"(?:\.(?P<variant>[A-Za-z0-9_-]+))?"
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True)
class WeightsChoice:
    """How one of several sets is chosen.

    Attributes:
        variant: as the user asked for it; None leaves it to the dtype.
        dtype: the networks' number format; None where it is not known yet.
    """

    variant: str | None = None
    dtype: str | None = None


def variants_named(names: Iterable[str], stem: str) -> set[str | None]:
    """The variants of a network among the names of files; None is the set without one.

    Args:
        names: of the files in a network's folder.
        stem: their beginning, such as "diffusion_pytorch_model".
    """
    whole = re.compile(re.escape(stem) + _VARIANT + r"\.safetensors")
    index = re.compile(re.escape(stem) + r"\.safetensors\.index" + _VARIANT + r"\.json")
    found = (whole.fullmatch(name) or index.fullmatch(name) for name in names)
    variants = {match["variant"] for match in found if match}
    return {variant for variant in variants if variant is None or not _SHARD.search(variant)}


def variants_in(folder: Path, stem: str) -> set[str | None]:
    """The variants of a network that a folder holds."""
    return variants_named((path.name for path in folder.glob(f"{stem}*")), stem)


def chosen_variant(folder: Path, stem: str, choice: WeightsChoice) -> str | None:
    """The variant to read: the only one there is, the one asked for, or the one that fits the dtype.

    Raises:
        UserError: if there are several, and none of them fits.
    """
    found = variants_in(folder, stem)
    if len(found) < 2:
        return next(iter(found), None)
    fitting = FITTING.get(choice.dtype or "")
    for variant in (choice.variant, fitting):
        if variant in found and variant is not None:
            return variant
    if None in found:
        return None
    variants = sorted(str(variant) for variant in found)
    if choice.dtype is None:
        return variants[0]
    raise UserError(
        f"{folder} holds the variants {', '.join(variants)} and none for dtype {choice.dtype}: choose one with "
        "--weights-variant."
    )


def check_variant(folder: Path, stems: Iterable[tuple[str, str]], choice: WeightsChoice) -> None:
    """Refuse a variant that no network of a checkpoint has.

    Args:
        folder: the checkpoint's.
        stems: folder and beginning of the files' names, for each network.
        choice: what was asked for.

    Raises:
        UserError: naming the variants there are.
    """
    if choice.variant is None:
        return
    found = {variant for part, stem in stems for variant in variants_in(folder / part, stem)}
    if choice.variant not in found:
        there = ", ".join(sorted(variant for variant in found if variant)) or "none"
        raise UserError(
            f"{folder} has no weights of the variant {quoted(choice.variant)}: variants in it are {there}; leave "
            "--weights-variant out for those that fit the dtype."
        )


def original_file(folder: Path) -> Path | None:
    """The single file that a network's weights are in, where its folder, or its checkpoint's, was made for one."""
    return next((file for file in (folder / ORIGINAL, folder.parent / ORIGINAL) if file.exists()), None)
