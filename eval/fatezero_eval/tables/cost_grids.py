"""What methods cost beside how good they are: which are worth their cost, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fatezero.errors import UserError
from fatezero_eval.tables.grids import heading, shown
from fatezero_eval.tables.joining import Table
from fatezero_eval.tables.notation import Grid
from fatezero_eval.tables.resampling import Interval
from fatezero_eval.tables.statistics import Difference

NOTE = (
    "Means over clips with 95 % bootstrap intervals; seconds are measured apart, variants in turn, and counted with "
    "the inversion in full. **Bold**: no other variant is cheaper and by its mean nearer to the truth (Pareto front). "
    "A metric is named where the interval of its paired difference to the reference leaves out zero."
)


@dataclass(frozen=True)
class CostedVariant:
    """A variant with its cost and its quality.

    Attributes:
        variant: its name.
        seconds: of computing for one frame.
        quality: mean difference to the reference in the metric that counts, more is better; without width for the
            reference itself.
    """

    variant: str
    seconds: float
    quality: Interval


def costed_variants(table: Table, seconds: Mapping[str, float], metric: str) -> list[CostedVariant]:
    """A table's variants with their costs, the cheapest first.

    Args:
        table: has a reference.
        seconds: for one frame, by variant.
        metric: name of the one that counts, more is better.

    Raises:
        UserError: the table has no reference, or no variant is scored by the metric.
    """
    if table.reference is None:
        raise UserError("The run names no reference that variants are compared with: name one in its experiment.")
    found = {
        difference.variant: difference.interval
        for difference in table.differences
        if difference.metric.partition("@")[0] == metric and not difference.category
    }
    if not found:
        raise UserError(f"The run's variants are not compared in {metric}: score it, in two variants or more.")
    found[table.reference] = Interval(0.0, 0.0, 0.0)
    known = [CostedVariant(name, seconds[name], found[name] or _UNDEFINED) for name in seconds if name in found]
    return sorted(known, key=lambda one: one.seconds)


_UNDEFINED = Interval(float("-inf"), float("nan"), float("nan"))  # worse than whatever is defined


def pareto_front(costed: Sequence[CostedVariant]) -> list[CostedVariant]:
    """Those that none of lower or equal cost is as good as or better than, the cheapest first."""
    front: list[CostedVariant] = []
    for one in sorted(costed, key=lambda one: (one.seconds, -one.quality.value)):
        if not front or one.quality.value > front[-1].quality.value:
            front.append(one)
    return front


def cheapest_alike(table: Table, costed: Sequence[CostedVariant]) -> str | None:
    """The cheapest variant that no metric finds worse than the reference, over all edits: the reference at worst.

    None where there are too few clips to tell any variant from it.
    """
    if not any(difference.interval is not None and difference.interval.known for difference in table.differences):
        return None
    worse = {d.variant for d in table.differences if not d.category and _side(d) == "worse"}
    return next(one.variant for one in costed if one.variant not in worse)


def quality_cost_grid(table: Table, costed: Sequence[CostedVariant], differing: Mapping[str, str]) -> Grid:
    """A line for each variant, the cheapest first: settings, cost, every metric, and what tells it from the reference.

    Args:
        table: the scores.
        costed: from `costed_variants`.
        differing: what differs from the reference's settings, by variant.
    """
    scores = {(score.metric, score.variant): score for score in table.scores if not score.category}
    metrics = list(dict.fromkeys(metric for metric, _ in scores))
    front = {one.variant for one in pareto_front(costed)}
    reference = next(one.seconds for one in costed if one.variant == table.reference)
    lines = []
    for one in costed:
        name = f"**{one.variant}**" if one.variant in front else one.variant
        values = [scores.get((metric, one.variant)) for metric in metrics]
        cells = [shown(score.interval, metric) if score else "-" for score, metric in zip(values, metrics, strict=True)]
        cost = [f"{one.seconds:.3g}", f"{one.seconds / reference:.2f}"]
        lines.append([name, differing.get(one.variant, ""), *cost, *cells, _apart(table, one.variant)])
    header = ["variant", "settings", "CPU s/frame", "of the reference's", *map(heading, metrics), "told apart"]
    return Grid("Quality and cost", header, lines, [NOTE])


def _apart(table: Table, variant: str) -> str:
    if variant == table.reference:
        return "reference"
    own = [d for d in table.differences if d.variant == variant and not d.category]
    if not any(d.interval is not None and d.interval.known for d in own):
        return "too few clips"
    sides = {d.metric: _side(d) for d in own}
    said = [f"{side}: {', '.join(m for m in sides if sides[m] == side)}" for side in ("worse", "better", "other")]
    return "; ".join(text for text in said if not text.endswith(": ")) or "no"


def _side(difference: Difference) -> str:
    """On which side of the reference a variant is in a metric; empty where nothing tells them apart."""
    from fatezero_eval.scoring.suite import by_id  # noqa: PLC0415  (imports torch)

    interval = difference.interval
    if interval is None or not interval.known or interval.low <= 0 <= interval.high:
        return ""
    direction = by_id(difference.metric).direction
    return "other" if direction == 0 else "better" if interval.value * direction > 0 else "worse"
