"""Rank correlations of two lists of scores, ties counted as they should be."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np
import numpy.typing as npt

_DIGITS = 9  # what the order of a sum may change is no difference

Scores = npt.NDArray[np.float64]


def levelled(scores: Sequence[float]) -> Scores:
    """The scores as shares of the largest, so that values which differ by rounding alone are equal."""
    values = np.asarray(scores, np.float64)
    largest = np.abs(values).max(initial=0)
    return np.round(values / largest, _DIGITS) if largest else values


def spearman(one: Scores, other: Scores) -> float:
    """Spearman's ρ: the correlation of ranks, those of equal scores averaged; NaN where either list is constant.

    Spearman 1904; scipy.stats.spearmanr.
    """
    return _correlation(*(_ranks(scores) - (len(scores) + 1) / 2 for scores in (one, other)))


def kendall(one: Scores, other: Scores) -> float:
    """Kendall's τ-b: pairs in the same order less those in opposite order, per pair that neither list ties.

    NaN where either list is constant. Kendall 1945; scipy.stats.kendalltau.
    """
    return _correlation(*(np.sign(scores[:, None] - scores).reshape(-1) for scores in (one, other)))


def _correlation(one: Scores, other: Scores) -> float:
    """The cosine of two lists whose mean is zero."""
    scale = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / scale) if scale else nan


def _ranks(scores: Scores) -> Scores:
    """From 1 for the lowest; equal scores share the mean of theirs."""
    below = (scores[:, None] > scores).sum(1)
    equal = (scores[:, None] == scores).sum(1)
    ranks: Scores = below + (equal + 1) / 2
    return ranks
