"""What stands in the tables of weighted scores, in words."""

from __future__ import annotations

from collections.abc import Sequence

from fatezero_eval.scoring.rows import BASELINES
from fatezero_eval.tables.grids import heading
from fatezero_eval.tables.notation import Grid
from fatezero_eval.tables.weighing import CONCENTRATION, DRAWS, Weighing, WeightedScore
from fatezero_eval.tables.weights import groups_of

HOW_TO_READ = (
    "A method's mean in each metric is put on a scale from a stated worst value (0) to a stated best one (1), beyond "
    "which it is not cut, and these are averaged by the stated weights. A method without one of the metrics has no "
    "weighted score. Baselines and published scores are not ranked."
)
HOW_TO_READ_ROBUSTNESS = (
    f"{DRAWS:,} draws of weights from a Dirichlet distribution around the stated ones (concentration {CONCENTRATION}: "
    "a weight of 0.25 has a standard deviation of 0.09). Ranks: of nine draws in ten. Which clips are in the benchmark "
    "is not varied here: see the intervals of each metric."
)


def weighing_grids(weighings: Sequence[Weighing]) -> list[Grid]:
    """All tables of weighted scores."""
    grids = [Grid("", notes=[HOW_TO_READ], level=2)]
    for number, weighing in enumerate(weighings, start=1):
        if len(weighings) > 1:
            grids.append(Grid(f"Table {number}", level=2))
        grids += [totals_grid(weighing), _parts(weighing), *_robustness(weighing)]
    return grids


def totals_grid(weighing: Weighing) -> Grid:
    """Weighted scores, of all edits, of each group of metrics and by category, the best first."""
    groups = list(groups_of(weighing.weights))
    categories = list(dict.fromkeys(score.category for score in weighing.scores if score.category))
    totals = {(score.variant, score.category): score.total for score in weighing.scores}
    most = max(score.clips for score in weighing.scores)
    lines, notes = [], []
    for score in _best_first(weighing):
        by_category = [_shown(totals.get((score.variant, category))) for category in categories]
        lines.append([score.variant, _shown(score.total), *(_shown(score.groups[g]) for g in groups), *by_category])
        if score.missing:
            notes.append(f"{score.variant} has no weighted score: it has no {', '.join(score.missing)}.")
        elif score.clips < most:
            notes.append(
                f"{score.variant} is compared over other clips: a metric of it averages {score.clips}, not {most}."
            )
    shares = {name: sum(w.share for w in group) for name, group in groups_of(weighing.weights).items()}
    header = ["method", "all", *(f"{name} ({shares[name]:.2f})" for name in groups), *categories]
    return Grid("Weighted scores", header, lines, notes)


def _parts(weighing: Weighing) -> Grid:
    header = [f"{heading(w.metric)}: {w.worst:g} to {w.best:g}, weight {w.share:.3g}" for w in weighing.weights]
    lines = [
        [score.variant, *(_shown(score.parts[w.metric]) for w in weighing.weights)] for score in _best_first(weighing)
    ]
    return Grid("Metrics from worst (0) to best (1)", ["method", *header], lines)


def _robustness(weighing: Weighing) -> list[Grid]:
    if not weighing.robustness:
        return [Grid("Were the weights others", notes=["There are no two methods with a weighted score."])]
    changed = 1 - sum(found.first for found in weighing.robustness if found.variant in weighing.first)
    said = f"First by the stated weights: {', '.join(weighing.first)}. In {changed:.0%} of draws another is first."
    lines = [
        [found.variant, f"{found.first:.0%}", f"{found.best_rank} to {found.worst_rank}"]
        for found in sorted(weighing.robustness, key=lambda found: (-found.first, found.best_rank, found.worst_rank))
    ]
    drawn = Grid("Were the weights others", ["method", "first in", "ranks"], lines, [said, HOW_TO_READ_ROBUSTNESS])
    if not weighing.first_without:
        return [drawn]
    without = [
        [heading(metric), ", ".join(first), "the same" if first == weighing.first else "changes"]
        for metric, first in weighing.first_without.items()
    ]
    return [drawn, Grid("Were one metric left out", ["left out", "first", "first place"], without)]


def _best_first(weighing: Weighing) -> list[WeightedScore]:
    """Of all edits; baselines last."""

    def key(score: WeightedScore) -> tuple[bool, bool, float]:
        return score.variant in BASELINES, score.total is None, -(score.total or 0.0)

    return sorted((score for score in weighing.scores if not score.category), key=key)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
