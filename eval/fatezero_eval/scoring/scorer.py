"""Scores jobs, all with the same metrics, networks and model that answers, and keeps their rows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from fatezero.clips.video import iter_frames, probe
from fatezero.errors import UserError, attempt
from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.loading import Networks, load_networks
from fatezero_eval.options import ScoringOptions
from fatezero_eval.scoring.checks import answerer_roles, roles_of, selected
from fatezero_eval.scoring.clip_names import unit_name
from fatezero_eval.scoring.companions import flow_between
from fatezero_eval.scoring.kept_rows import fingerprint, keep_failure, keep_rows
from fatezero_eval.scoring.metric import Metric
from fatezero_eval.scoring.one_pass import ClipScore, score
from fatezero_eval.scoring.rows import Row
from fatezero_eval.scoring.scoring_jobs import ScoringJob
from fatezero_eval.scoring.windows import ClipVersions
from fatezero_eval.vlm.answer_log import to_lines
from fatezero_eval.vlm.answerers import load_interviewer
from fatezero_eval.vlm.interview import Interviewer

Work = tuple[ScoringJob, Path]  # a job, and the file its rows go to


@dataclass(frozen=True)
class Scorer:
    """Scores jobs, all with the same metrics and networks.

    Attributes:
        metrics: the chosen metrics, in the suite's order.
        networks: the networks that the metrics look through.
        edit_mask: which mask divides inside from outside.
        interviewer: puts the questions of metrics that ask; None where none of them does.
    """

    metrics: tuple[Metric, ...]
    networks: Networks
    edit_mask: str
    interviewer: Interviewer | None = None

    @property
    def setting(self) -> str:
        """Everything beside a job that its scores depend on."""
        asked = [self.interviewer.id, self.interviewer.repeats] if self.interviewer else []
        return json.dumps([[m.id for m in self.metrics], [*self.networks.ids.values()], self.edit_mask, *asked])

    @property
    def used(self) -> dict[str, str]:
        """By role, the networks that the metrics look through."""
        wanted = roles_of(self.metrics)
        seen: dict[str, str] = {role: name for role, name in self.networks.ids.items() if role in wanted}
        return {**seen, "vlm": self.interviewer.id} if self.interviewer else seen

    def with_cache(self, folder: Path | None) -> Scorer:
        """The same, keeping embeddings and flows in a folder."""
        networks = replace(self.networks, cache=ArrayCache(folder))
        return replace(self, networks=networks, interviewer=self.interviewer and self.interviewer.with_cache(folder))

    def __call__(self, work: Work) -> None:
        """Score one job and keep its rows; a job that cannot be scored, whyever, leaves the reason instead."""
        job, file = work
        scores = attempt(partial(self._scores, job, file.stem))
        if isinstance(scores, UserError):
            keep_failure(file, scores)
        else:
            answers = to_lines(answer for found in scores for answer in found.answers)
            traces = {found.reason: found.trace for found in scores if found.trace}
            keep_rows(file, [_row(job, found) for found in scores], traces, answers)

    def _scores(self, job: ScoringJob, known: str) -> list[ClipScore]:
        """The scores of a job, whose fingerprint is known."""
        scores = score(_open(job, self.edit_mask), self.metrics, self.networks, self.interviewer)
        if fingerprint(job, self.setting) != known:
            raise UserError("its files changed while it was scored; run fatezero evaluate again.")
        return scores


def load_scorer(options: ScoringOptions) -> Scorer:
    """The metrics that a configuration names, with their networks, and this process bound to its threads.

    Raises:
        UserError: a metric or network is not usable.
    """
    torch.set_num_threads(options.threads)
    metrics = selected(options)
    networks = load_networks(options, roles_of(metrics) | answerer_roles(metrics, options))
    asks = any(metric.asks for metric in metrics)
    asked = load_interviewer(options.asking, networks.clip, options.cache, options.device) if asks else None
    return Scorer(metrics, networks, options.edit_mask, asked)


def _row(job: ScoringJob, found: ClipScore) -> Row:
    request = job.request
    return Row(
        clip=unit_name(request),
        edit=request.id,
        category=request.category,
        variant=job.variant,
        seed=request.seed,
        notes=job.notes,
        **{name: value for name, value in asdict(found).items() if name not in ("trace", "answers")},
    )


def _open(job: ScoringJob, edit_mask: str) -> ClipVersions:
    mask = job.mask if edit_mask == "given" else job.own_mask
    target = job.target_mask if edit_mask == "given" else None
    specs = {"mask": mask, "target_mask": target, "own_mask": job.own_mask, "true_edit": job.true_edit}
    outcomes = {name: attempt(partial(probe, spec)) for name, spec in specs.items() if spec}
    flow = attempt(partial(flow_between, job.true_flow, job.request.clip)) if job.true_flow else None
    problems = {name: str(found) for name, found in outcomes.items() if isinstance(found, UserError)}
    if isinstance(flow, UserError):
        problems["true_flow"] = str(flow)
    return ClipVersions(
        edited=partial(iter_frames, job.edited),
        source=partial(iter_frames, job.request.clip) if job.request.has_source else None,
        source_prompt=job.request.source_prompt,
        target_prompt=job.request.target_prompt,
        edited_words=job.request.edited_words,
        target_words=job.request.target_words,
        questions=job.questions,
        true_flow=None if isinstance(flow, UserError) else flow,
        problems=problems,
        **{name: partial(iter_frames, spec) for name, spec in specs.items() if spec and name not in problems},
    )
