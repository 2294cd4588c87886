"""Why scores are not there: what was refused, and what is undefined by its nature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fatezero_eval.scoring.kept_rows import trace_of
from fatezero_eval.scoring.one_pass import MISSING
from fatezero_eval.scoring.rows import BASELINES, Row
from fatezero_eval.scoring.scoring_jobs import job_name
from fatezero_eval.scoring.suite import by_id

_NAMED = 3  # of those that failed for one reason


def refusals(rows: Sequence[Row], file: Path) -> dict[str, str]:
    """By a job's name and metrics, why these could not be computed of it, each reason once.

    Args:
        rows: of one job.
        file: where they are kept.
    """
    refused: dict[str, list[str]] = {}
    for row in rows:
        if row.variant not in BASELINES and row.reason and not _is_expected(row):
            refused.setdefault(row.reason, []).append(_name(row))
    found = {}
    for reason, metrics in refused.items():
        job, log = rows[0], trace_of(file, reason)
        name = job_name(job.variant, job.edit, job.seed)
        found[f"{name}, {', '.join(metrics)}"] = reason + (f" Its trace is in {log}." if log else "")
    return found


def told_once(failures: Mapping[str, str]) -> list[str]:
    """A sentence for each reason, with what it holds for: some by name, and how many more.

    Args:
        failures: reasons by the name of what failed.
    """
    names: dict[str, list[str]] = {}
    for name, reason in failures.items():
        names.setdefault(reason, []).append(name)
    return [
        f"{'; '.join(held[:_NAMED])}{f'; and {len(held) - _NAMED} more' if len(held) > _NAMED else ''}: {reason}"
        for reason, held in names.items()
    ]


def undefined(rows: Sequence[Row]) -> list[str]:
    """A sentence for each reason for which scores of methods are undefined by their nature, with how many are."""
    reasons: dict[str, list[Row]] = {}
    for row in rows:
        if row.variant not in BASELINES and row.reason and _is_expected(row):
            reasons.setdefault(row.reason, []).append(row)
    results = len({_result(row) for row in rows if row.variant not in BASELINES})
    return [
        f"Undefined in {len({_result(row) for row in found})} of {results} results, since {reason}: "
        f"{', '.join(dict.fromkeys(map(_name, found)))}."
        for reason, found in reasons.items()
    ]


def _is_expected(row: Row) -> bool:
    """Whether a score is undefined by the metric's own nature, or since something is not stated."""
    metric = by_id(row.metric)
    return row.reason in {metric.undefined, metric.asks and metric.asks.none, *MISSING.values()}


def _name(row: Row) -> str:
    return row.metric.partition("@")[0]


def _result(row: Row) -> tuple[str, str, int]:
    return row.variant, row.edit, row.seed
