"""Known ways of being wrong: what a true edit becomes by known amounts, so that the order of results is known.

Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from fatezero.types import Frames

Levels = npt.NDArray[np.float64]  # F,H,W,3 of 0..255, before rounding
UNDEGRADED = "undegraded"
WRONG_EDIT = "wrong-edit"


@dataclass(frozen=True, kw_only=True)
class KnownEdit:
    """What is known of one edit.

    Attributes:
        source: uint8 F,H,W,3.
        true_edit: the right result, same shape.
        wrong_edit: the right result of another edit of the same clip, same shape; None where there is no other.
    """

    source: Frames
    true_edit: Frames
    wrong_edit: Frames | None = None


Degrade = Callable[[Levels, KnownEdit, np.random.Generator], npt.NDArray[np.number]]


def _noise(true: Levels, _: KnownEdit, rng: np.random.Generator, *, share: float) -> Levels:
    return true + rng.normal(0, 255 * share, true.shape)


def _flicker(true: Levels, _: KnownEdit, rng: np.random.Generator, *, share: float) -> Levels:
    return true + rng.normal(0, 255 * share, (len(true), 1, 1, 1))


def _blur(true: Levels, _: KnownEdit, __: np.random.Generator, *, pixels: float) -> Levels:
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415  (slow to import)

    blurred: Levels = gaussian_filter(true, (0, pixels, pixels, 0), mode="nearest")
    return blurred


def _shift(true: Levels, _: KnownEdit, __: np.random.Generator, *, pixels: int) -> Levels:
    columns = np.maximum(np.arange(true.shape[2]) - pixels, 0)
    return true[:, :, columns]


def _colour(true: Levels, _: KnownEdit, __: np.random.Generator, *, share: float) -> Levels:
    return true + 255 * share * np.array([1.0, 0.0, -1.0])


def _mixture(true: Levels, known: KnownEdit, _: np.random.Generator, *, share: float) -> Levels:
    return (1 - share) * true + share * known.source


def _frozen(true: Levels, _: KnownEdit, __: np.random.Generator) -> Levels:
    return np.repeat(true[:1], len(true), axis=0)


def _shuffled(true: Levels, _: KnownEdit, rng: np.random.Generator) -> Levels:
    return true[rng.permutation(len(true))]


def _wrong(_: Levels, known: KnownEdit, __: np.random.Generator) -> Frames:
    assert known.wrong_edit is not None
    return known.wrong_edit


def _percent(kind: str, degrade: Callable[..., Levels], *shares: float) -> dict[str, Degrade]:
    return {f"{kind}-{100 * share:g}": partial(degrade, share=share) for share in shares}


DEGRADATIONS: Mapping[str, Degrade] = {
    UNDEGRADED: lambda true, _, __: true,
    **_percent("noise", _noise, 0.02, 0.05, 0.1),  # standard deviation, of the range
    **{f"blur-{pixels:g}": partial(_blur, pixels=pixels) for pixels in (0.5, 1.0, 2.0)},  # standard deviation
    **_percent("flicker", _flicker, 0.02, 0.05, 0.1),  # standard deviation of a frame's brightness
    **_percent("colour", _colour, 0.05, 0.1),  # red gains what blue loses
    **{f"shift-{pixels}": partial(_shift, pixels=pixels) for pixels in (1, 4)},  # to the right
    **_percent("mixture", _mixture, 0.25, 0.5, 0.75),  # share of the source
    "frozen": _frozen,  # the first frame throughout
    "shuffled": _shuffled,  # the frames in another order
    WRONG_EDIT: _wrong,
}
"""By name; a number in a name is its strength, in per cent or pixels, and more is farther from the true edit."""


def degraded(known: KnownEdit, name: str, seed: int) -> Frames | None:
    """One version of a true edit.

    Args:
        known: the edit.
        name: one of `DEGRADATIONS`.
        seed: of what is random in it; the same gives the same frames.

    Returns:
        uint8 F,H,W,3; None for a wrong edit where none is known.
    """
    if name == WRONG_EDIT and known.wrong_edit is None:
        return None
    levels = DEGRADATIONS[name](known.true_edit.astype(np.float64), known, np.random.default_rng(seed))
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
