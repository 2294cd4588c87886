"""Scores of single frames and pairs, by the suite's own formulas: a clip's score is the mean of its curve."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from fatezero.clips.video import iter_frames, read_clip
from fatezero.types import ClipSpec, CompanionSpec, Frames
from fatezero_eval.networks.flow import Dis
from fatezero_eval.networks.given_flow import GivenFlow
from fatezero_eval.networks.loading import Networks
from fatezero_eval.scoring.companions import flow_between
from fatezero_eval.scoring.footage import Video
from fatezero_eval.scoring.scoring_jobs import ScoringJob
from fatezero_eval.scoring.suite import choose
from fatezero_eval.scoring.windows import ClipVersions, ClipWalk, in_memory

# What needs no network; `warp_error` only where the motion is known and need not be estimated.
METRICS = ("psnr/truth", "psnr/outside", "temporal_flickering", "warp_error")

Curve = list[float | None]


class EditCurves:
    """Draws the curves of one edit's variants; what they share is read once."""

    def __init__(self) -> None:
        self._frames: dict[ClipSpec | CompanionSpec, Frames] = {}
        self._flows: dict[tuple[Path, ClipSpec], GivenFlow] = {}

    def of(self, job: ScoringJob) -> dict[str, Curve]:
        """One value for each frame, or each pair of neighbours, by metric id; None where undefined.

        Raises:
            UserError: a version of the clip cannot be read, or they differ in size or length.
        """
        clip = self._open(job)
        stated = clip.stated() - clip.problems.keys()
        metrics = [
            metric
            for metric in choose(METRICS)
            if stated.issuperset(metric.needs) and (metric.network is None or clip.true_flow is not None)
        ]
        values: dict[str, Curve] = {metric.id: [] for metric in metrics}
        for window in ClipWalk(clip, Networks(flow=Dis())):
            for metric in metrics:
                assert metric.of_window is not None
                values[metric.id] += [_short(value) for value in metric.of_window(window).tolist()]
        return {name: curve for name, curve in values.items() if any(value is not None for value in curve)}

    def _open(self, job: ScoringJob) -> ClipVersions:
        return ClipVersions(
            edited=partial(iter_frames, job.edited),
            source=self._video(job.request.clip),
            source_prompt=job.request.source_prompt,
            target_prompt=job.request.target_prompt,
            mask=self._video(job.mask) if job.mask else None,
            true_edit=self._video(job.true_edit) if job.true_edit else None,
            true_flow=self._flow(job.true_flow, job.request.clip) if job.true_flow else None,
        )

    def _video(self, spec: ClipSpec | CompanionSpec) -> Video:
        if spec not in self._frames:
            self._frames[spec] = read_clip(spec).frames
        return in_memory(self._frames[spec])

    def _flow(self, path: Path, clip: ClipSpec) -> GivenFlow:
        if (path, clip) not in self._flows:
            self._flows[path, clip] = flow_between(path, clip)
        return self._flows[path, clip]


def _short(value: float) -> float | None:
    """Five digits, more than a plot can show."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
