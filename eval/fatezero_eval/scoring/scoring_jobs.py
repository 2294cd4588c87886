"""What there is to score: the finished edits of a run folder with what is known of their truth, and the baselines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fatezero.data.files import json_digest
from fatezero.data.layout import FRAMES, MASKS, result_records
from fatezero.data.manifest import Manifest, request_from_json
from fatezero.errors import UserError
from fatezero.types import ClipSpec, EditRequest
from fatezero_eval.scoring.rows import BASELINES


@dataclass(frozen=True, kw_only=True)
class ScoringJob:
    """One clip, edit, variant and seed to score.

    Attributes:
        request: what was asked.
        variant: the method.
        edited: the edited frames.
        own_mask: where the method changed something; None where it wrote no mask.
        mask: where the edit belongs; None where that is not known.
        true_edit: the right result; None where it is not known.
        true_flow: `.npz` with the known motion of the source; None estimates it.
        notes: what is done to the edited frames before scoring.
    """

    request: EditRequest
    variant: str
    edited: ClipSpec
    own_mask: ClipSpec | None = None
    mask: ClipSpec | None = None
    true_edit: ClipSpec | None = None
    true_flow: Path | None = None
    notes: str = ""

    @property
    def name(self) -> str:
        """Variant, edit and seed."""
        return job_name(self.variant, self.request.id, self.request.seed)


def job_name(variant: str, edit: str, seed: int) -> str:
    """Names a job within a run."""
    return f"{variant}/{edit}/{seed}"


Render = Callable[[Mapping[str, Any], Path], Mapping[str, Any]]
"""From a manifest's `truth` and a folder to the paths of what it put there (`clip`, `mask`, `flow`, each if
known); it may find there what it put there before."""


@dataclass(frozen=True)
class Truths:
    """What a benchmark knows of the right results.

    Attributes:
        manifest: the benchmark; None if nothing is known.
        render: makes the files of a truth stated as a recipe; None where paths are stated.
        folder: where rendered files go.
    """

    manifest: Manifest | None
    render: Render | None
    folder: Path

    def of(self, request: EditRequest) -> Mapping[str, Any]:
        """Paths of the true edit (`clip`), the edit mask (`mask`) and the motion (`flow`), if known."""
        stated = self.manifest.truth.get(request.id, {}) if self.manifest else {}
        if self.render is None or not stated:
            return stated
        name = json_digest(stated, 8)
        return self.render(stated, self.folder / name)


def finished_jobs(run: Path, truths: Truths) -> list[ScoringJob]:
    """The finished edits of a run folder, by variant and folder.

    Raises:
        UserError: there is no such folder, or an edit's record is damaged.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder; check the path.")
    jobs = []
    for meta in result_records(run):
        folder = meta.parent
        try:
            request = request_from_json(json.loads(meta.read_text(encoding="utf-8"))["request"], str(meta))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{meta}: not readable as an edit's record ({error}); edit the clip again.") from error
        masks = folder / MASKS
        own_mask = ClipSpec(path=str(masks)) if masks.is_dir() else None
        edited = ClipSpec(path=str(folder / FRAMES))
        jobs.append(job_of(request, folder.parent.name, edited, truths, own_mask=own_mask))
    return jobs


def job_of(
    request: EditRequest,
    variant: str,
    edited: ClipSpec,
    truths: Truths,
    *,
    own_mask: ClipSpec | None = None,
    notes: str = "",
) -> ScoringJob:
    """The job with what is known of its truth, cut to the request's frames."""
    truth = truths.of(request)
    named = {
        name: replace(request.clip, path=str(truth[key])) if key in truth else None
        for name, key in (("mask", "mask"), ("true_edit", "clip"))
    }
    flow = Path(truth["flow"]) if "flow" in truth else None
    return ScoringJob(
        request=request,
        variant=variant,
        edited=edited,
        own_mask=own_mask,
        true_flow=flow,
        notes=notes,
        **named,
    )


def baselines(jobs: Sequence[ScoringJob]) -> list[ScoringJob]:
    """For each edit once: the source judged by its own prompt, and the source handed in as the edit."""
    found = {}
    source, no_edit = BASELINES
    for job in jobs:
        request = job.request
        # of the source it is asked to show what it shows, rather than what the edit should show
        own = replace(request, source_prompt=request.target_prompt, target_prompt=request.source_prompt)
        unedited = replace(job, edited=request.clip, own_mask=None, notes="")
        found[source, request.id, request.seed] = replace(
            unedited, request=own, variant=source, mask=None, true_edit=None
        )
        found[no_edit, request.id, request.seed] = replace(unedited, variant=no_edit)
    return [found[key] for key in sorted(found, reverse=True)]


def clip_name(clip: ClipSpec) -> str:
    """Short name of a source clip: the end of its path, and where in it the frames begin."""
    name = "/".join(Path(clip.path).parts[-2:])
    return f"{name}@{clip.start}" if clip.start else name
