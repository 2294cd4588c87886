"""A run folder as the page sees it: what was asked, what is there, what it scored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

from fatezero.data.layout import EVALUATION, EXPERIMENT, PLAN, RECORD, ROWS
from fatezero.data.manifest import Manifest, read_manifest
from fatezero.errors import UserError
from fatezero_eval.file_names import FAILED, ITEMS, TRUTH
from fatezero_eval.scoring.rows import BASELINES, Row, read_rows
from fatezero_eval.scoring.scoring_jobs import Render, ScoringJob, Truths, finished_jobs, job_name


@dataclass(frozen=True, kw_only=True)
class ShownExperiment:
    """What `experiment.json` says; a plain run has an empty one.

    Attributes:
        name: name of the experiment, else of the run folder.
        reference: the variant that others are compared with; None if none is named.
        command: the command as it was typed.
        manifest: the manifest's path, as the command had it.
        manifest_digest: digest of the manifest's content.
        settings: by variant, the fields that differ from the reference, by dotted name.
        configs: by variant, the whole configuration.
    """

    name: str
    reference: str | None = None
    command: str = ""
    manifest: str = ""
    manifest_digest: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """Variants that differ from the reference in one and the same field.

    Attributes:
        field: dotted name of the field.
        points: variants and their values, with the reference; in rising order if the values have an order.
    """

    field: str
    points: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class ShownRun:
    """Everything the page is made from.

    Attributes:
        experiment: what was planned.
        manifest: the benchmark, if known.
        variants: names, the reference first, then as planned, then any others by name.
        edits: their ids, in the manifest's order, then any others.
        jobs: finished edits, by variant, edit and seed.
        records: by job, its `meta.json`.
        rows: scores; empty where nothing was evaluated.
        problems: sentences on what is missing or failed.
    """

    experiment: ShownExperiment
    manifest: Manifest | None
    variants: tuple[str, ...]
    edits: tuple[str, ...]
    jobs: tuple[ScoringJob, ...]
    records: Mapping[str, Mapping[str, Any]]
    rows: Sequence[Row]
    problems: tuple[str, ...]


def read_run(folder: Path, manifest: Path | None, render: Render | None) -> ShownRun:
    """Read a run folder.

    Raises:
        UserError: as `write_report`.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder; check the path.")
    experiment = _read_experiment(folder)
    stated = Path(manifest or experiment.manifest) if manifest or experiment.manifest else None
    # one that the experiment names may have stayed on another machine
    gone = manifest is None and stated is not None and not stated.exists()
    known = read_manifest(stated) if stated and not gone else None
    jobs = finished_jobs(folder, Truths(known, render, folder / EVALUATION / TRUTH))
    if not jobs:
        raise UserError(f"{folder}: no finished edit (<variant>/<edit id>/{RECORD}); edit some clips first.")
    scored = folder / EVALUATION / ROWS
    rows = read_rows(scored) if scored.exists() else []
    planned = [experiment.reference, *experiment.settings]
    others = {job.variant for job in jobs} | {row.variant for row in rows} - {*BASELINES}
    variants = tuple(dict.fromkeys([*filter(None, planned), *sorted(others)]))
    asked = [request.id for request in known.requests] if known else []
    edits = tuple(dict.fromkeys([*asked, *(job.request.id for job in jobs)]))
    jobs.sort(key=lambda i: (variants.index(i.variant), edits.index(i.request.id), i.request.seed))
    return ShownRun(
        experiment=experiment,
        manifest=known,
        variants=variants,
        edits=edits,
        jobs=tuple(jobs),
        records={job.name: _record(job) for job in jobs},
        rows=rows,
        problems=(
            *([f"The manifest {stated} is not here, so no truth is shown; name it with --manifest."] if gone else []),
            *_missing(folder, jobs, variants),
            *_unscored(jobs, rows, folder),
        ),
    )


def sweeps(experiment: ShownExperiment) -> list[Sweep]:
    """One sweep for each field that alone sets at least two variants apart from the reference."""
    by_field: dict[str, list[tuple[str, Any]]] = {}
    for variant, settings in experiment.settings.items():
        if len(settings) == 1 and variant != experiment.reference:
            ((name, value),) = settings.items()
            by_field.setdefault(name, []).append((variant, value))
    found = []
    for name, points in by_field.items():
        if len(points) > 1 and experiment.reference is not None:
            config = experiment.configs.get(experiment.reference, {})
            points.append((experiment.reference, reduce(_inside, name.split("."), config)))
            found.append(Sweep(name, tuple(_rising(points))))
    return found


def _inside(values: Any, name: str) -> Any:
    return values.get(name) if isinstance(values, Mapping) else None


def _rising(points: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    try:
        return sorted(points, key=lambda point: point[1])
    except TypeError:  # values of several kinds, such as a window and null
        return points


def _record(job: ScoringJob) -> dict[str, Any]:
    return _read_json(result_folder(job) / RECORD)


def result_folder(job: ScoringJob) -> Path:
    """The folder that holds a job's frames, masks and record."""
    return Path(job.edited.path).parent


def _read_experiment(folder: Path) -> ShownExperiment:
    path = folder / EXPERIMENT
    if not path.exists():
        return ShownExperiment(name=folder.resolve().name)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        variants = {str(name): (dict(v["settings"]), dict(v["config"])) for name, v in values["variants"].items()}
        reference = values["reference"]
        if reference is not None and reference not in variants:
            raise ValueError(f"its reference {reference!r} is none of its variants")
        return ShownExperiment(
            name=str(values["name"]),
            reference=reference,
            command=str(values.get("command") or ""),
            manifest=str(values.get("manifest") or ""),
            manifest_digest=str(values.get("manifest_digest") or ""),
            settings={name: settings for name, (settings, _) in variants.items()},
            configs={name: config for name, (_, config) in variants.items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not readable as an experiment ({error!r}); run fatezero ablate again.") from error


def _missing(folder: Path, jobs: Sequence[ScoringJob], variants: Sequence[str]) -> list[str]:
    """What was asked for and is not there, with the reasons that were kept.

    What was asked for is each variant's `plan.json`; without one, the results that any variant has.
    """
    names = {variant: [result_folder(job).name for job in jobs if job.variant == variant] for variant in variants}
    anywhere = list(dict.fromkeys(name for found in names.values() for name in found))
    sentences = []
    for variant, there in names.items():
        plan = folder / variant / PLAN
        asked = list(_read_json(plan)) if plan.exists() else anywhere
        absent = [name for name in asked if name not in there]
        failed = {name: folder / variant / f"{name}.failed.json" for name in absent}
        reasons = {name: _read_json(path).get("reason") for name, path in failed.items() if path.exists()}
        sentences += [f"{variant}/{name} failed: {reason}" for name, reason in reasons.items()]
        unmade = [name for name in absent if name not in reasons]
        if unmade:
            sentences.append(f"{variant}: {len(unmade)} of {len(asked)} results were not made: {', '.join(unmade)}.")
    return sentences


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
        return values
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not readable ({error}): take it away and edit again.") from error


def _unscored(jobs: Sequence[ScoringJob], rows: Sequence[Row], folder: Path) -> list[str]:
    """What the evaluation left out, and the reasons that it wrote down."""
    if not rows:
        return []
    scored = {job_name(row.variant, row.edit, row.seed) for row in rows}
    absent = [job.name for job in jobs if job.name not in scored]
    if not absent:
        return []
    reasons = {path.read_text(encoding="utf-8") for path in (folder / EVALUATION / ITEMS).glob(f"*{FAILED}")}
    stated = f" Reasons that the evaluation gave: {' '.join(sorted(reasons))}" if reasons else ""
    return [f"Not scored ({len(absent)}): {', '.join(absent)}.{stated} Run fatezero evaluate again."]
