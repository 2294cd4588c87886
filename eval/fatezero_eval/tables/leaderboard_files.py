"""Compares runs and writes what it finds: `leaderboard.*` and `differences.*`."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import isfinite, nan
from pathlib import Path
from typing import Any

from fatezero.errors import UserError, attempt
from fatezero.system.publishing import replace_text, replacing
from fatezero_eval.file_names import DIFFERENCES, LEADERBOARD
from fatezero_eval.scoring.rows import as_cell
from fatezero_eval.tables import grids
from fatezero_eval.tables.joining import Table, join
from fatezero_eval.tables.scored_runs import named_apart, read_scored_run
from fatezero_eval.tables.statistics import Difference, Score


@dataclass(frozen=True)
class Leaderboard:
    """Tables of comparable methods; as a text, their overview in Markdown.

    Attributes:
        tables: the first holds the first run.
        folder: where they were written.
        problems: a sentence for each thing that is left out, as it cannot be read.
    """

    tables: tuple[Table, ...]
    folder: Path
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        return grids.overview_markdown(self.tables)


def write_leaderboard(runs: Sequence[Path], out: Path, reference: str | None = None) -> Leaderboard:
    """Compare runs and write `leaderboard.{md,csv,json,html}`, and `differences.{md,csv,json}` to a reference.

    Runs that were scored with another manifest, mask or model, or on other frames, get a table of their own that
    says why.

    Args:
        runs: run folders that were evaluated, or the output folders of evaluations.
        out: folder to write to.
        reference: a variant, `<run>/<variant>` where several runs have one of that name; by default that of the
            experiment, if it names one.

    Raises:
        UserError: no folder holds scores that can be read; two runs cannot be told apart; no table has the reference.
    """
    if not runs:
        raise UserError("name at least one run folder, or the output folder of an evaluation.")
    found = [attempt(partial(read_scored_run, run)) for run in runs]
    unread = [str(run) for run in found if isinstance(run, UserError)]
    if len(unread) == len(runs):
        raise UserError("\n".join(unread))
    loaded = named_apart([run for run in found if not isinstance(run, UserError)])
    wanted = reference or next((run.experiment.reference for run in loaded if run.experiment.reference), None)
    tables = join(loaded, wanted)
    if reference is not None and all(table.reference is None for table in tables):
        known = ", ".join(method.variant for table in tables for method in table.methods)
        raise UserError(f"there is no variant {reference!r} to compare with; choose one of {known}.")
    problems = (*unread, *(problem for run in loaded for problem in run.problems))
    leaderboard = Leaderboard(tables, out, problems)
    _write(leaderboard)
    return leaderboard


def _write(leaderboard: Leaderboard) -> None:
    tables, out, problems = leaderboard.tables, leaderboard.folder, leaderboard.problems
    replace_text(out / f"{LEADERBOARD}.md", grids.leaderboard_markdown(tables, problems))
    replace_text(out / f"{LEADERBOARD}.html", grids.leaderboard_html(tables, problems))
    replace_text(out / f"{LEADERBOARD}.json", _json([_as_json(table) for table in tables]))
    _write_records(
        out / f"{LEADERBOARD}.csv", [r for i, table in enumerate(tables, 1) for r in _score_records(i, table)]
    )
    records = [r for i, table in enumerate(tables, 1) for r in _difference_records(i, table)]
    if records:
        replace_text(out / f"{DIFFERENCES}.md", grids.differences_markdown(tables))
        replace_text(out / f"{DIFFERENCES}.json", _json(records))
        _write_records(out / f"{DIFFERENCES}.csv", records)
    else:  # an earlier leaderboard's would no longer fit
        for suffix in ("md", "json", "csv"):
            (out / f"{DIFFERENCES}.{suffix}").unlink(missing_ok=True)


def _score_records(number: int, table: Table) -> list[dict[str, Any]]:
    """One flat record for each method, metric and category, its cost and provenance beside it."""
    from fatezero_eval.scoring.suite import by_id  # noqa: PLC0415  (imports torch)

    beside = {
        method.variant: {
            "run": method.run,
            **asdict(method.cost),
            "configuration": " ".join(method.configurations),
            "checkpoint": " ".join(method.checkpoints),
            "device": " ".join(method.devices),
            "versions": "; ".join(method.versions),
        }
        for method in table.methods
    }
    return [
        {"table": number, **_ranked(score, table), "direction": by_id(score.metric).direction, **beside[score.variant]}
        for score in table.scores
    ]


def _difference_records(number: int, table: Table) -> list[dict[str, Any]]:
    from fatezero_eval.scoring.suite import by_id  # noqa: PLC0415  (imports torch)

    return [
        {"table": number, **_flat(found), "p_holm": corrected, "direction": by_id(found.metric).direction}
        for found, corrected in zip(table.differences, table.corrected, strict=True)
    ]


def _as_json(table: Table) -> dict[str, Any]:
    return {
        "reason": table.reason,
        "reference": table.reference,
        "edits": table.edits,
        "evaluation": asdict(table.provenance),
        "methods": [asdict(method) for method in table.methods],
        "scores": [_ranked(score, table) for score in table.scores],
    }


def _ranked(score: Score, table: Table) -> dict[str, Any]:
    return {**_flat(score), "rank": table.ranks.get((score.variant, score.metric, score.category))}


def _flat(found: Score | Difference) -> dict[str, Any]:
    """The record with its interval spread out; what is not known is None."""
    values = asdict(found)
    interval = values.pop("interval") or {"value": None, "low": nan, "high": nan}
    ends = {end: interval[end] if isfinite(interval[end]) else None for end in ("low", "high")}
    return {**values, "value": interval["value"], **ends}


def _json(values: Any) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows({name: as_cell(value) for name, value in record.items()} for record in records)
