"""Joins runs and other people's scored outputs into tables of what can be compared."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from math import fsum, isfinite, nan
from pathlib import Path
from typing import Any

from fatezero.data.files import replacing
from fatezero.errors import UserError
from fatezero_eval import provenance, rendering
from fatezero_eval.provenance import Provenance, read_provenance
from fatezero_eval.rows import BASELINES, Row, read_rows
from fatezero_eval.statistics import Difference, Key, Score, differences, direction, holm, ranks, scores


@dataclass(frozen=True)
class Cost:
    """What a method takes; None where its results do not say.

    Attributes:
        seconds_per_frame: of the whole edit, inversion included even where variants shared one; mean over edits.
        peak_memory_bytes: of the process, or of the allocator on a GPU; the largest of all edits.
        stored_bytes: kept between inversion and edit; mean over edits.
    """

    seconds_per_frame: float | None = None
    peak_memory_bytes: float | None = None
    stored_bytes: float | None = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """Where a table's line comes from; of someone else's videos only the scores are known.

    Attributes:
        variant: its name in the table.
        run: name of the run folder.
        edits: how many were scored.
        configurations: digests; requests with settings of their own have others.
        checkpoints: names and digests.
        devices: where it ran.
        versions: of the packages that made the results.
        cost: time and memory.
        notes: what was done to its frames before scoring, and to how many edits.
    """

    variant: str
    run: str
    edits: int
    configurations: tuple[str, ...]
    checkpoints: tuple[str, ...]
    devices: tuple[str, ...]
    versions: tuple[str, ...]
    cost: Cost
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Methods that can be compared.

    Attributes:
        reason: why they do not stand in the first table; empty for the first.
        provenance: what the first run was scored with.
        edits: how many different ones there are.
        methods: one for each line, the baselines last.
        scores: means over clips with intervals.
        ranks: by variant, metric and category.
        reference: the variant that differences are taken from; None for none.
        differences: paired with the reference.
        corrected: p-value of each difference, corrected for the number of variants (Holm).
    """

    reason: str
    provenance: Provenance
    edits: int
    methods: tuple[Method, ...]
    scores: tuple[Score, ...]
    ranks: Mapping[Key, int]
    reference: str | None
    differences: tuple[Difference, ...]
    corrected: tuple[float | None, ...]


@dataclass(frozen=True)
class Leaderboard:
    """Tables of comparable methods; as a text, their overview in Markdown.

    Attributes:
        tables: the first holds the first run.
        folder: where they were written.
    """

    tables: tuple[Table, ...]
    folder: Path

    def __str__(self) -> str:
        return rendering.overview_markdown(self.tables)


@dataclass(frozen=True)
class _Record:
    """What an edit's `meta.json` says of how it was made; None where it does not."""

    configuration: str | None
    checkpoint: str | None
    device: str | None
    versions: str | None
    cost: Cost


@dataclass(frozen=True)
class _Run:
    """One evaluation: its rows, what made them, and the records of the edits behind them."""

    path: Path
    name: str
    rows: list[Row]
    provenance: Provenance
    records: Mapping[str, list[_Record]]  # by variant
    experiment: Mapping[str, Any]


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
        UserError: a folder holds no scores, or damaged ones; two runs cannot be told apart; no table has the
            reference.
    """
    if not runs:
        raise UserError("name at least one run folder, or the output folder of an evaluation.")
    loaded = _named_apart([_load(run) for run in runs])
    wanted = reference or next((run.experiment["reference"] for run in loaded if run.experiment.get("reference")), None)
    tables = tuple(_table(group, reason, wanted) for group, reason in _comparable(loaded))
    if reference is not None and all(table.reference is None for table in tables):
        known = ", ".join(method.variant for table in tables for method in table.methods)
        raise UserError(f"there is no variant {reference!r} to compare with; choose one of {known}.")
    leaderboard = Leaderboard(tables, out)
    _write(leaderboard)
    return leaderboard


def _load(run: Path) -> _Run:
    folder = next((f for f in (run / "evaluation", run) if (f / "rows.jsonl").is_file()), None)
    if folder is None:
        raise UserError(f"{run}: no scores (evaluation/rows.jsonl or rows.jsonl); run fatezero evaluate first.")
    records: dict[str, list[_Record]] = {}
    for meta in sorted(run.glob("*/*/meta.json")):
        records.setdefault(meta.parent.parent.name, []).append(_record(meta))
    experiment = run / "experiment.json"
    return _Run(
        path=run.resolve(),
        name=run.resolve().name,
        rows=read_rows(folder / "rows.jsonl"),
        provenance=read_provenance(folder),
        records=records,
        experiment=_read_json(experiment) if experiment.is_file() else {},
    )


def _record(path: Path) -> _Record:
    meta = _read_json(path)
    try:
        config, checkpoint, versions = meta.get("config"), meta.get("checkpoint"), meta.get("versions")
        timings, stored = meta.get("timings"), meta.get("kept_bytes")
        return _Record(
            configuration=_digest(config) if config else None,
            checkpoint=f"{checkpoint['name']}:{checkpoint['digest'][:8]}" if checkpoint else None,
            device=meta["runtime"]["device"] if "runtime" in meta else None,
            versions=", ".join(f"{name} {number}" for name, number in versions.items()) if versions else None,
            cost=Cost(
                seconds_per_frame=fsum(timings.values()) / meta["frames"] if timings and "frames" in meta else None,
                peak_memory_bytes=meta.get("peak_memory_bytes"),
                stored_bytes=fsum(stored.values()) if stored else None,
            ),
        )
    except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{path}: not readable as an edit's record ({error!r}); edit the clip again.") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable ({error}); take it away and run again.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a record; take it away and run again.")
    return values


def _named_apart(runs: Sequence[_Run]) -> list[_Run]:
    """Variants that several runs have are called `<run>/<variant>`."""
    if len({run.path for run in runs}) < len(runs):
        raise UserError("a run is named twice; name each once.")
    variants = Counter(variant for run in runs for variant in {row.variant for row in run.rows} - {*BASELINES})
    renamed = [{name: f"{run.name}/{name}" if variants[name] > 1 else name for name in _variants(run)} for run in runs]
    labels = Counter(label for names in renamed for label in names.values())
    for run, names in zip(runs, renamed, strict=True):
        for label in names.values():
            if labels[label] > 1:
                raise UserError(f"{run.path}: another run has a variant {label!r} too; rename one of the run folders.")
    return [
        replace(
            run,
            rows=[replace(row, variant=names.get(row.variant, row.variant)) for row in run.rows],
            records={names[name]: records for name, records in run.records.items() if name in names},
            experiment=_relabelled(run.experiment, names),
        )
        for run, names in zip(runs, renamed, strict=True)
    ]


def _relabelled(experiment: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    reference, variants = experiment.get("reference", ""), experiment.get("variants", ())
    return {"reference": names.get(reference, reference), "variants": [names.get(name, name) for name in variants]}


def _variants(run: _Run) -> list[str]:
    """A run's variants without the baselines: in the experiment's order, or that of the rows."""
    scored = dict.fromkeys(row.variant for row in run.rows if row.variant not in BASELINES)
    return [name for name in dict.fromkeys([*run.experiment.get("variants", ()), *scored]) if name in scored]


def _comparable(runs: Sequence[_Run]) -> list[tuple[list[_Run], str]]:
    """Groups of runs that may share a table, each with why it is not the first."""
    groups: list[tuple[list[_Run], str]] = []
    for run in runs:
        reasons = []
        for group, _ in groups:
            reason = next(
                filter(None, (provenance.difference(other.provenance, run.provenance) for other in group)), ""
            )
            if not reason:
                group.append(run)
                break
            reasons.append(reason)
        else:
            groups.append(([run], reasons[0] if reasons else ""))
    return groups


def _table(runs: Sequence[_Run], reason: str, wanted: str | None) -> Table:
    rows = _joined(runs)
    names = [name for run in runs for name in _variants(run)]
    reference = wanted if wanted in names or wanted in BASELINES else None
    found = differences(rows, reference) if reference else []
    edits = {(row.clip, row.edit) for row in rows}
    baselines = [name for name in BASELINES if any(row.variant == name for row in rows)]
    return Table(
        reason=reason,
        provenance=runs[0].provenance,
        edits=len(edits),
        methods=tuple(
            [_method(run, name) for run in runs for name in _variants(run)]
            + [_method(runs[0], name) for name in baselines]
        ),
        scores=tuple(scores(rows)),
        ranks=ranks(rows),
        reference=reference,
        differences=tuple(found),
        corrected=tuple(holm(found)),
    )


def _joined(runs: Sequence[_Run]) -> list[Row]:
    """All rows; those of the baselines once for each edit and seed, since every run brings its own.

    Clips are named by where they lie, which may be elsewhere in each run: the first name of an edit's clip counts.
    """
    joined: dict[tuple[object, ...], Row] = {}
    known: dict[str, str] = {}  # by edit
    for run in runs:
        first_name = {row.clip: known[row.edit] for row in run.rows if row.edit in known}
        for found in run.rows:
            row = replace(found, clip=first_name.get(found.clip, found.clip))
            known.setdefault(row.edit, row.clip)
            joined.setdefault((row.variant, row.metric, row.clip, row.edit, row.seed), row)
    return list(joined.values())


def _method(run: _Run, variant: str) -> Method:
    records = run.records.get(variant, [])
    rows = [row for row in run.rows if row.variant == variant]
    noted: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.notes:
            noted[row.notes].add(row.edit)
    return Method(
        variant=variant,
        run="" if variant in BASELINES else run.name,
        edits=len({(row.clip, row.edit) for row in rows}),
        configurations=_distinct(record.configuration for record in records),
        checkpoints=_distinct(record.checkpoint for record in records),
        devices=_distinct(record.device for record in records),
        versions=_distinct(record.versions for record in records),
        cost=_cost([record.cost for record in records]),
        notes=tuple(f"{note} ({len(changed)} edits)" for note, changed in sorted(noted.items())),
    )


def _cost(costs: Sequence[Cost]) -> Cost:
    seconds = [cost.seconds_per_frame for cost in costs if cost.seconds_per_frame is not None]
    memory = [cost.peak_memory_bytes for cost in costs if cost.peak_memory_bytes is not None]
    stored = [cost.stored_bytes for cost in costs if cost.stored_bytes is not None]
    return Cost(
        seconds_per_frame=fsum(seconds) / len(seconds) if seconds else None,
        peak_memory_bytes=max(memory, default=None),
        stored_bytes=fsum(stored) / len(stored) if stored else None,
    )


def _distinct(values: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value is not None}))


def _digest(values: Any) -> str:
    return blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=4).hexdigest()


def _write(leaderboard: Leaderboard) -> None:
    tables, out = leaderboard.tables, leaderboard.folder
    _write_text(out / "leaderboard.md", rendering.leaderboard_markdown(tables))
    _write_text(out / "leaderboard.html", rendering.leaderboard_html(tables))
    _write_text(out / "leaderboard.json", _json([_as_json(table) for table in tables]))
    _write_records(out / "leaderboard.csv", [r for i, table in enumerate(tables, 1) for r in _score_records(i, table)])
    records = [r for i, table in enumerate(tables, 1) for r in _difference_records(i, table)]
    if records:
        _write_text(out / "differences.md", rendering.differences_markdown(tables))
        _write_text(out / "differences.json", _json(records))
        _write_records(out / "differences.csv", records)
    else:  # an earlier leaderboard's would no longer fit
        for suffix in ("md", "json", "csv"):
            (out / f"differences.{suffix}").unlink(missing_ok=True)


def _score_records(number: int, table: Table) -> list[dict[str, Any]]:
    """One flat record for each method, metric and category, its cost and provenance beside it."""
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
        {"table": number, **_ranked(score, table), "direction": direction(score.metric), **beside[score.variant]}
        for score in table.scores
    ]


def _difference_records(number: int, table: Table) -> list[dict[str, Any]]:
    return [
        {"table": number, **_flat(found), "p_holm": corrected, "direction": direction(found.metric)}
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


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows(records)
