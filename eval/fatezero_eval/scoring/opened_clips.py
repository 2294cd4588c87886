"""Jobs as clips in all their versions; what several of them state alike is opened once, as one video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from fatezero.clips.video import iter_frames
from fatezero.errors import UserError, attempt
from fatezero.types import ClipSpec, CompanionSpec
from fatezero_eval.networks.given_flow import GivenFlow
from fatezero_eval.scoring.companions import flow_between
from fatezero_eval.scoring.footage import Video
from fatezero_eval.scoring.scoring_jobs import ScoringJob
from fatezero_eval.scoring.windows import ClipVersions

OpenVideo = Callable[[ClipSpec | CompanionSpec], Video]
OpenFlow = Callable[[Path, ClipSpec], GivenFlow | UserError]


def opened(jobs: Sequence[ScoringJob], edit_mask: str) -> list[ClipVersions]:
    """What is needed to judge each of some jobs; what cannot be read shows when it is.

    Args:
        jobs: the edits.
        edit_mask: which mask divides inside from outside, "given" or "own".
    """

    @cache
    def video(spec: ClipSpec | CompanionSpec) -> Video:
        return partial(iter_frames, spec)

    @cache
    def flow(file: Path, clip: ClipSpec) -> GivenFlow | UserError:
        return attempt(partial(flow_between, file, clip))

    return [_versions(job, edit_mask, video, flow) for job in jobs]


def _versions(job: ScoringJob, edit_mask: str, video: OpenVideo, flow: OpenFlow) -> ClipVersions:
    request = job.request
    mask = job.mask if edit_mask == "given" else job.own_mask
    target = job.target_mask if edit_mask == "given" else None
    specs = {"mask": mask, "target_mask": target, "own_mask": job.own_mask, "true_edit": job.true_edit}
    known = flow(job.true_flow, request.clip) if job.true_flow else None
    return ClipVersions(
        edited=video(job.edited),
        source=video(request.clip) if request.has_source else None,
        source_prompt=request.source_prompt,
        target_prompt=request.target_prompt,
        edited_words=request.edited_words,
        target_words=request.target_words,
        questions=job.questions,
        true_flow=None if isinstance(known, UserError) else known,
        problems={"true_flow": str(known)} if isinstance(known, UserError) else {},
        **{name: video(spec) for name, spec in specs.items() if spec},
    )
