"""What is to be done: a request under a configuration, and jobs that share an inversion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from fatezero.clips.video import probe
from fatezero.config import MethodConfig
from fatezero.data.files import content_digest, json_digest
from fatezero.data.layout import result_name
from fatezero.data.manifest import request_to_json
from fatezero.data.remote import open_input
from fatezero.diffusion.checkpoint import Checkpoint, family_in
from fatezero.diffusion.recommendations import with_settings
from fatezero.errors import UserError
from fatezero.results import Target, with_weights
from fatezero.runs.segments import Segment, cut_clip
from fatezero.types import ClipSpec, EditRequest

if TYPE_CHECKING:
    from fatezero.runs.segment_folder import SegmentFolder


@dataclass(frozen=True)
class EditJob:
    """One request under one configuration.

    Attributes:
        request: what was asked, its clip at the size it is edited at.
        method: the configuration, the request's own settings included.
        folder: where the result goes.
        checkpoint: the networks.
        segment: the part of the clip that is to be done; None is all of it.
    """

    request: EditRequest
    method: MethodConfig
    folder: Path
    checkpoint: Checkpoint
    segment: Segment | None = None

    @property
    def name(self) -> str:
        """Variant, result folder and frames, for people."""
        frames = f" frames {self.segment.start} to {self.segment.stop - 1}" if self.segment else ""
        return f"{self.folder.parent.name}/{self.folder.name}{frames}"

    @property
    def segments(self) -> SegmentFolder:
        """Where its segments are kept until all are there."""
        from fatezero.runs.segment_folder import SegmentFolder  # noqa: PLC0415  (imports torch)

        return SegmentFolder(self.folder, self.digest)

    @property
    def target(self) -> Target:
        """The same as the pipeline takes it."""
        return Target(
            prompt=self.request.target_prompt,
            edited_words=self.request.edited_words,
            target_words=self.request.target_words,
            seed=self.request.seed,
            method=self.method,
        )

    @cached_property
    def digest(self) -> str:
        """Digest of everything that decides the result: request, clip's content, configuration, checkpoint, version."""
        asked = {**request_to_json(self.request), "category": "", "settings": {}}
        asked["clip"] = {**asdict(self.request.clip), "path": local_digest(self.request.clip.path)}
        values = [version("fatezero-lab"), self.checkpoint.digest, asked, asdict(self.method)]
        return json_digest(values)


def local_digest(path: str) -> str:
    """The content digest of a clip; of one in a store, that of its copy here."""
    try:
        return content_digest(open_input(path))
    except UserError:
        return "missing"  # told when its turn comes


@dataclass(frozen=True)
class InversionGroup:
    """Jobs that share an inversion, in their order."""

    jobs: tuple[EditJob, ...]

    @property
    def targets(self) -> tuple[Target, ...]:
        """What the pipeline is told to come when it inverts."""
        return tuple(job.target for job in self.jobs)


def make_jobs(
    requests: Sequence[EditRequest],
    variants: Mapping[str, MethodConfig],
    run: Path,
    checkpoint: Callable[[EditRequest], Checkpoint],
) -> list[EditJob]:
    """Every request under every variant, in the order of variants.

    Args:
        requests: requests with sizes settled; ids may repeat with other seeds.
        variants: configurations by name.
        run: the run's folder; results go to `<run>/<variant>/<result_name of the id>`, further seeds of an id
            to the same with `@<seed>` behind it (no such name can hold an @).
        checkpoint: gives the checkpoint of each request.

    Raises:
        UserError: for settings that a request has wrong.
    """
    jobs = []
    for variant, method in variants.items():
        seen: set[str] = set()
        for request in requests:
            folder = result_name(request.id)
            name = f"{folder}@{request.seed}" if request.id in seen else folder
            seen.add(request.id)
            own = with_settings(method, request.settings, f"request {request.id}")
            prompt, own = with_weights(request.target_prompt, own)
            plain = replace(request, target_prompt=prompt)
            jobs.append(EditJob(plain, own, run / variant / name, checkpoint(request)))
    return jobs


def cut_job(job: EditJob, size: int | None) -> list[EditJob]:
    """A job on a long clip as jobs on its segments; any other as it is.

    Args:
        job: a job on a whole clip.
        size: own frames of a segment; None cuts nothing.

    Raises:
        UserError: if the clip's frames meet in other ways than through anchors.
    """
    segments = cut_clip(clip_length(job.request.clip), size, job.method) if size is not None else []
    if segments and family_in(job.checkpoint.folder).frames > 1:
        raise UserError(
            f"--segment is {size}, and the attention of {job.checkpoint.networks.model}, a transformer, ties all "
            "frames of a clip together: leave it out; of clips longer than it was trained on, windows of that length "
            "are joined."
        )
    return [replace(job, segment=segment) for segment in segments] or [job]


def clip_length(clip: ClipSpec) -> int:
    """Frames that a clip will have; none where it cannot be read, which is told when its turn comes."""
    if isinstance(clip.frames, int):
        return clip.frames
    try:
        return probe(clip).frames
    except UserError:
        return 0
