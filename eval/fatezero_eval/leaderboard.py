"""The one place that averages scores of clips."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from fatezero_eval.rows import Row


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A method's score in one metric.

    Attributes:
        variant: the method.
        metric: id with version.
        value: mean over clips; None where the metric is undefined on all of them.
        clips: how many clips it averages.
        rows: how many rows it averages.
        undefined: how many rows were undefined and left out.
    """

    variant: str
    metric: str
    value: float | None
    clips: int
    rows: int
    undefined: int


def average(rows: Sequence[Row]) -> list[Mean]:
    """Macro mean over clips: first over the edits and seeds of each clip, then over clips.

    The sums are exact (`math.fsum`), so the order of the rows does not matter.

    Returns:
        One mean for each variant and metric, in order of first appearance.
    """
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.variant, row.metric].append(row)
    return [_mean(variant, metric, group) for (variant, metric), group in groups.items()]


def _mean(variant: str, metric: str, rows: Sequence[Row]) -> Mean:
    by_clip: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.value is not None:
            by_clip[row.clip].append(row.value)
    means = [fsum(values) / len(values) for values in by_clip.values()]
    defined = sum(len(values) for values in by_clip.values())
    return Mean(
        variant=variant,
        metric=metric,
        value=fsum(means) / len(means) if means else None,
        clips=len(means),
        rows=defined,
        undefined=len(rows) - defined,
    )
