"""What there is to score: the finished edits of a run folder with what is known of their truth, and the baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fatezero.data.files import IRREGULAR, MISSING, content_digest, json_digest
from fatezero.data.layout import FRAMES, MASKS, RECORD, inside, lies_inside, result_records
from fatezero.data.manifest import Manifest, request_from_json
from fatezero.data.remote import is_remote, open_input
from fatezero.errors import UserError, attempt
from fatezero.system.terminal import quoted
from fatezero.types import ClipSpec, CompanionSpec, EditRequest, MaskSpec
from fatezero_eval.scoring.clip_names import clip_name
from fatezero_eval.scoring.companions import companions_of
from fatezero_eval.scoring.records import read_record
from fatezero_eval.scoring.rows import BASELINES
from fatezero_eval.vlm.questions import StatedQuestions


@dataclass(frozen=True, kw_only=True)
class ScoringJob:
    """One clip, edit, variant and seed to score.

    Attributes:
        request: what was asked.
        variant: the method.
        edited: the edited frames.
        own_mask: where the method changed something; None where it wrote no mask.
        mask: where the edit belongs; None where that is not known.
        target_mask: where it belongs in the edited frames; None where that is where it belongs in the source.
        true_edit: the right result; None where it is not known.
        true_flow: `.npz` with the known motion of the source; None estimates it.
        questions: the benchmark's own questions about the edit; None where it states none.
        notes: what is done to the edited frames before scoring.
    """

    request: EditRequest
    variant: str
    edited: ClipSpec
    own_mask: CompanionSpec | None = None
    mask: CompanionSpec | None = None
    target_mask: CompanionSpec | None = None
    true_edit: CompanionSpec | None = None
    true_flow: Path | None = None
    questions: StatedQuestions | None = None
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
        run: the run folder that the manifest came with, whose files alone it may name; None where it lies elsewhere.
        named: whether the user named the manifest, and so the clips that it names.
    """

    manifest: Manifest | None
    render: Render | None
    folder: Path
    run: Path | None = None
    named: bool = True

    def of(self, request: EditRequest) -> Mapping[str, Any]:
        """Paths of the true edit (`clip`), the edit mask (`mask`) and the motion (`flow`), if known.

        Raises:
            UserError: a recipe that cannot be rendered, or a path out of the run that the manifest came with.
        """
        stated = self.manifest.truth.get(request.id, {}) if self.manifest else {}
        if self.render is not None and stated:
            stated = self.render(stated, self.folder / json_digest(stated, 8))
        for path in (Path(stated[key]) for key in ("clip", "mask", "target_mask", "flow") if key in stated):
            if path.is_relative_to(self.folder):  # which an earlier evaluation, whoever's, may have filled
                inside(self.folder, path)
            if self.run is not None:
                inside(self.run, path)
        return stated

    def questions_about(self, request: EditRequest) -> StatedQuestions | None:
        """The manifest's own questions about an edit, if it states any, as a benchmark does or beside its truth."""
        known = self.manifest
        return (
            StatedQuestions.of({**known.truth.get(request.id, {}), **known.extras.get(request.id, {})})
            if known
            else None
        )

    def clip_of(self, request: EditRequest, digest: str) -> str | None:
        """Where the manifest that the user named has a request's clip; None if it has none.

        Args:
            request: as the result's record states it; its clip may have lain elsewhere.
            digest: of the content of the clip that was edited; empty where the record does not say.

        Raises:
            UserError: it has another one, to which its truth belongs.
        """
        if self.manifest is None or not self.named:
            return None
        path = next((known.clip.path for known in self.manifest.requests if known.id == request.id), None)
        if not path or path == request.clip.path:
            return path or None
        same_place = not is_remote(path) and _leads_to(Path(request.clip.path), Path(path))
        same_name = clip_name(replace(request.clip, path=path)) == clip_name(request.clip)
        if same_place or (content_of(path) == digest if digest else same_name):
            return path
        raise UserError(
            f"its source clip is {quoted(request.clip.path)}, but the manifest's edit of that id is of {quoted(path)}: "
            "give the manifest that it was made with."
        )


@dataclass(frozen=True)
class FinishedJobs:
    """The finished edits of a run folder.

    Attributes:
        jobs: by variant and folder.
        records: by job, its `meta.json`.
        withheld: by job, why its source clip may not be read; such a job can be shown without it, but not scored.
        problems: by `<variant>/<folder>`, why a result is none of the jobs.
    """

    jobs: tuple[ScoringJob, ...]
    records: Mapping[str, Mapping[str, Any]]
    withheld: Mapping[str, str]
    problems: Mapping[str, str]

    @property
    def scorable(self) -> list[ScoringJob]:
        """The jobs whose source may be read."""
        return [job for job in self.jobs if job.name not in self.withheld]

    @property
    def left_out(self) -> dict[str, str]:
        """Why jobs and results cannot be scored."""
        return {**self.problems, **self.withheld}


def finished_jobs(run: Path, truths: Truths) -> FinishedJobs:
    """The finished edits of a run folder; one that is damaged, or leads out of the folder, costs no other.

    Raises:
        UserError: there is no such folder, or no result in it that can be read.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder; check the path.")
    jobs: dict[str, ScoringJob] = {}
    records, withheld, problems = {}, {}, {}
    for meta in result_records(run):
        folder = meta.parent
        place = f"{folder.parent.name}/{folder.name}"
        found = attempt(partial(_finished, run, folder, truths))
        if isinstance(found, UserError):
            problems[place] = str(found)
            continue
        job, record, reason = found
        if job.name in jobs:
            taken = Path(jobs[job.name].edited.path).parent.name
            problems[place] = f"{folder} holds the same edit and seed as {taken}: take one of them away."
            continue
        jobs[job.name], records[job.name] = job, record
        if reason:
            withheld[job.name] = reason
    if not jobs and not problems:
        raise UserError(f"{run}: no finished edit (<variant>/<edit id>/{RECORD}); edit some clips first.")
    if not jobs:
        raise UserError("\n".join([f"{run}: no result of it can be read.", *map(": ".join, problems.items())]))
    return FinishedJobs(tuple(jobs.values()), records, withheld, problems)


def _finished(run: Path, folder: Path, truths: Truths) -> tuple[ScoringJob, Mapping[str, Any], str]:
    """The job of a result folder, its record, and why its source may not be read; empty if it may."""
    if folder.parent.name in BASELINES:
        raise UserError(f"{folder.parent} is called as a baseline is: give the variant another name.")
    meta = folder / RECORD
    record = read_record(run, meta)
    request = request_from_json(record.get("request", {}), str(meta))
    source = attempt(partial(_source, run, request, record.get("clip_digest", ""), truths))
    if not isinstance(source, UserError):
        request = replace(request, clip=source)
    masks = inside(run, folder / MASKS)
    edited = ClipSpec(path=str(inside(run, folder / FRAMES)))
    own_mask = CompanionSpec(clip=edited, content=MaskSpec(path=str(masks))) if masks.is_dir() else None
    job = job_of(request, folder.parent.name, edited, truths, own_mask=own_mask)
    return job, record, str(source) if isinstance(source, UserError) else ""


def _source(run: Path, request: EditRequest, digest: str, truths: Truths) -> ClipSpec:
    """A result's source clip, if it may be read: a record could name any file, and any address.

    It may where it lies in the run, where the manifest that the user named has it, and where the record states the
    digest of its content: whoever states that has read it before.
    """
    clip = request.clip
    named = truths.clip_of(request, digest)
    if named is not None:
        return replace(clip, path=named)
    remedy = "give --manifest with the edits, whose clips are read"
    if is_remote(clip.path):
        raise UserError(f"its source clip {quoted(clip.path)} is not fetched, as its record alone names it: {remedy}.")
    local = Path(clip.path)
    if lies_inside(run, local):
        inside(run, local)
        return clip
    if not digest:
        raise UserError(
            f"its source clip {quoted(clip.path)} lies outside the run, and its record does not state the clip's "
            f"content (clip_digest): {remedy}."
        )
    if digest in (MISSING, IRREGULAR) or content_of(clip.path) != digest:
        raise UserError(f"its source clip {quoted(clip.path)} is not the one that was edited, or is gone: {remedy}.")
    return clip


def _leads_to(path: Path, other: Path) -> bool:
    try:
        return path.resolve() == other.resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, a null byte
        return False


def content_of(path: str) -> str:
    """Digest of the content of a file or folder, here or in a store."""
    try:
        return content_digest(open_input(path))
    except (UserError, OSError):
        return MISSING


def job_of(
    request: EditRequest,
    variant: str,
    edited: ClipSpec,
    truths: Truths,
    *,
    own_mask: CompanionSpec | None = None,
    notes: str = "",
) -> ScoringJob:
    """The job with what is known of its truth, cut to the request's frames."""
    truth = truths.of(request)
    return ScoringJob(
        request=request,
        variant=variant,
        edited=edited,
        own_mask=own_mask,
        true_flow=_flow(truth["flow"]) if "flow" in truth else None,
        questions=truths.questions_about(request),
        notes=notes,
        **companions_of(request, truth),
    )


def _flow(path: str) -> Path:
    return open_input(path) if is_remote(path) else Path(path)  # one that is missing is told when it is read
