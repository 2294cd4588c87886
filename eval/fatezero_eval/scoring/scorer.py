"""Scores jobs, all with the same metrics, networks and model that answers, and keeps their rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fatezero.errors import UserError
from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.clip import NamedClip
from fatezero_eval.networks.loading import Networks, load_networks
from fatezero_eval.options import ScoringOptions
from fatezero_eval.scoring.checks import answerer_roles, roles_of, selected
from fatezero_eval.scoring.clip_names import unit_name
from fatezero_eval.scoring.kept_rows import fingerprint, keep_failure, keep_rows
from fatezero_eval.scoring.metric import Metric
from fatezero_eval.scoring.one_pass import ClipScore, scores_of
from fatezero_eval.scoring.opened_clips import opened
from fatezero_eval.scoring.rows import Row
from fatezero_eval.scoring.scoring_jobs import ScoringJob
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

    def load(self) -> None:
        """Load the judge, where it is only named.

        Raises:
            UserError: it cannot be loaded.
        """
        if isinstance(self.networks.clip, NamedClip):
            _ = self.networks.clip.loaded

    def __call__(self, works: Sequence[Work]) -> None:
        """Score jobs of one clip side by side and keep their rows.

        A job that cannot be scored, whyever, leaves the reason instead.
        """
        clips = opened([job for job, _ in works], self.edit_mask)
        found = scores_of(clips, self.metrics, self.networks, self.interviewer)
        for (job, file), scores in zip(works, found, strict=True):
            self._keep(job, file, scores)

    def _keep(self, job: ScoringJob, file: Path, scores: list[ClipScore] | UserError) -> None:
        if isinstance(scores, UserError):
            keep_failure(file, scores)
        elif fingerprint(job, self.setting) != file.stem:
            keep_failure(file, UserError("its files changed while it was scored; run fatezero evaluate again."))
        else:
            answers = to_lines(answer for found in scores for answer in found.answers)
            traces = {found.reason: found.trace for found in scores if found.trace}
            keep_rows(file, [_row(job, found) for found in scores], traces, answers)


def load_scorer(options: ScoringOptions) -> Scorer:
    """The metrics that a configuration names, with their networks, and this process bound to its threads.

    Raises:
        UserError: a metric or network is not usable.
    """
    scorer = named_scorer(options)
    scorer.load()
    return scorer


def named_scorer(options: ScoringOptions) -> Scorer:
    """As `load_scorer`, but with a judge that is loaded by `Scorer.load`: kept rows are found without it.

    Raises:
        UserError: a metric is not usable, or another network than the judge.
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
        **{name: value for name, value in vars(found).items() if name not in ("trace", "answers")},
    )
