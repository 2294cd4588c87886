"""How metrics order the results of one edit, beside their distance from the true edit and beside one another.

Everything is asked within one edit, among the versions of it that were scored: what makes one clip harder than another
cannot pass for agreement. Edits of a clip are averaged before clips, and clips alone are resampled, as everywhere here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isclose, isfinite

from fatezero_eval.scoring.rows import BASELINES, Row
from fatezero_eval.tables.resampling import Interval, intervals, mean
from fatezero_eval.validity.rank_correlation import kendall, levelled, spearman

FEWEST_VERSIONS = 3  # of an edit: two are in order or not by chance

Edit = tuple[str, str]  # clip, edit
Versions = Mapping[str, float]  # by variant; more is better
Goodness = Mapping[str, Mapping[Edit, Versions]]  # by metric


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Rank correlation of two metrics over the versions of an edit, averaged over edits and then clips.

    Attributes:
        metric: id with version.
        other: the metric it is compared with, likewise; each counted so that more is better.
        category: "" for all edits.
        spearman: ρ, with its interval over clips; None where it is nowhere defined.
        kendall: τ-b, likewise.
        clips: how many clips it averages.
        edits: how many edits.
        undefined: edits on which either metric is the same for all versions, or has fewer than `FEWEST_VERSIONS`.
    """

    metric: str
    other: str
    category: str
    spearman: Interval | None
    kendall: Interval | None
    clips: int
    edits: int
    undefined: int


@dataclass(frozen=True, kw_only=True)
class VersionPreference:
    """How a metric sees one version beside the true edit.

    Attributes:
        metric: id with version.
        version: a variant that is not the true edit itself.
        better: share of edits on which it scores better than the true edit, with its interval over clips.
        equal: share of edits on which both score the same, likewise.
        clips: how many clips they average.
        edits: how many edits.
    """

    metric: str
    version: str
    better: Interval
    equal: Interval
    clips: int
    edits: int


def goodness(rows: Sequence[Row]) -> Goodness:
    """Every version's scores, signed so that more is better; seeds are averaged.

    Metrics without a better way are left out, and so is `source`, which answers to another prompt.
    """
    from fatezero_eval.scoring.suite import by_id  # noqa: PLC0415  (imports torch)

    seeds: dict[str, dict[Edit, dict[str, list[float]]]] = {}
    judged_otherwise = BASELINES[0]
    for row in rows:
        if row.value is not None and row.variant != judged_otherwise:
            versions = seeds.setdefault(row.metric, {}).setdefault((row.clip, row.edit), defaultdict(list))
            versions[row.variant].append(row.value)
    signs = {metric: by_id(metric).direction for metric in seeds}
    return {
        metric: {
            edit: {variant: signs[metric] * mean(values) for variant, values in versions.items()}
            for edit, versions in edits.items()
        }
        for metric, edits in seeds.items()
        if signs[metric]
    }


def agreements(known: Goodness, pairs: Iterable[tuple[str, str]], categories: Mapping[Edit, str]) -> list[Agreement]:
    """Of each pair of metrics, over all edits and then over each category by name.

    Args:
        known: what `goodness` found.
        pairs: ids of two metrics each.
        categories: by edit.
    """
    names = ["", *sorted({*categories.values()} - {""})]
    groups = []
    for metric, other in pairs:
        found = {edit: _correlations(known[metric], known[other], edit) for edit in known[metric]}
        for name in names:
            edits = {edit: both for edit, both in found.items() if name in ("", categories[edit])}
            if edits:
                groups.append((metric, other, name, edits))
    ends = [
        intervals(_by_clip({edit: both[place] for edit, both in edits.items() if both}) for *_, edits in groups)
        for place in (0, 1)
    ]
    return [
        Agreement(
            metric=metric,
            other=other,
            category=name,
            spearman=ends[0][number],
            kendall=ends[1][number],
            clips=len({edit[0] for edit, both in edits.items() if both}),
            edits=sum(both is not None for both in edits.values()),
            undefined=sum(both is None for both in edits.values()),
        )
        for number, (metric, other, name, edits) in enumerate(groups)
    ]


def preferences(known: Goodness, distance: str, perfect: float) -> list[VersionPreference]:
    """Each version beside the true edit, in every metric; empty where no version is the true edit itself.

    Args:
        known: what `goodness` found.
        distance: id of the metric that says how near a version is to the true edit.
        perfect: what it says of the true edit itself, signed as in `known`.
    """
    found: dict[tuple[str, str], dict[Edit, int]] = {}
    for metric, edits in known.items():
        for edit, versions in edits.items():
            near = known[distance].get(edit, {})
            true = next((variant for variant, nearness in near.items() if isclose(nearness, perfect)), None)
            if metric == distance or true is None or true not in versions:
                continue
            for variant in versions:
                if variant in near and not isclose(near[variant], perfect):
                    pair = levelled([versions[variant], versions[true]])
                    found.setdefault((metric, variant), {})[edit] = int(pair[0] > pair[1]) - int(pair[0] < pair[1])
    better = intervals(_by_clip({e: float(sign > 0) for e, sign in edits.items()}) for edits in found.values())
    equal = intervals(_by_clip({e: float(sign == 0) for e, sign in edits.items()}) for edits in found.values())
    return [
        VersionPreference(
            metric=m, version=v, better=b, equal=e, clips=len({edit[0] for edit in edits}), edits=len(edits)
        )
        for ((m, v), edits), b, e in zip(found.items(), better, equal, strict=True)
        if b is not None and e is not None
    ]


def pairs_of(metrics: Sequence[str]) -> list[tuple[str, str]]:
    """Each two metrics once."""
    return list(combinations(metrics, 2))


def _correlations(
    one: Mapping[Edit, Versions], other: Mapping[Edit, Versions], edit: Edit
) -> tuple[float, float] | None:
    """Spearman's and Kendall's coefficient of one edit; None where they are not defined."""
    ours, theirs = one[edit], other.get(edit, {})
    shared = [variant for variant in ours if variant in theirs]
    if len(shared) < FEWEST_VERSIONS:
        return None
    both = [levelled([scores[variant] for variant in shared]) for scores in (ours, theirs)]
    rho = spearman(*both)
    return (rho, kendall(*both)) if isfinite(rho) else None


def _by_clip(values: Mapping[Edit, float]) -> dict[str, float]:
    """The mean of each clip's edits."""
    clips: dict[str, list[float]] = defaultdict(list)
    for (clip, _), value in values.items():
        clips[clip].append(value)
    return {clip: mean(found) for clip, found in clips.items()}
