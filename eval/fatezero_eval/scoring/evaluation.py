"""From run folders, or anyone's videos, to rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from fatezero.data.files import content_digest
from fatezero.data.layout import EVALUATION, inside
from fatezero.data.manifest import Manifest, read_manifest
from fatezero.errors import UserError, attempt
from fatezero.system.locking import locked
from fatezero.system.progress import Progress, chosen_progress, no_progress
from fatezero.system.publishing import clear_leftovers
from fatezero.types import ClipSpec
from fatezero_eval.file_names import CACHE, ITEMS, TRUTH
from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.video_features import load_video_network
from fatezero_eval.options import EvaluateRun, EvaluateVideos, ScoringOptions
from fatezero_eval.scoring.asking import NO_ANSWER
from fatezero_eval.scoring.baselines import baselines
from fatezero_eval.scoring.kept_rows import fingerprint, kept_failure, kept_rows, write_answers
from fatezero_eval.scoring.matching import MatchReport, match_videos
from fatezero_eval.scoring.provenance import Provenance, edit_digest, short_digest, versions, write_provenance
from fatezero_eval.scoring.refusals import refusals
from fatezero_eval.scoring.rows import BASELINES, Row, write_rows
from fatezero_eval.scoring.run_manifests import named_manifest
from fatezero_eval.scoring.scorer import Scorer, Work, load_scorer, named_scorer
from fatezero_eval.scoring.scoring_jobs import (
    Render,
    ScoringJob,
    Truths,
    finished_jobs,
    job_of,
)
from fatezero_eval.scoring.set_distances import SetDistance, SetDistances, set_distances, write_set_distances
from fatezero_eval.vlm.answer_log import AnswerCosts

SIDE_BY_SIDE = 16  # jobs that share one reading of their clip; an evaluation that is killed loses no more of them


@dataclass(frozen=True)
class Evaluation:
    """What came out of an evaluation.

    Attributes:
        rows: one for each job and metric, jobs in a fixed order.
        failures: by job, why it could not be scored; and by job and metric, why it has no score of that metric,
            where that is not in the metric's own nature.
        lines: path of `rows.jsonl`.
        table: path of `rows.parquet`.
        match_report: how foreign videos match the manifest; None for a run folder.
        costs: what a model's answers cost; None where nothing was asked.
        notes: what the manifest states in vain.
        distances: between sets of clips; none where no video network is named.
        prompts: of the sources and of the edits, each once.
    """

    rows: tuple[Row, ...]
    failures: Mapping[str, str]
    lines: Path
    table: Path
    match_report: MatchReport | None = None
    costs: AnswerCosts | None = None
    notes: tuple[str, ...] = ()
    distances: tuple[SetDistance, ...] = ()
    prompts: tuple[str, ...] = ()


def evaluate_run(options: EvaluateRun, render: Render | None = None, progress: Progress | bool = True) -> Evaluation:
    """Score every finished edit of a run folder, with `source` and `no edit` rows beside them.

    Args:
        options: what to score and how.
        render: makes the files of a truth that a manifest states as a recipe.
        progress: shows a bar in a terminal and in a notebook; or what is called with a stage, the clips done and all.

    Raises:
        UserError: no finished edit can be read, or a metric, model or manifest is not usable.
    """
    manifest = named_manifest(options.run, options.manifest, options.root) if options.manifest else None
    scorer = named_scorer(options)
    out = options.out or inside(options.run, options.run / EVALUATION)
    _tidy(out)
    found = finished_jobs(options.run, Truths(manifest, render, out / TRUTH))
    if not found.scorable:
        reasons = map(": ".join, found.left_out.items())
        raise UserError("\n".join([f"{options.run}: no result of it can be scored.", *reasons]))
    evaluation = evaluate_jobs(found.scorable, options, out, manifest, scorer, progress)
    notes = manifest.notes if manifest else ()
    return replace(evaluation, failures={**found.left_out, **evaluation.failures}, notes=notes)


def evaluate_videos(
    options: EvaluateVideos, render: Render | None = None, progress: Progress | bool = True
) -> Evaluation:
    """Score someone else's videos against a manifest, with `source` and `no edit` rows beside them.

    Edits without a usable video are reported in `match_report` and in `failures`, never dropped in silence.

    Args:
        options: what to score and how.
        render: makes the files of a truth that a manifest states as a recipe.
        progress: shows a bar in a terminal and in a notebook; or what is called with a stage, the clips done and all.

    Raises:
        UserError: nothing can be scored, or a metric, model or manifest is not usable.
    """
    manifest = read_manifest(options.manifest, options.root).of_categories(options.categories)
    scorer = named_scorer(options)
    _tidy(options.out)
    report = match_videos(manifest, options.videos, resize=options.resize, trim=options.trim)
    requests = {request.id: request for request in manifest.requests}
    truths = Truths(manifest, render, options.out / TRUTH)
    jobs, failures = [], {f"{options.method}/{m.edit}": m.problem for m in report.matches if m.problem}
    for match in report.matches:
        if match.problem or match.video is None or match.edited is None:
            continue
        shown = match.source or match.edited
        frames = min(shown.frames, match.edited.frames)
        request = requests[match.edit]
        if request.has_source:
            request = replace(request, clip=replace(request.clip, frames=frames))
        edited = ClipSpec(path=str(match.video), frames=frames, fit=match.fit, height=shown.height, width=shown.width)
        job = attempt(partial(job_of, request, options.method, edited, truths, notes="; ".join(match.notes)))
        if isinstance(job, UserError):
            failures[f"{options.method}/{match.edit}"] = str(job)
        else:
            jobs.append(job)
    if not jobs:
        told = {match.problem for match in report.matches}
        others = [reason for reason in failures.values() if reason not in told]
        raise UserError("\n".join([f"{options.videos}: no video can be scored.", str(report), *others]))
    evaluation = evaluate_jobs(jobs, options, options.out, manifest, scorer, progress)
    failures |= evaluation.failures
    return replace(evaluation, match_report=report, failures=failures, notes=manifest.notes)


def evaluate_jobs(
    jobs: Sequence[ScoringJob],
    options: ScoringOptions,
    out: Path,
    manifest: Manifest | None,
    scorer: Scorer,
    progress: Progress | bool = True,
) -> Evaluation:
    """Score jobs that were not scored yet, in one process or several, and write all rows and their provenance.

    Args:
        jobs: what to score, beside the baselines.
        options: how; `out` holds the cache unless they name one.
        out: where everything goes.
        manifest: the benchmark, for the provenance.
        scorer: what `named_scorer` made of the options.
        progress: as in `evaluate_run`.
    """
    network = load_video_network(options.video_network, options.device) if options.video_network else None
    everything = [*jobs, *baselines(jobs)]
    options = replace(options, cache=options.cache or out / CACHE)
    scorer = scorer.with_cache(options.cache)
    works = [(job, out / ITEMS / f"{fingerprint(job, scorer.setting)}.json") for job in everything]
    metrics = [metric.id for metric in scorer.metrics]
    kept_before = {file: kept_rows(file, job, metrics) for job, file in works}
    missing = [(job, file) for job, file in works if not _is_final(kept_before[file])]
    if missing:
        scorer.load()
        _score_missing(missing, scorer, options, chosen_progress(progress, "scoring", "clip"))
    kept_now = kept_before | {file: kept_rows(file, job, metrics) for job, file in missing}
    rows: list[Row] = []
    failures: dict[str, str] = {}
    for job, file in works:
        kept = kept_now[file]
        if kept is not None:
            rows += kept
            failures |= refusals(kept, file)
        elif (reason := kept_failure(file)) not in failures.values() or job.variant not in BASELINES:
            failures[job.name] = reason  # of a clip that cannot be read once, rather than for its baselines too
    scored = [job for job in jobs if job.name not in failures]
    between = set_distances(scored, network, ArrayCache(options.cache)) if network else SetDistances()
    with locked(out / ".rows.lock"):  # another evaluation may end at the same time: rows and provenance belong together
        lines, table = write_rows(out, rows)
        costs = write_answers(out, {job.name: file for job, file in works})
        write_set_distances(out, between.values)
        write_provenance(out, _provenance(lines, scored, scorer, options, manifest))
    failures |= between.failures
    told = dict.fromkeys(
        text for job in jobs for text in (job.request.source_prompt, job.request.target_prompt) if text
    )
    return Evaluation(tuple(rows), failures, lines, table, costs=costs, distances=between.values, prompts=tuple(told))


def _is_final(rows: Sequence[Row] | None) -> bool:
    """Whether a job need not be scored again: it has rows, and none waits for an answer that did not come."""
    return rows is not None and not any(row.reason.startswith(NO_ANSWER) for row in rows)


def _tidy(out: Path) -> None:
    """Take away what killed evaluations left."""
    for folder in (out, out / ITEMS, out / TRUTH, *(out / CACHE).glob("??")):
        clear_leftovers(folder)


def _provenance(
    lines: Path, scored: Sequence[ScoringJob], scorer: Scorer, options: ScoringOptions, manifest: Manifest | None
) -> Provenance:
    return Provenance(
        rows=content_digest(lines),
        manifest=manifest.name if manifest else "",
        manifest_digest=short_digest(content_digest(manifest.path)) if manifest else "",
        edits={job.request.id: edit_digest(job.request) for job in scored},
        models=scorer.used,
        edit_mask=options.edit_mask,
        metrics=tuple(metric.id for metric in scorer.metrics),
        device=options.device,
        versions=versions(),
    )


def _score_missing(missing: Sequence[Work], scorer: Scorer, options: ScoringOptions, progress: Progress) -> None:
    groups = _by_clip(missing, min(SIDE_BY_SIDE, max(1, len(missing) // options.processes)))
    if options.processes > 1 and len(groups) > 1:
        from fatezero_eval.scoring.processes import share  # noqa: PLC0415  (imports Lightning)

        share(groups, partial(load_scorer, options), options.processes, options.device, quiet=progress is no_progress)
        return
    done = 0
    for group in groups:
        progress("", done, len(missing))
        scorer(group)
        done += len(group)
    progress("", done, len(missing))


def _by_clip(works: Sequence[Work], most: int) -> list[list[Work]]:
    """Jobs of the same clip together, at most so many of them."""
    clips: dict[ClipSpec, list[Work]] = {}
    for work in works:
        job, _ = work
        clips.setdefault(job.request.clip if job.request.has_source else job.edited, []).append(work)
    return [found[start : start + most] for found in clips.values() for start in range(0, len(found), most)]
