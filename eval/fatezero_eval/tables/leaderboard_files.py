"""Compares runs and writes what it finds: `leaderboard.*` and `differences.*`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fatezero.errors import UserError, attempt
from fatezero.system.publishing import replace_text
from fatezero.system.terminal import shortened
from fatezero_eval.file_names import DIFFERENCES, LEADERBOARD
from fatezero_eval.scoring.rows import Row
from fatezero_eval.tables import grids
from fatezero_eval.tables.joining import Table, join
from fatezero_eval.tables.notation import markdown
from fatezero_eval.tables.published_scores import is_published, read_all_published
from fatezero_eval.tables.scored_runs import named_apart, read_scored_run
from fatezero_eval.tables.statistics import Difference, Score
from fatezero_eval.tables.table_files import ends, write_json, write_records
from fatezero_eval.tables.weighing import Weighing, weigh
from fatezero_eval.tables.weighing_files import write_weighings
from fatezero_eval.tables.weighing_grids import totals_grid
from fatezero_eval.tables.weights import read_weights


@dataclass(frozen=True)
class Leaderboard:
    """Tables of comparable methods; as a text, their overview in Markdown.

    Attributes:
        tables: the first holds the first run.
        folder: where they were written.
        weighings: of each table, where weights were stated.
        problems: a sentence for each thing that is left out, as it cannot be read.
    """

    tables: tuple[Table, ...]
    folder: Path
    weighings: tuple[Weighing, ...] = ()
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        weighted = [markdown(totals_grid(weighing)) for weighing in self.weighings]
        return "\n".join([grids.overview_markdown(self.tables), *weighted])


def write_leaderboard(
    runs: Sequence[Path], out: Path, reference: str | None = None, weights: Path | None = None
) -> Leaderboard:
    """Compare runs and write `leaderboard.{md,csv,json,html}`, and `differences.{md,csv,json}` to a reference.

    With weights also `weighted.{md,csv,json,svg}`: weighted scores, and how far their order depends on the weights.

    Runs that were scored with another manifest, mask or model, or on other frames, get a table of their own that
    says why.

    Args:
        runs: run folders that were evaluated, or the output folders of evaluations; and csv files of scores that others
            published (see `read_published`), which join the tables that have their edits.
        out: folder to write to.
        reference: a variant, `<run>/<variant>` where several runs have one of that name; by default that of the
            experiment, if it names one.
        weights: a file of weights (see `weights.read_weights`).

    Raises:
        UserError: no folder holds scores that can be read; two runs cannot be told apart; no table has the reference;
            weights are none, or of a metric that no method has.
    """
    weighted = read_weights(weights) if weights else ()
    if not runs:
        raise UserError("name at least one run folder, or the output folder of an evaluation.")
    folders = [run for run in runs if not is_published(run)]
    found = [attempt(partial(read_scored_run, run)) for run in folders]
    unread = [str(run) for run in found if isinstance(run, UserError)]
    if len(unread) == len(folders):
        raise UserError("\n".join(unread) or "published scores need a scored run beside them; name one too.")
    published = read_all_published(run for run in runs if is_published(run))
    loaded = named_apart([run for run in found if not isinstance(run, UserError)])
    wanted = reference or next((run.experiment.reference for run in loaded if run.experiment.reference), None)
    tables = join(loaded, wanted, published)
    if reference is not None:
        _check_reference(reference, tables, published)
    problems = (
        *unread,
        *(problem for run in loaded for problem in run.problems),
        *_strangers(published, [row for run in loaded for row in run.rows]),
    )
    weighings = tuple(weigh(table, weighted) for table in tables) if weights else ()
    _check_weighed(weighings)
    leaderboard = Leaderboard(tables, out, weighings, problems)
    _write(leaderboard)
    return leaderboard


def _check_reference(reference: str, tables: Sequence[Table], published: Sequence[Row]) -> None:
    """Refuse a reference that no table has, as no table compares with what others published."""
    if all(table.reference is None for table in tables):
        theirs = {row.variant for row in published}
        known = ", ".join(m.variant for table in tables for m in table.methods if m.variant not in theirs)
        raise UserError(f"there is no variant {reference!r} to compare with; choose one of {known}.")


def _strangers(published: Sequence[Row], own: Sequence[Row]) -> list[str]:
    """A sentence on the published edits that no table has."""
    known = {row.edit for row in own}
    left = dict.fromkeys(row.edit for row in published if row.edit not in known)
    if not left:
        return []
    names = shortened(", ".join(left), 200)
    return [f"{len(left)} edits of the published scores are none of the runs', so they are left out: {names}."]


def _write(leaderboard: Leaderboard) -> None:
    tables, out, problems = leaderboard.tables, leaderboard.folder, leaderboard.problems
    replace_text(out / f"{LEADERBOARD}.md", grids.leaderboard_markdown(tables, problems))
    replace_text(out / f"{LEADERBOARD}.html", grids.leaderboard_html(tables, problems))
    write_json(out / f"{LEADERBOARD}.json", [_as_json(table) for table in tables])
    write_records(
        out / f"{LEADERBOARD}.csv", [r for i, table in enumerate(tables, 1) for r in _score_records(i, table)]
    )
    records = [r for i, table in enumerate(tables, 1) for r in _difference_records(i, table)]
    if records:
        replace_text(out / f"{DIFFERENCES}.md", grids.differences_markdown(tables))
        write_json(out / f"{DIFFERENCES}.json", records)
        write_records(out / f"{DIFFERENCES}.csv", records)
    else:  # an earlier leaderboard's would no longer fit
        for suffix in ("md", "json", "csv"):
            (out / f"{DIFFERENCES}.{suffix}").unlink(missing_ok=True)
    write_weighings(leaderboard.weighings, out)


def _check_weighed(weighings: Sequence[Weighing]) -> None:
    known = {metric for w in weighings for s in w.scores for metric in s.parts.keys() - set(s.missing)}
    for weighted in weighings[0].weights if weighings else ():
        if weighted.metric not in known:
            raise UserError(f"no method has a {weighted.metric} to weigh: score the runs with it, or leave it out.")


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
    del values["interval"]
    return {**values, **ends(found.interval)}
