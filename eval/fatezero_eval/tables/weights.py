"""Which metrics a weighted score is made of: groups of metrics with weights, and the values that count as 0 and 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fatezero.data.entry import Entry, load_yaml
from fatezero.errors import UserError
from fatezero.system.terminal import quoted

if TYPE_CHECKING:
    from fatezero_eval.scoring.metric import Metric


@dataclass(frozen=True, kw_only=True)
class WeightedMetric:
    """One metric's part of a weighted score.

    Attributes:
        metric: id with version.
        group: what it is a part of.
        share: its weight in the whole score; all shares add up to 1.
        worst: the value that counts as 0, as tables show the metric.
        best: the value that counts as 1, likewise.
    """

    metric: str
    group: str
    share: float
    worst: float
    best: float

    def normalised(self, shown: float) -> float:
        """A value as tables show it, on the scale from worst to best; beyond either end it is not cut."""
        return (shown - self.worst) / (self.best - self.worst)


def read_weights(path: Path) -> tuple[WeightedMetric, ...]:
    """Read a file of weights: groups, each with its weight and its metrics.

    ```yaml
    success:
      weight: 2
      metrics:
        text_alignment: {weight: 1, worst: 50, best: 100}
    ```

    A group counts by its weight among the groups, a metric by its weight among its group's, as in VBench and IVEBench;
    a weight that is left out is 1. Every metric states what counts as 0 and as 1, so that no method's score depends on
    which others stand beside it.

    Raises:
        UserError: naming file, line and field: no such metric, a metric twice or without a better way, a weight that
            is not above zero, ends that are missing, equal or the wrong way round.
    """
    data, lines = load_yaml(path)
    if not isinstance(data, dict) or not data:
        raise UserError(f"{path} states no weights: write groups, each with its `weight` and its `metrics`.")
    groups = {str(name): Entry.at(path, values, lines, (name,)) for name, values in data.items()}
    for group in groups.values():
        group.refuse_unknown(("weight", "metrics"))
    whole = sum(map(_weight, groups.values()))
    found: dict[str, WeightedMetric] = {}
    for name, group in groups.items():
        metrics = group.mapping("metrics")
        if not metrics:
            raise group.error("metrics", "missing; write at least one metric.")
        parts = {metric: Entry.at(path, metrics[metric], lines, (name, "metrics", metric)) for metric in metrics}
        total = sum(map(_weight, parts.values()))
        for metric, part in parts.items():
            share = _weight(group) / whole * _weight(part) / total
            weighted = _weighted(str(metric), part, name, share)
            if weighted.metric in found:
                raise UserError(f"{part.file}, {part.place}: {metric} stands there twice; keep one.")
            found[weighted.metric] = weighted
    return tuple(found.values())


def groups_of(weights: tuple[WeightedMetric, ...]) -> Mapping[str, tuple[WeightedMetric, ...]]:
    """The metrics of each group, in the file's order."""
    names = dict.fromkeys(weighted.group for weighted in weights)
    return {name: tuple(weighted for weighted in weights if weighted.group == name) for name in names}


def _weighted(name: str, part: Entry, group: str, share: float) -> WeightedMetric:
    part.refuse_unknown(("weight", "worst", "best"))
    metric = _metric(name, part)
    worst, best = (part.number(end, float, None) for end in ("worst", "best"))
    for end, value in (("worst", worst), ("best", best)):
        if value is None:
            raise part.error(
                end, f"missing; write which value of {metric.name} counts as {0 if end == 'worst' else 1}."
            )
    if (best - worst) * metric.direction <= 0:
        order = "above" if metric.direction > 0 else "below"
        raise part.error(
            "best", f"{best:g} is not {order} the worst, {worst:g}, as {metric.name} {metric.arrow} needs."
        )
    return WeightedMetric(metric=metric.id, group=group, share=share, worst=float(worst), best=float(best))


def _metric(name: str, part: Entry) -> Metric:
    from fatezero_eval.scoring.suite import choose  # noqa: PLC0415  (imports torch)

    found = [metric for metric in choose((name,)) if metric.name == name]
    if not found or not found[0].direction:
        reason = "is no single metric" if not found else "has no better way"
        raise UserError(f"{part.file}, {part.place}: {quoted(name)} {reason} and cannot be weighed; name another.")
    return found[0]


def _weight(entry: Entry) -> float:
    weight = float(entry.number("weight", float, 1.0))
    if weight <= 0:
        raise entry.error("weight", f"{weight:g} is not above zero; leave out what shall not count.")
    return weight
