"""From requests and configurations to work: what belongs together, what it costs, and who does it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

from fatezero.config import MethodConfig
from fatezero.data.files import content_digest
from fatezero.data.manifest import request_to_json
from fatezero.data.remote import open_input
from fatezero.data.video import probe
from fatezero.diffusion.checkpoint import Checkpoint, fitting_size
from fatezero.errors import UserError
from fatezero.pieces import Piece, PieceFolder, cut_clip
from fatezero.pipeline import Target
from fatezero.settings import with_settings
from fatezero.types import ClipSpec, EditRequest


@dataclass(frozen=True)
class Task:
    """One request under one configuration.

    Attributes:
        request: what was asked, its clip at the size it is edited at.
        method: the configuration, the request's own settings included.
        folder: where the result goes.
        checkpoint: the networks.
        piece: the part of the clip that is to be done; None is all of it.
    """

    request: EditRequest
    method: MethodConfig
    folder: Path
    checkpoint: Checkpoint
    piece: Piece | None = None

    @property
    def name(self) -> str:
        """Variant, result folder and frames, for people."""
        frames = f" frames {self.piece.start} to {self.piece.stop - 1}" if self.piece else ""
        return f"{self.folder.parent.name}/{self.folder.name}{frames}"

    @property
    def pieces(self) -> PieceFolder:
        """Where its pieces are kept until all are there."""
        return PieceFolder(self.folder, self.digest)

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
        """Of everything that decides the result: request, clip's content, configuration, checkpoint, version."""
        asked = {**request_to_json(self.request), "category": "", "settings": {}}
        asked["clip"] = {**asdict(self.request.clip), "path": _content(self.request.clip.path)}
        values = [version("fatezero-lab"), self.checkpoint.digest, asked, asdict(self.method)]
        return blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def _content(path: str) -> str:
    try:
        return content_digest(open_input(path))
    except UserError:
        return "missing"  # told when its turn comes


@dataclass(frozen=True)
class Job:
    """Tasks that share an inversion, in their order."""

    tasks: tuple[Task, ...]

    @property
    def targets(self) -> tuple[Target, ...]:
        """What the pipeline is told to come when it inverts."""
        return tuple(task.target for task in self.tasks)


def make_tasks(
    requests: Sequence[EditRequest],
    variants: Mapping[str, MethodConfig],
    run: Path,
    checkpoint: Callable[[EditRequest], Checkpoint],
) -> list[Task]:
    """Every request under every variant, in the order of variants.

    Args:
        requests: with sizes settled; ids may repeat with other seeds.
        variants: configurations by name.
        run: the run's folder; results go to `<run>/<variant>/<id>`, further seeds of an id to `<id>@<seed>`
            (no id can hold an @).
        checkpoint: of each request.

    Raises:
        UserError: for settings that a request has wrong.
    """
    tasks = []
    for variant, method in variants.items():
        seen: set[str] = set()
        for request in requests:
            name = f"{request.id}@{request.seed}" if request.id in seen else request.id
            seen.add(request.id)
            own = with_settings(method, request.settings, f"request {request.id}")
            tasks.append(Task(request, own, run / variant / name, checkpoint(request)))
    return tasks


def cut_task(task: Task, size: int | None) -> list[Task]:
    """A task on a long clip as tasks on its pieces; any other as it is.

    Args:
        task: on a whole clip.
        size: own frames of a piece; None cuts nothing.

    Raises:
        UserError: if the clip's frames meet in other ways than through anchors.
    """
    pieces = cut_clip(clip_length(task.request.clip), size, task.method) if size is not None else []
    return [replace(task, piece=piece) for piece in pieces] or [task]


def share_inversions(tasks: Iterable[Task]) -> list[Job]:
    """Put tasks together that can share an inversion, in order of first appearance.

    Tasks that make masks at different layers cannot; those that make none join any.
    """
    groups: dict[object, dict[int | None, list[Task]]] = {}
    for task in tasks:
        basis = (task.checkpoint, task.request.clip, task.piece, task.request.source_prompt, task.target.basis)
        groups.setdefault(basis, {}).setdefault(task.target.mask_downsampling, []).append(task)
    jobs = []
    for by_layer in groups.values():
        unmasked = by_layer.pop(None, [])
        first, *others = by_layer.values() or [[]]
        jobs += [Job(tuple(first + unmasked)), *(Job(tuple(group)) for group in others)]
    return jobs


def cost(job: Job) -> int:
    """Work of a job in frames through the UNet: inversion, then each edit with its unconditional branch."""
    task, first = job.tasks[0], job.tasks[0].method
    frames = len(task.piece.frames(first)) if task.piece else clip_length(task.request.clip)
    inversion = 0 if first.sdedit_strength is not None else first.steps
    edits = sum(
        round(task.method.steps * (task.method.sdedit_strength or 1)) * (2 if task.method.guidance_scale != 1 else 1)
        for task in job.tasks
    )
    return frames * (inversion + edits)


def clip_length(clip: ClipSpec) -> int:
    """Frames that a clip will have; none where it cannot be read, which is told when its turn comes."""
    if clip.frames is not None:
        return clip.frames
    try:
        return probe(clip).frames
    except UserError:
        return 0


def spread(jobs: Sequence[Job], workers: int) -> list[list[Job]]:
    """Share jobs among workers so that they finish together: costliest first, each to the least loaded worker.

    A job that is more than its fair share is cut between its tasks, and each piece inverts for itself. (Graham's
    longest-processing-time rule: at most 4/3 of the best possible.)
    """
    fair = sum(cost(job) for job in jobs) / workers
    pieces = [piece for job in jobs for piece in _cut(job, fair)]
    costs = [cost(piece) for piece in pieces]
    shares: list[list[int]] = [[] for _ in range(workers)]
    load = [0] * workers
    for index in sorted(range(len(pieces)), key=lambda i: -costs[i]):
        worker = load.index(min(load))
        shares[worker].append(index)
        load[worker] += costs[index]
    return [[pieces[index] for index in sorted(share)] for share in shares]


def _cut(job: Job, fair: float) -> list[Job]:
    if len(job.tasks) == 1 or cost(job) <= fair:
        return [job]
    half = len(job.tasks) // 2
    return _cut(Job(job.tasks[:half]), fair) + _cut(Job(job.tasks[half:]), fair)


def sized(spec: ClipSpec, native: int, unit: int) -> ClipSpec:
    """The clip at a checkpoint's own scale, where the request leaves the size open; one side given decides the other.

    Raises:
        UserError: if the clip cannot be read.
    """
    if spec.height is not None and spec.width is not None:
        return spec
    own = probe(replace(spec, height=None, width=None))
    if spec.height is not None:
        return replace(spec, width=max(round(own.width * spec.height / own.height / unit), 1) * unit)
    if spec.width is not None:
        return replace(spec, height=max(round(own.height * spec.width / own.width / unit), 1) * unit)
    height, width = fitting_size(own.height, own.width, native, unit)
    return replace(spec, height=height, width=width)
