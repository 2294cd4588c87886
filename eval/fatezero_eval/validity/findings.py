"""From correlations and preferences to what may be said of a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fatezero_eval.tables.resampling import Interval
from fatezero_eval.validity.agreement import Agreement, VersionPreference

WEAK, STRONG = 0.4, 0.7  # below the one a correlation is called weak, from the other on strong
HALF = 0.5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is found of one metric.

    Attributes:
        metric: id with version.
        sees_truth: whether it compares with the true edit itself, as hardly any benchmark can.
        agreements: with nearness to the true edit, by category; "" for all edits.
        misled_by: versions that it scores better than the true edit on more than half of the edits.
        blind_to: versions that it scores as the true edit on more than half of the edits.
    """

    metric: str
    sees_truth: bool
    agreements: Mapping[str, Agreement]
    misled_by: tuple[str, ...]
    blind_to: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """How its order of an edit's versions agrees with nearness to the true edit, in a word or two."""
        found = self.agreements[""].spearman
        if found is None:
            return "undefined"
        if not found.known:
            return "too few clips"
        if found.low <= 0 <= found.high:
            return "says nothing"
        if found.high < 0:
            return "points away"
        return "strong" if found.value >= STRONG else "fair" if found.value >= WEAK else "weak"


def findings(agreements: Sequence[Agreement], preferences: Sequence[VersionPreference]) -> list[Finding]:
    """One for each metric, the one that agrees best first.

    Args:
        agreements: of metrics with the distance.
        preferences: of metrics between versions and the true edit.
    """
    from fatezero_eval.scoring.suite import by_id  # noqa: PLC0415  (imports torch)

    found = []
    for metric in dict.fromkeys(agreement.metric for agreement in agreements):
        own = [preference for preference in preferences if preference.metric == metric]
        found.append(
            Finding(
                metric=metric,
                sees_truth="true_edit" in by_id(metric).needs,
                agreements={a.category: a for a in agreements if a.metric == metric},
                misled_by=tuple(p.version for p in own if _above_half(p.better)),
                blind_to=tuple(p.version for p in own if _above_half(p.equal)),
            )
        )
    return sorted(found, key=_best_first)


def _above_half(share: Interval) -> bool:
    """Whether more than half of the edits of such clips would be so; of too few clips nothing is said."""
    return share.known and share.low > HALF


def _best_first(found: Finding) -> tuple[bool, bool, float]:
    spearman = found.agreements[""].spearman
    return found.sees_truth, spearman is None, -spearman.value if spearman else 0.0
