"""Joins scored runs into tables of methods that can be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

from fatezero_eval.scoring import provenance
from fatezero_eval.scoring.provenance import Provenance
from fatezero_eval.scoring.rows import BASELINES, Row
from fatezero_eval.tables.published_scores import beside
from fatezero_eval.tables.scored_runs import Cost, ScoredRun, variants_of
from fatezero_eval.tables.statistics import Difference, Key, Score, differences, holm, ranks, scores


@dataclass(frozen=True, kw_only=True)
class Method:
    """Where a table's line comes from; for someone else's videos only the scores are known.

    Attributes:
        variant: its name in the table.
        run: name of the run folder.
        edits: number of edits that were scored.
        configurations: digests of the method's configurations; requests with settings of their own add some.
        checkpoints: names and digests of the checkpoints.
        devices: devices that it ran on.
        versions: packages that made the results, with their versions.
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
        edits: number of different edits.
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


def join(runs: Sequence[ScoredRun], reference: str | None, published: Sequence[Row] = ()) -> tuple[Table, ...]:
    """Tables of what can be compared; each run whose scores fit no table before it begins another.

    Args:
        runs: their variants have different names (see `named_apart`).
        reference: the variant that differences are taken from, in the tables that have it.
        published: scores of others; they stand in every table that has their edits, without rank and difference.
    """
    return tuple(_table(group, reason, reference, published) for group, reason in _comparable(runs))


def _comparable(runs: Sequence[ScoredRun]) -> list[tuple[list[ScoredRun], str]]:
    """Groups of runs that may share a table, each with why it is not the first."""
    groups: list[tuple[list[ScoredRun], str]] = []
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


def _table(runs: Sequence[ScoredRun], reason: str, wanted: str | None, published: Sequence[Row]) -> Table:
    rows = joined_rows(runs)
    theirs = beside(rows, published)
    names = [name for run in runs for name in variants_of(run)]
    reference = wanted if wanted in names or wanted in BASELINES else None
    found = differences(rows, reference) if reference else []
    edits = {(row.clip, row.edit) for row in rows}
    baselines = [name for name in BASELINES if any(row.variant == name for row in rows)]
    return Table(
        reason=reason,
        provenance=runs[0].provenance,
        edits=len(edits),
        methods=tuple(
            [_method(run, name) for run in runs for name in variants_of(run)]
            + [_published_method(theirs, name) for name in dict.fromkeys(row.variant for row in theirs)]
            + [_method(runs[0], name) for name in baselines]
        ),
        scores=tuple(scores([*rows, *theirs])),
        ranks=ranks(rows),
        reference=reference,
        differences=tuple(found),
        corrected=tuple(holm(found)),
    )


def joined_rows(runs: Sequence[ScoredRun]) -> list[Row]:
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


def _published_method(rows: Sequence[Row], variant: str) -> Method:
    """A line of which nothing is known but its scores."""
    own = [row for row in rows if row.variant == variant]
    return Method(
        variant=variant,
        run="",
        edits=len({(row.clip, row.edit) for row in own}),
        configurations=(),
        checkpoints=(),
        devices=(),
        versions=(),
        cost=Cost(),
        notes=_distinct([*(row.notes for row in own), *(row.model or None for row in own)]),
    )


def _method(run: ScoredRun, variant: str) -> Method:
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
