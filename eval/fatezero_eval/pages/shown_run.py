"""A run folder as the page sees it: what was asked, what is there, what it scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, TypeVar

from fatezero.data.files import read_text
from fatezero.data.layout import EVALUATION, RECORD, ROWS, inside, is_name, visible
from fatezero.data.manifest import Manifest
from fatezero.errors import UserError, attempt
from fatezero_eval.file_names import FAILED, ITEMS
from fatezero_eval.scoring.records import Experiment, read_experiment, read_failure, read_plan
from fatezero_eval.scoring.rows import BASELINES, Row, read_rows
from fatezero_eval.scoring.run_manifests import is_here, stated_truths, truths_of
from fatezero_eval.scoring.scoring_jobs import Render, ScoringJob, finished_jobs, job_name
from fatezero_eval.scoring.suite import by_id

T = TypeVar("T")
REASON_BYTES = 100_000  # of the file that says why something was not scored


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
        folder: the run folder.
        experiment: what was planned.
        manifest: the benchmark, if known.
        variants: names, the reference first, then as planned, then any others by name.
        edits: their ids, in the manifest's order, then any others.
        jobs: finished edits, by variant, edit and seed.
        records: by job, its `meta.json`.
        withheld: by job, why its source clip may not be read.
        rows: scores; empty where nothing was evaluated.
        missing: sentences on what was asked for and is not there.
        problems: sentences on what is there and cannot be read.
    """

    folder: Path
    experiment: Experiment
    manifest: Manifest | None
    variants: tuple[str, ...]
    edits: tuple[str, ...]
    jobs: tuple[ScoringJob, ...]
    records: Mapping[str, Mapping[str, Any]]
    withheld: Mapping[str, str]
    rows: Sequence[Row]
    missing: tuple[str, ...]
    problems: tuple[str, ...]


def read_run(folder: Path, manifest: Manifest | None, render: Render | None) -> ShownRun:
    """Read a run folder.

    Raises:
        UserError: as `write_report`.
    """
    problems: list[str] = []
    experiment = _or(Experiment(name=folder.resolve().name), attempt(partial(read_experiment, folder)), problems)
    gone = manifest is None and bool(experiment.manifest) and not is_here(experiment)
    truths = truths_of(folder, manifest, render)
    if manifest is None and experiment.manifest and not gone:
        truths = _or(truths, attempt(partial(stated_truths, folder, experiment, render)), problems)
    found = finished_jobs(folder, truths)
    problems += [f"{name}: {reason}" for name, reason in found.left_out.items()]
    rows = _known_rows(_or([], attempt(partial(_read_rows, folder)), problems), problems)
    jobs, known = list(found.jobs), truths.manifest
    planned = [experiment.reference, *experiment.settings]
    others = {job.variant for job in jobs} | {row.variant for row in rows} - {*BASELINES}
    variants = tuple(dict.fromkeys([*filter(None, planned), *sorted(others)]))
    asked = [request.id for request in known.requests] if known else []
    edits = tuple(dict.fromkeys([*asked, *(job.request.id for job in jobs)]))
    jobs.sort(key=lambda i: (variants.index(i.variant), edits.index(i.request.id), i.request.seed))
    return ShownRun(
        folder=folder,
        experiment=experiment,
        manifest=known,
        variants=variants,
        edits=edits,
        jobs=tuple(jobs),
        records=found.records,
        withheld=found.withheld,
        rows=rows,
        missing=(
            *([_gone(experiment.manifest)] if gone else []),
            *_missing(folder, jobs, variants, problems),
            *_unscored(jobs, rows, folder),
        ),
        problems=tuple(problems),
    )


def _or(instead: T, found: T | UserError, problems: list[str]) -> T:
    """What was read; where it could not be, its problem is noted and something else stands there."""
    if isinstance(found, UserError):
        problems.append(str(found))
        return instead
    return found


def _gone(manifest: str) -> str:
    return f"The manifest {manifest} is not here, so no truth is shown; name it with --manifest."


def _read_rows(folder: Path) -> list[Row]:
    scored = folder / EVALUATION / ROWS
    return read_rows(inside(folder, scored)) if scored.exists() else []


def _known_rows(rows: Sequence[Row], problems: list[str]) -> list[Row]:
    """The rows of metrics that this version knows."""
    unknown = set()
    for metric in dict.fromkeys(row.metric for row in rows):
        found = attempt(partial(by_id, metric))
        if isinstance(found, UserError):
            unknown.add(metric)
            problems.append(str(found))
    return [row for row in rows if row.metric not in unknown]


def sweeps(experiment: Experiment) -> list[Sweep]:
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


def result_folder(job: ScoringJob) -> Path:
    """The folder that holds a job's frames, masks and record."""
    return Path(job.edited.path).parent


def _missing(folder: Path, jobs: Sequence[ScoringJob], variants: Sequence[str], problems: list[str]) -> list[str]:
    """What was asked for and is not there, with the reasons that were kept; what cannot be read is noted.

    What was asked for is each variant's `plan.json`; without one, the results that any variant has.
    """
    names = {variant: [result_folder(job).name for job in jobs if job.variant == variant] for variant in variants}
    anywhere = list(dict.fromkeys(name for found in names.values() for name in found))
    sentences = []
    for variant, there in names.items():
        plan = _or(None, attempt(partial(read_plan, folder, variant)), problems) if is_name(variant) else None
        asked = anywhere if plan is None else plan
        absent = [name for name in asked if name not in there and not (folder / variant / name / RECORD).exists()]
        failures = {name: attempt(partial(read_failure, folder, folder / variant / name)) for name in absent}
        found = {name: _or("its failure is not readable", reason, problems) for name, reason in failures.items()}
        reasons = {name: reason for name, reason in found.items() if reason is not None}
        sentences += [f"{variant}/{name} failed: {reason}" for name, reason in reasons.items()]
        unmade = [name for name in absent if name not in reasons]
        if unmade:
            sentences.append(f"{variant}: {len(unmade)} of {len(asked)} results were not made: {', '.join(unmade)}.")
    return sentences


def _unscored(jobs: Sequence[ScoringJob], rows: Sequence[Row], folder: Path) -> list[str]:
    """What the evaluation left out, and the reasons that it wrote down."""
    if not rows:
        return []
    scored = {job_name(row.variant, row.edit, row.seed) for row in rows}
    absent = [job.name for job in jobs if job.name not in scored]
    if not absent:
        return []
    kept = visible(folder / EVALUATION / ITEMS, f"*{FAILED}")
    reasons = {str(_or("", attempt(partial(_reason, folder, path)), [])) for path in kept} - {""}
    stated = f" Reasons that the evaluation gave: {' '.join(sorted(reasons))}" if reasons else ""
    return [f"Not scored ({len(absent)}): {', '.join(absent)}.{stated} Run fatezero evaluate again."]


def _reason(folder: Path, path: Path) -> str:
    return read_text(inside(folder, path), REASON_BYTES)
