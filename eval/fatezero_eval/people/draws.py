"""Draws of clips and raters: how much each counts, over and over, to see what hangs on who and what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
import numpy.typing as npt

from fatezero_eval.tables.resampling import CONFIDENCE, FEWEST_CLIPS

RESAMPLES = 1000
_SEED = 20240229  # any fixed number would do


@dataclass(frozen=True)
class Draws:
    """Clips and raters, drawn with replacement, each apart from the other.

    Attributes:
        clips: names of the C clips.
        raters: names of the R raters.
        of_clips: B,C; how often each clip was drawn.
        of_raters: B,R; how often each rater was drawn.
    """

    clips: tuple[str, ...]
    raters: tuple[str, ...]
    of_clips: npt.NDArray[np.float64]
    of_raters: npt.NDArray[np.float64]


def draw(clips: Sequence[str], raters: Sequence[str], resamples: int = RESAMPLES, seed: int = _SEED) -> Draws:
    """Draw clips and raters, as many as there are, over and over.

    A vote counts as often as its clip times its rater (the pigeonhole bootstrap, Owen 2007), whose intervals are wide
    enough where both are samples. A single rater is drawn once each time: intervals hold for that rater alone.

    Args:
        clips: names, each once.
        raters: names, each once.
        resamples: how often.
        seed: of the drawing; equal seeds draw equally.
    """
    rng = np.random.default_rng(seed)
    of_clips = rng.multinomial(len(clips), np.full(len(clips), 1 / len(clips)), resamples)
    of_raters = rng.multinomial(len(raters), np.full(len(raters), 1 / len(raters)), resamples)
    return Draws(tuple(clips), tuple(raters), of_clips.astype(float), of_raters.astype(float))


def ends(drawn: Sequence[float] | npt.NDArray[np.float64], draws: Draws) -> tuple[float, float]:
    """Both ends of the 95 % percentile interval; NaN with fewer than `FEWEST_CLIPS` clips, or nothing drawn."""
    if len(draws.clips) < FEWEST_CLIPS or len(drawn) == 0:
        return nan, nan
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.asarray(drawn), (tail, 1 - tail))
    return float(low), float(high)
