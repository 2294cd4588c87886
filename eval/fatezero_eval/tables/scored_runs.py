"""Reads evaluated run folders: rows, provenance, and the records of how the edits were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import fsum
from pathlib import Path

from fatezero.data.files import json_digest
from fatezero.data.layout import EVALUATION, ROWS, inside, result_records
from fatezero.errors import UserError, attempt
from fatezero_eval.file_names import PROVENANCE
from fatezero_eval.scoring.provenance import Provenance, read_provenance
from fatezero_eval.scoring.records import Experiment, read_experiment, read_record
from fatezero_eval.scoring.rows import BASELINES, Row, read_rows


@dataclass(frozen=True)
class Cost:
    """What a method costs; None where its results do not say.

    Attributes:
        seconds_per_frame: time of the whole edit, with its inversion even if variants shared it; mean over edits.
        peak_memory_bytes: peak of the process, or of the allocator on a GPU; the largest of all edits.
        stored_bytes: bytes kept between inversion and edit; mean over edits.
    """

    seconds_per_frame: float | None = None
    peak_memory_bytes: float | None = None
    stored_bytes: float | None = None


@dataclass(frozen=True)
class EditRecord:
    """What an edit's `meta.json` says of how it was made; None where it does not.

    Attributes:
        configuration: digest of the method's configuration.
        checkpoint: its name and digest.
        device: where the edit was made.
        versions: packages with their versions.
        cost: time and memory.
    """

    configuration: str | None
    checkpoint: str | None
    device: str | None
    versions: str | None
    cost: Cost


@dataclass(frozen=True)
class ScoredRun:
    """One evaluation: its rows, what made them, and the records of the edits behind them.

    Attributes:
        path: the run folder, or the output folder of an evaluation.
        name: what the folder is called.
        rows: all scores.
        provenance: what they were made with.
        records: by variant, the records of its edits.
        experiment: what `experiment.json` says; empty without one.
        problems: a sentence for each thing in it that cannot be read; what depends on it is left out.
    """

    path: Path
    name: str
    rows: Sequence[Row]
    provenance: Provenance
    records: Mapping[str, Sequence[EditRecord]]
    experiment: Experiment
    problems: tuple[str, ...]


def read_scored_run(run: Path) -> ScoredRun:
    """Read a run folder that was evaluated, or the output folder of an evaluation.

    Raises:
        UserError: it holds no scores, or damaged ones.
    """
    folder = next((f for f in (run / EVALUATION, run) if (f / ROWS).is_file()), None)
    if folder is None:
        raise UserError(f"{run}: no scores ({EVALUATION}/{ROWS} or {ROWS}); run fatezero evaluate first.")
    problems = []
    records: dict[str, list[EditRecord]] = {}
    for meta in result_records(run):
        record = attempt(partial(_record, run, meta))
        if isinstance(record, UserError):
            problems.append(str(record))
        else:
            records.setdefault(meta.parent.parent.name, []).append(record)
    experiment = attempt(partial(read_experiment, run))
    if isinstance(experiment, UserError):
        problems.append(str(experiment))
        experiment = Experiment(name=run.resolve().name)
    for name in (ROWS, PROVENANCE):
        inside(run, folder / name)
    rows, provenance = read_rows(folder / ROWS), read_provenance(folder)
    for metric in dict.fromkeys(row.metric for row in rows):
        _check_known(metric)
    return ScoredRun(
        path=run.resolve(),
        name=run.resolve().name,
        rows=rows,
        provenance=provenance,
        records=records,
        experiment=experiment,
        problems=tuple(problems),
    )


def _check_known(metric: str) -> None:
    from fatezero_eval.scoring.suite import by_id  # noqa: PLC0415  (imports torch)

    by_id(metric)


def _record(run: Path, path: Path) -> EditRecord:
    meta = read_record(run, path)
    config, checkpoint, versions = meta.get("config"), meta.get("checkpoint"), meta.get("versions")
    timings, stored = meta.get("timings"), meta.get("kept_bytes")
    return EditRecord(
        configuration=json_digest(config, 4) if config else None,
        checkpoint=f"{checkpoint['name']}:{checkpoint['digest'][:8]}" if checkpoint else None,
        device=meta["runtime"]["device"] if "runtime" in meta else None,
        versions=", ".join(f"{name} {number}" for name, number in versions.items()) if versions else None,
        cost=Cost(
            seconds_per_frame=fsum(timings.values()) / meta["frames"] if timings and "frames" in meta else None,
            peak_memory_bytes=meta.get("peak_memory_bytes"),
            stored_bytes=fsum(stored.values()) if stored else None,
        ),
    )


def named_apart(runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """The runs, with variants that several of them have called `<run>/<variant>`.

    Raises:
        UserError: a run is named twice, or two runs cannot be told apart.
    """
    if len({run.path for run in runs}) < len(runs):
        raise UserError("a run is named twice; name each once.")
    variants = Counter(variant for run in runs for variant in {row.variant for row in run.rows} - {*BASELINES})
    renamed = [
        {name: f"{run.name}/{name}" if variants[name] > 1 else name for name in variants_of(run)} for run in runs
    ]
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


def _relabelled(experiment: Experiment, names: Mapping[str, str]) -> Experiment:
    reference = experiment.reference
    return replace(
        experiment,
        reference=None if reference is None else names.get(reference, reference),
        settings={names.get(name, name): settings for name, settings in experiment.settings.items()},
        configs={names.get(name, name): config for name, config in experiment.configs.items()},
    )


def variants_of(run: ScoredRun) -> list[str]:
    """A run's variants without the baselines: in the experiment's order, or that of the rows."""
    scored = dict.fromkeys(row.variant for row in run.rows if row.variant not in BASELINES)
    return [name for name in dict.fromkeys([*run.experiment.settings, *scored]) if name in scored]
