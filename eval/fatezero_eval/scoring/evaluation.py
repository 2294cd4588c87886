"""From run folders, or anyone's videos, to rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from fatezero.clips.video import iter_frames
from fatezero.data.files import content_digest, json_digest
from fatezero.data.layout import EVALUATION, inside
from fatezero.data.manifest import Manifest, read_manifest
from fatezero.errors import UserError, attempt
from fatezero.system.locking import locked
from fatezero.system.publishing import clear_leftovers
from fatezero.types import ClipSpec
from fatezero_eval.file_names import CACHE, ITEMS, TRUTH
from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.flow import read_flow
from fatezero_eval.networks.loading import Networks, load_networks
from fatezero_eval.options import EvaluateRun, EvaluateVideos, ScoringOptions
from fatezero_eval.scoring.checks import roles_of, selected
from fatezero_eval.scoring.kept_rows import fingerprint, keep_failure, keep_rows, kept_failure, kept_rows
from fatezero_eval.scoring.matching import MatchReport, match_videos
from fatezero_eval.scoring.metric import Metric
from fatezero_eval.scoring.one_pass import ClipScore, score
from fatezero_eval.scoring.provenance import Provenance, edit_digest, versions, write_provenance
from fatezero_eval.scoring.rows import Row, write_rows
from fatezero_eval.scoring.scoring_jobs import Render, ScoringJob, Truths, baselines, clip_name, finished_jobs, job_of
from fatezero_eval.scoring.windows import ClipVersions

Work = tuple[ScoringJob, Path]  # a job, and the file its rows go to


@dataclass(frozen=True)
class Evaluation:
    """What came out of an evaluation.

    Attributes:
        rows: one for each job and metric, jobs in a fixed order.
        failures: by job, why it could not be scored.
        lines: path of `rows.jsonl`.
        table: path of `rows.parquet`.
        match_report: how foreign videos match the manifest; None for a run folder.
    """

    rows: tuple[Row, ...]
    failures: Mapping[str, str]
    lines: Path
    table: Path
    match_report: MatchReport | None = None


def evaluate_run(options: EvaluateRun, render: Render | None = None) -> Evaluation:
    """Score every finished edit of a run folder, with `source` and `no edit` rows beside them.

    Args:
        options: what to score and how.
        render: makes the files of a truth that a manifest states as a recipe.

    Raises:
        UserError: no finished edit can be read, or a metric, model or manifest is not usable.
    """
    manifest = read_manifest(options.manifest, options.root) if options.manifest else None
    scorer = load_scorer(options)
    out = options.out or inside(options.run, options.run / EVALUATION)
    _tidy(out)
    found = finished_jobs(options.run, Truths(manifest, render, out / TRUTH))
    if not found.scorable:
        reasons = map(": ".join, found.left_out.items())
        raise UserError("\n".join([f"{options.run}: no result of it can be scored.", *reasons]))
    evaluation = evaluate_jobs(found.scorable, options, out, manifest, scorer)
    return replace(evaluation, failures={**found.left_out, **evaluation.failures})


def evaluate_videos(options: EvaluateVideos, render: Render | None = None) -> Evaluation:
    """Score someone else's videos against a manifest, with `source` and `no edit` rows beside them.

    Edits without a usable video are reported in `match_report` and in `failures`, never dropped in silence.

    Args:
        options: what to score and how.
        render: makes the files of a truth that a manifest states as a recipe.

    Raises:
        UserError: nothing can be scored, or a metric, model or manifest is not usable.
    """
    manifest = read_manifest(options.manifest, options.root)
    scorer = load_scorer(options)
    _tidy(options.out)
    report = match_videos(manifest, options.videos, resize=options.resize, trim=options.trim)
    requests = {request.id: request for request in manifest.requests}
    truths = Truths(manifest, render, options.out / TRUTH)
    jobs, failures = [], {f"{options.method}/{m.edit}": m.problem for m in report.matches if m.problem}
    for match in report.matches:
        if match.problem or match.video is None or match.source is None or match.edited is None:
            continue
        frames = min(match.source.frames, match.edited.frames)
        request = requests[match.edit]
        request = replace(request, clip=replace(request.clip, frames=frames))
        height, width = match.source.height, match.source.width
        edited = ClipSpec(path=str(match.video), frames=frames, fit="stretch", height=height, width=width)
        job = attempt(partial(job_of, request, options.method, edited, truths, notes="; ".join(match.notes)))
        if isinstance(job, UserError):
            failures[f"{options.method}/{match.edit}"] = str(job)
        else:
            jobs.append(job)
    if not jobs:
        raise UserError("\n".join([f"{options.videos}: no video can be scored.", str(report), *failures.values()]))
    evaluation = evaluate_jobs(jobs, options, options.out, manifest, scorer)
    return replace(evaluation, match_report=report, failures={**failures, **evaluation.failures})


def evaluate_jobs(
    jobs: Sequence[ScoringJob], options: ScoringOptions, out: Path, manifest: Manifest | None, scorer: Scorer
) -> Evaluation:
    """Score jobs that were not scored yet, in one process or several, and write all rows and their provenance.

    Args:
        jobs: what to score, beside the baselines.
        options: how; `out` holds the cache unless they name one.
        out: where everything goes.
        manifest: the benchmark, for the provenance.
        scorer: what `load_scorer` made of the options.
    """
    everything = [*jobs, *baselines(jobs)]
    options = replace(options, cache=options.cache or out / CACHE)
    scorer = scorer.with_cache(options.cache)
    works = [(job, out / ITEMS / f"{fingerprint(job, scorer.setting)}.json") for job in everything]
    metrics = [metric.id for metric in scorer.metrics]
    _score_missing([(job, file) for job, file in works if kept_rows(file, job, metrics) is None], scorer, options)
    rows: list[Row] = []
    failures = {}
    for job, file in works:
        kept = kept_rows(file, job, metrics)
        if kept is not None:
            rows += kept
        else:
            failures[job.name] = kept_failure(file)
    scored = [job for job in jobs if job.name not in failures]
    with locked(out / ".rows.lock"):  # another evaluation may end at the same time: rows and provenance belong together
        lines, table = write_rows(out, rows)
        write_provenance(out, _provenance(lines, scored, scorer, options, manifest))
    return Evaluation(tuple(rows), failures, lines, table)


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
        manifest_digest=json_digest(content_digest(manifest.path)) if manifest else "",
        edits={job.request.id: edit_digest(job.request) for job in scored},
        models=scorer.used,
        edit_mask=options.edit_mask,
        metrics=tuple(metric.id for metric in scorer.metrics),
        device=options.device,
        versions=versions(),
    )


def _score_missing(missing: Sequence[Work], scorer: Scorer, options: ScoringOptions) -> None:
    if options.processes > 1 and len(missing) > 1:
        from fatezero_eval.scoring.processes import share  # noqa: PLC0415  (imports Lightning)

        share(missing, partial(load_scorer, options), options.processes, options.device)
        return
    for work in missing:
        scorer(work)


@dataclass(frozen=True)
class Scorer:
    """Scores jobs, all with the same metrics and networks.

    Attributes:
        metrics: the chosen metrics, in the suite's order.
        networks: the networks that the metrics look through.
        edit_mask: which mask divides inside from outside.
    """

    metrics: tuple[Metric, ...]
    networks: Networks
    edit_mask: str

    @property
    def setting(self) -> str:
        """Everything beside a job that its scores depend on."""
        return json.dumps([[m.id for m in self.metrics], [*self.networks.ids.values()], self.edit_mask])

    @property
    def used(self) -> dict[str, str]:
        """By role, the networks that the metrics look through."""
        wanted = roles_of(self.metrics)
        return {role: name for role, name in self.networks.ids.items() if role in wanted}

    def with_cache(self, folder: Path | None) -> Scorer:
        """The same, keeping embeddings and flows in a folder."""
        return replace(self, networks=replace(self.networks, cache=ArrayCache(folder)))

    def __call__(self, work: Work) -> None:
        """Score one job and keep its rows; a job that cannot be scored, whyever, leaves the reason instead."""
        job, file = work
        rows = attempt(partial(self._rows, job, file.stem))
        if isinstance(rows, UserError):
            keep_failure(file, rows)
        else:
            keep_rows(file, rows)

    def _rows(self, job: ScoringJob, known: str) -> list[Row]:
        """The rows of a job, whose fingerprint is known."""
        rows = [_row(job, found) for found in score(_open(job, self.edit_mask), self.metrics, self.networks)]
        if fingerprint(job, self.setting) != known:
            raise UserError("its files changed while it was scored; run fatezero evaluate again.")
        return rows


def load_scorer(options: ScoringOptions) -> Scorer:
    """The metrics that a configuration names, with their networks.

    Raises:
        UserError: a metric or network is not usable.
    """
    metrics = selected(options)
    return Scorer(metrics, load_networks(options, roles_of(metrics)), options.edit_mask)


def _row(job: ScoringJob, found: ClipScore) -> Row:
    request = job.request
    return Row(
        clip=clip_name(request.clip),
        edit=request.id,
        category=request.category,
        variant=job.variant,
        seed=request.seed,
        notes=job.notes,
        **asdict(found),
    )


def _open(job: ScoringJob, edit_mask: str) -> ClipVersions:
    mask = job.mask if edit_mask == "given" else job.own_mask
    specs = {"mask": mask, "own_mask": job.own_mask, "true_edit": job.true_edit}
    return ClipVersions(
        edited=partial(iter_frames, job.edited),
        source=partial(iter_frames, job.request.clip),
        source_prompt=job.request.source_prompt,
        target_prompt=job.request.target_prompt,
        true_flow=read_flow(job.true_flow) if job.true_flow else None,
        **{name: partial(iter_frames, spec) if spec else None for name, spec in specs.items()},
    )
