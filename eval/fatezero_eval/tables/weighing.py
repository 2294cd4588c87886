"""Weighted scores of methods, and how far their order depends on the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fatezero_eval.scoring.rows import BASELINES
from fatezero_eval.tables.joining import Table
from fatezero_eval.tables.weights import WeightedMetric, groups_of

# Weights drawn from a Dirichlet distribution around the stated ones: one of 0.25 then has a standard deviation of 0.09.
CONCENTRATION = 20
DRAWS = 10_000
_SEED = 20240301  # any fixed number would do
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class WeightedScore:
    """One method in one category.

    Attributes:
        variant: the method.
        category: "" for all edits.
        total: the weighted score; None where one of its metrics is undefined.
        groups: by group, the weighted score of its metrics alone, likewise.
        parts: by metric id, its mean on the scale from worst (0) to best (1); None where undefined.
        clips: how many clips each of these means rests on, at least.
    """

    variant: str
    category: str
    total: float | None
    groups: Mapping[str, float | None]
    parts: Mapping[str, float | None]
    clips: int

    @property
    def missing(self) -> tuple[str, ...]:
        """The metrics that are undefined."""
        return tuple(metric for metric, value in self.parts.items() if value is None)


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """What a method's place becomes under weights drawn around the stated ones, over all edits.

    Attributes:
        variant: the method; it has a weighted score, and is neither a baseline nor published.
        first: share of draws in which it is first; methods with equal scores share a place.
        best_rank: its rank in one draw of twenty is this or better.
        worst_rank: its rank in one draw of twenty is this or worse.
    """

    variant: str
    first: float
    best_rank: int
    worst_rank: int


@dataclass(frozen=True, kw_only=True)
class Weighing:
    """A table of methods, weighed.

    Attributes:
        weights: what is weighed, and how.
        scores: of every method and category; all edits first.
        robustness: of methods that have a weighted score, in the table's order; empty for fewer than two.
        first: who is first under the stated weights; several where they are equal.
        first_without: by metric id, who is first if that metric is left out.
    """

    weights: tuple[WeightedMetric, ...]
    scores: tuple[WeightedScore, ...]
    robustness: tuple[Robustness, ...]
    first: tuple[str, ...]
    first_without: Mapping[str, tuple[str, ...]]


def weigh(table: Table, weights: tuple[WeightedMetric, ...]) -> Weighing:
    """Weighted scores of a table's methods.

    A method's mean in each metric is put on the stated scale, and the mean of these is taken by the stated weights.
    What is undefined stays so: a method without one of the metrics has no weighted score.

    Args:
        table: methods that can be compared.
        weights: what `read_weights` read.
    """
    scores = _weighted_scores(table, weights)
    own = {method.variant for method in table.methods if method.run} - {*BASELINES}  # published scores have no run
    ranked = [s for s in scores if not s.category and s.total is not None and s.variant in own]
    names = [score.variant for score in ranked]
    # N,M: methods by metrics
    parts = np.array([[score.parts[w.metric] for w in weights] for score in ranked], np.float64).reshape(
        -1, len(weights)
    )
    shares = np.array([w.share for w in weights])
    several = len(ranked) > 1
    return Weighing(
        weights=weights,
        scores=tuple(scores),
        robustness=_robustness(names, parts, shares) if several else (),
        first=_first(names, parts @ shares),
        first_without={
            w.metric: _first(names, np.delete(parts, i, axis=1) @ np.delete(shares, i)) for i, w in enumerate(weights)
        }
        if several and len(weights) > 1
        else {},
    )


def _weighted_scores(table: Table, weights: tuple[WeightedMetric, ...]) -> list[WeightedScore]:
    from fatezero_eval.scoring.suite import by_id  # noqa: PLC0415  (imports torch)

    means = {(s.variant, s.category, s.metric): s.interval.value for s in table.scores if s.interval}
    clips = {(s.variant, s.category, s.metric): s.clips for s in table.scores}
    categories = ["", *sorted({score.category for score in table.scores} - {""})]
    found = []
    for category in categories:
        for method in table.methods:
            parts: dict[str, float | None] = {}
            for weighted in weights:
                mean = means.get((method.variant, category, weighted.metric))
                shown = None if mean is None else mean * by_id(weighted.metric).display
                parts[weighted.metric] = None if shown is None else weighted.normalised(shown)
            found.append(
                WeightedScore(
                    variant=method.variant,
                    category=category,
                    total=_mean(parts, weights),
                    groups={name: _mean(parts, group) for name, group in groups_of(weights).items()},
                    parts=parts,
                    clips=min(clips.get((method.variant, category, w.metric), 0) for w in weights),
                )
            )
    return found


def _mean(parts: Mapping[str, float | None], weights: Sequence[WeightedMetric]) -> float | None:
    """The mean by weights; None where a part is undefined."""
    total = 0.0
    for weighted in weights:
        part = parts[weighted.metric]
        if part is None:
            return None
        total += weighted.share * part
    return total / sum(weighted.share for weighted in weights)


def _robustness(
    names: Sequence[str], parts: npt.NDArray[np.float64], shares: npt.NDArray[np.float64]
) -> tuple[Robustness, ...]:
    drawn = np.random.default_rng(_SEED).dirichlet(CONCENTRATION * shares, DRAWS)
    totals = drawn @ parts.T  # DRAWS,N
    ranks = 1 + (totals[:, None, :] > totals[:, :, None] + _ROUNDING).sum(2)
    first = ranks == 1
    shared = (first / first.sum(1, keepdims=True)).mean(0)
    low, high = np.quantile(ranks, [0.05, 0.95], axis=0, method="inverted_cdf")
    return tuple(
        Robustness(variant=name, first=float(shared[i]), best_rank=int(low[i]), worst_rank=int(high[i]))
        for i, name in enumerate(names)
    )


def _first(names: Sequence[str], totals: npt.NDArray[np.float64]) -> tuple[str, ...]:
    best = totals.max(initial=-np.inf)
    return tuple(name for name, total in zip(names, totals, strict=True) if total >= best - _ROUNDING)
