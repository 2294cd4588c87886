"""Means of clips, paired differences and ranks.

The clip is the unit of everything here: edits and seeds of one clip share its content, so they are averaged first
and only then are clips averaged, resampled or tested. Nothing depends on the order of the rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isclose

from fatezero.errors import UserError
from fatezero_eval.scoring.rows import BASELINES, Row
from fatezero_eval.tables.resampling import FEWEST_CLIPS, Interval, intervals, mean, wilcoxon_p

_ROUNDING = 1e-12

Key = tuple[str, str, str]  # variant, metric, category


@dataclass(frozen=True)
class Score:
    """A method's mean in one metric.

    Attributes:
        variant: the method.
        metric: id with version.
        category: "" for all edits.
        interval: None where the metric is undefined on all clips.
        clips: how many clips it averages.
        rows: how many rows it averages.
        undefined: how many rows were undefined and left out.
    """

    variant: str
    metric: str
    category: str
    interval: Interval | None
    clips: int
    rows: int
    undefined: int


@dataclass(frozen=True)
class Difference:
    """How a method differs from the reference on the edits that both have.

    Attributes:
        variant: the method.
        reference: what is subtracted.
        metric: id with version.
        category: "" for all edits.
        interval: mean over clips of variant minus reference; None where no edit is defined for both.
        clips: how many clips it averages.
        undefined: how many edits are missing or undefined in either and were left out.
        p_value: two-sided Wilcoxon signed-rank test over clips, uncorrected (see `holm`); 1 if all differences are
            zero, None without clips.
    """

    variant: str
    reference: str
    metric: str
    category: str
    interval: Interval | None
    clips: int
    undefined: int
    p_value: float | None


def scores(rows: Sequence[Row]) -> list[Score]:
    """Macro mean over clips with its interval, for each variant, metric and category.

    Returns:
        Metrics and variants in order of first appearance; of each, all edits and then each category by name.
    """
    groups = _grouped(rows)
    means = {key: clip_means(group) for key, group in groups.items()}
    found = []
    for (key, group), interval in zip(groups.items(), intervals(means.values()), strict=True):
        defined = sum(row.value is not None for row in group)
        found.append(Score(*key, interval, len(means[key]), defined, len(group) - defined))
    return found


def clip_means(rows: Iterable[Row]) -> dict[str, float]:
    """Mean of each clip's defined rows, over its edits and seeds: the first half of the only way scores are averaged.

    The sums are exact (`math.fsum`), so the order of the rows does not matter.
    """
    by_clip: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.value is not None:
            by_clip[row.clip].append(row.value)
    return {clip: mean(values) for clip, values in by_clip.items()}


def differences(rows: Sequence[Row], reference: str) -> list[Difference]:
    """What every other variant does better or worse than the reference, edit by edit.

    Seeds of an edit are averaged before variants are subtracted, since a variant without chance has only one.

    Args:
        rows: the scores of one experiment.
        reference: the variant to subtract.

    Raises:
        UserError: no row is the reference's.
    """
    variants = list(dict.fromkeys(row.variant for row in rows))
    if reference not in variants:
        raise UserError(f"there is no variant {reference!r} to compare with; choose one of {', '.join(variants)}.")
    groups = _grouped(rows)
    pairs = [
        (key, _paired(group, groups.get((reference, *key[1:]), [])))
        for key, group in groups.items()
        if key[0] != reference
    ]
    found = []
    for (key, (clips, undefined)), interval in zip(pairs, intervals(c for _, (c, _) in pairs), strict=True):
        variant, metric, category = key
        p_value = wilcoxon_p(clips)
        found.append(Difference(variant, reference, metric, category, interval, len(clips), undefined, p_value))
    return found


def holm(found: Sequence[Difference]) -> list[float | None]:
    """P-values corrected for comparing several variants with the reference in one metric and category.

    They bound the chance of any false alarm among these variants (Holm 1979). The baselines are no part of the question
    and stay None. Metrics are not corrected for: they measure different things.
    """
    families: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for index, difference in enumerate(found):
        if difference.p_value is not None and difference.variant not in BASELINES:
            families[difference.metric, difference.category].append((difference.p_value, index))
    corrected: list[float | None] = [None] * len(found)
    for family in families.values():
        largest = 0.0
        for place, (p_value, index) in enumerate(sorted(family)):
            largest = max(largest, min(1.0, p_value * (len(family) - place)))
            corrected[index] = largest
    return corrected


def ranks(rows: Sequence[Row]) -> dict[Key, int]:
    """For each variant, metric and category, one more than the number of variants that are clearly better.

    Clearly better means that the interval of the paired difference lies on the better side of zero, so variants
    share a rank where nothing tells them apart. The baselines `source` and `no edit`, metrics without a direction and
    variants with fewer than `FEWEST_CLIPS` clips have no rank.
    """
    from fatezero_eval.scoring.suite import by_id  # noqa: PLC0415  (imports torch)

    directions = {name: by_id(name).direction for name in {row.metric for row in rows}}
    groups = {
        key: group for key, group in _grouped(rows).items() if key[0] not in BASELINES and directions[key[1]] != 0
    }
    placed = {key: 1 for key, group in groups.items() if len(clip_means(group)) >= FEWEST_CLIPS}
    pairs = [(a, b) for a, b in combinations(placed, 2) if a[1:] == b[1:]]
    found = intervals(_paired(groups[a], groups[b])[0] for a, b in pairs)
    for (a, b), interval in zip(pairs, found, strict=True):
        if interval is None or not interval.known or interval.low <= 0 <= interval.high:
            continue
        a_is_better = interval.low * directions[a[1]] > 0
        placed[b if a_is_better else a] += 1
    return placed


def _paired(variant: Iterable[Row], reference: Iterable[Row]) -> tuple[dict[str, float], int]:
    """Differences by clip, averaged over the edits that both have, and how many edits are not defined in both."""
    one, other = _edit_means(variant), _edit_means(reference)
    by_clip: dict[str, list[float]] = defaultdict(list)
    undefined = 0
    for edit in one.keys() | other.keys():
        a, b = one.get(edit), other.get(edit)
        if a is None or b is None:
            undefined += 1
        else:  # a mean of equal seeds differs from one of them by rounding, which is no difference
            by_clip[edit[0]].append(0.0 if isclose(a, b, rel_tol=_ROUNDING) else a - b)
    return {clip: mean(values) for clip, values in by_clip.items()}, undefined


def _edit_means(rows: Iterable[Row]) -> dict[tuple[str, str], float | None]:
    """Mean over the seeds of each edit, by clip and edit; None where none is defined."""
    seeds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        seeds[row.clip, row.edit] += [] if row.value is None else [row.value]
    return {edit: mean(values) if values else None for edit, values in seeds.items()}


def _grouped(rows: Sequence[Row]) -> dict[Key, list[Row]]:
    """Rows by variant, metric and category; all edits first, then the categories by name."""
    groups: dict[Key, list[Row]] = {}
    categories = ["", *sorted({row.category for row in rows} - {""})]
    by_variant: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        group = by_variant.setdefault((row.metric, row.variant), defaultdict(list))
        group[""].append(row)
        if row.category:
            group[row.category].append(row)
    for (metric, variant), by_category in by_variant.items():
        groups |= {(variant, metric, name): by_category[name] for name in categories if name in by_category}
    return groups
