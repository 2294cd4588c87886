"""Automatic metrics beside what people prefer: do both put methods, and pairs of videos, in the same order?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from fatezero.errors import UserError, attempt
from fatezero_eval.people.preferences import Preference, Vote
from fatezero_eval.people.study_key import StudyKey
from fatezero_eval.scoring.rows import BASELINES, Row
from fatezero_eval.tables.resampling import Interval, intervals, mean
from fatezero_eval.tables.scored_runs import read_scored_run
from fatezero_eval.tables.statistics import clip_means

FEWEST_METHODS = 3  # two are in the same order or in the other, by chance half of the time

Values = Mapping[tuple[str, str, int], float]  # of one metric, by method, edit and seed


@dataclass(frozen=True)
class Accordance:
    """How one metric goes with what people prefer.

    Attributes:
        metric: id with version.
        methods: on how many methods the correlation rests.
        correlation: Spearman's, between the methods' strengths and their mean scores, where better counts as higher,
            in [-1, 1]; None with fewer than three methods, or equal scores.
        pairs: on how many pairs of videos people and metric both had a side.
        agreement: share of pairs on which the metric prefers what most raters prefer (equal scores count half), the
            mean over clips, in [0, 1]; None without pairs.
    """

    metric: str
    methods: int
    correlation: float | None
    pairs: int
    agreement: Interval | None


def read_automatic(folders: Sequence[Path], key: StudyKey) -> tuple[list[Row], list[str]]:
    """The scores of the study's videos, variants called as its methods; and why some are not there.

    Args:
        folders: run folders that were evaluated, and output folders of evaluations.
        key: of the study.
    """
    rows: list[Row] = []
    problems = []
    for folder in folders:
        run = attempt(partial(read_scored_run, folder))
        if isinstance(run, UserError):
            problems.append(str(run))
            continue
        called = {
            name: method for name in {row.variant for row in run.rows} if (method := _method(name, run.name, key))
        }
        rows += [replace(row, variant=called[row.variant]) for row in run.rows if row.variant in called]
    return rows, problems


def _method(variant: str, run: str, key: StudyKey) -> str | None:
    names = (f"{run}/{variant}", variant)
    return None if variant in BASELINES else next((name for name in names if name in key.methods), None)


def accordances(
    rows: Iterable[Row], preferred: Sequence[Preference], votes: Sequence[Vote], key: StudyKey
) -> list[Accordance]:
    """How each metric that has a direction goes with the votes on one question, in the rows' order."""
    from fatezero_eval.scoring.suite import by_id  # noqa: PLC0415  (imports torch)

    shown = {(s.method, t.edit, s.seed): t.clip for t in key.trials.values() for s in (t.first, t.second)}
    sides = _sides(votes)
    found = []
    by_metric: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if (row.variant, row.edit, row.seed) in shown:
            by_metric[row.metric].append(row)
    for metric, own in by_metric.items():
        direction = by_id(metric).direction
        values = {(r.variant, r.edit, r.seed): direction * r.value for r in own if r.value is not None}
        if direction and values:
            found.append(_accordance(metric, values, own, direction, preferred, sides, key))
    return found


def _accordance(
    metric: str,
    values: Values,
    rows: Sequence[Row],
    direction: int,
    preferred: Sequence[Preference],
    sides: Mapping[str, float],
    key: StudyKey,
) -> Accordance:
    means = {}
    for one in preferred:
        clips = clip_means(row for row in rows if row.variant == one.method)
        if clips:
            means[one.method] = direction * mean(sorted(clips.values()))
    strengths = [one.strength.value for one in preferred if one.method in means]
    agreed: dict[str, list[float]] = defaultdict(list)
    for name, side in sides.items():
        trial = key.trials[name]
        first, second = (values.get((s.method, trial.edit, s.seed)) for s in (trial.first, trial.second))
        if first is not None and second is not None and side:
            agreed[trial.clip].append(0.5 if first == second else float((first > second) == (side > 0)))
    (agreement,) = intervals([{clip: mean(shares) for clip, shares in agreed.items()}])
    return Accordance(
        metric=metric,
        methods=len(means),
        correlation=_spearman(strengths, list(means.values())),
        pairs=sum(map(len, agreed.values())),
        agreement=agreement,
    )


def _sides(votes: Iterable[Vote]) -> dict[str, float]:
    """By pair, votes for the first minus votes for the second."""
    sides: dict[str, float] = defaultdict(float)
    for vote in votes:
        if vote.choice is not None:
            sides[vote.trial] += 1 - 2 * vote.choice
    return sides


def _spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    from scipy.stats import spearmanr  # noqa: PLC0415  (a second to import)

    if len(one) < FEWEST_METHODS or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    return float(spearmanr(one, other).statistic)
