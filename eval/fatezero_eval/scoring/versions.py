"""Versions of a clip, such as the source and the edit, are looked at side by side, so they must be alike."""

from __future__ import annotations

from collections.abc import Mapping

from fatezero.errors import UserError
from fatezero_eval.scoring.footage import Footage, Reel


def like_the_others(
    name: str, stream: Reel, number: int, leading: Mapping[str, Footage | None], start: int
) -> Footage | None:
    """The next frames of a version beside those of the source and the edit; None where it has ended.

    Raises:
        UserError: if it is unlike them.
    """
    found = stream.at(number)
    other = "source" if "source" in leading else "edited"
    check_alike({name: found, other: leading[other]}, start)
    return found


def check_alike(parts: Mapping[str, Footage | None], start: int) -> None:
    """Refuse versions that differ in size, or of which one ends before the others.

    Args:
        parts: the next frames of each; None where it has ended.
        start: frames before them.

    Raises:
        UserError: saying how they differ.
    """
    shapes = {name: None if footage is None else footage.fresh.shape for name, footage in parts.items()}
    if len(set(shapes.values())) == 1:
        return
    sizes = {name: shape and shape[1:3] for name, shape in shapes.items()}
    if None not in sizes.values() and len(set(sizes.values())) > 1:
        words = ", ".join(f"{name} {size[1]}x{size[0]}" for name, size in sizes.items() if size)
        raise UserError(f"the versions of the clip differ in size: {words}; scale them to one size first.")
    words = ", ".join(f"{name} {start + (shape[0] if shape else 0)}" for name, shape in shapes.items())
    raise UserError(f"the versions of the clip differ in length: {words} frames; give each the same frames.")
