"""What a run will take, before it starts: seconds from timed network calls, bytes from shapes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path

import torch

from fatezero.data.files import existing_parent
from fatezero.diffusion.checkpoint import Checkpoint, pixels_per_latent
from fatezero.diffusion.denoiser import Branch, video_denoiser
from fatezero.editing import EditPlan
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from fatezero.planning import GB, Shapes, choose_backend
from fatezero.tasks import Job, Task, clip_length, spread

PIXEL_BYTES = 5  # at most: a result's frames and masks as PNGs of noise, and both again as videos
REPEATS = 2


@dataclass(frozen=True)
class JobForecast:
    """What one job will take.

    Attributes:
        seconds: of a process that works on it.
        kept_bytes: latents, averaged maps and attention between inversion and edits.
        plan: backend and chunks, for people.
    """

    seconds: float
    kept_bytes: int
    plan: str


class Forecaster:
    """Times each kind of network call once and adds them up.

    Models of one run, one for each clip, count as equally fast.
    A kind is a size, a length and how frames attend; all jobs of a run are usually of few kinds.
    """

    def __init__(self, load: Callable[[Checkpoint], FateZero]) -> None:
        self._load = load
        self._loaded: Checkpoint | None = None
        self._calls: dict[object, float] = {}

    def of_job(self, job: Job) -> JobForecast:
        """Forecast one job.

        Raises:
            UserError: if its clip cannot be read or its attention does not fit.
        """
        task = job.tasks[0]
        if self._loaded != task.checkpoint:
            self._editor, self._loaded = self._load(task.checkpoint), task.checkpoint
        editor = self._editor
        method, piece = task.method, task.piece
        frames = len(piece.frames(method)) if piece else clip_length(task.request.clip)
        plans = [editor.plan(task.request.source_prompt, task.target) for task in job.tasks]
        latents = torch.randn(frames, *self._latent_shape(task), generator=torch.Generator().manual_seed(0))
        latents = latents.to(editor.backbone.device, editor.backbone.dtype)
        needs = reduce(or_, (plan.needs for plan in plans))
        middle = piece.middle(method) if piece else None
        with video_denoiser(editor.backbone, method, frames, editor.runtime.chunk, middle) as denoiser:
            text = editor.backbone.embed("")

            def call(branches: int) -> float:
                kind = (latents.shape, method.key_frames, method.norm_scope, branches)
                step = plans[0].steps[0].timestep
                return self._timed(kind, lambda: denoiser.predict([Branch(latents, text)] * branches, step))

            choice = None
            if needs:
                choice = choose_backend(
                    editor.runtime, needs, Shapes.of(denoiser, latents, method), editor.backbone.device
                )
            again = choice is not None and choice.backend == "recompute"
            inversion = 0.0 if method.sdedit_strength is not None else method.steps * call(1)
            edits = sum(_edit_seconds(plan, call, again=again) for plan in plans)
            plan = f"{len(denoiser.chunks)} UNet calls a step; {choice or 'no source attention'}"
        stages = self._autoencoder(task) * frames * (1 + len(job.tasks)) / 2
        kept = 0 if method.sdedit_strength is not None else self._trajectory_bytes(job, latents)
        return JobForecast(inversion + edits + stages, kept + (choice.predicted if choice else 0), plan)

    def _trajectory_bytes(self, job: Job, latents: torch.Tensor) -> int:
        """Latents of every step and averaged word maps, which keep at least float32."""
        task, backbone = job.tasks[0], self._editor.backbone
        steps, itemsize = task.method.steps, max(4, latents.itemsize)
        numbers = (steps + 1) * latents.numel()
        layers = {target.mask_downsampling for target in job.targets} - {None}
        sites = [site for site in backbone.sites if site.kind == "cross" and site.downsampling in layers]
        if sites:
            rows, columns = sites[0].size(latents.shape[-2], latents.shape[-1])
            numbers += steps * len(latents) * rows * columns * len(backbone.read_prompt(task.request.source_prompt).ids)
        return numbers * itemsize

    def _latent_shape(self, task: Task) -> tuple[int, int, int]:
        config, clip = self._editor.backbone.vae.config, task.request.clip
        scale = pixels_per_latent(config)
        return int(config.latent_channels), (clip.height or 0) // scale, (clip.width or 0) // scale

    def _autoencoder(self, task: Task) -> float:
        """Seconds of encoding and decoding one frame."""
        backbone = self._editor.backbone
        shape = self._latent_shape(task)
        latent = torch.zeros(1, *shape, device=backbone.device, dtype=backbone.dtype)

        def both() -> None:
            backbone.encode(backbone.decode(latent))

        return self._timed(("autoencoder", shape), both)

    @torch.no_grad()
    def _timed(self, kind: object, work: Callable[[], object]) -> float:
        """Seconds of a call; the first one of its kind warms up."""
        if kind not in self._calls:
            work()
            seconds = []
            for _ in range(REPEATS):
                _finish(self._editor.backbone.device)
                started = time.perf_counter()
                work()
                _finish(self._editor.backbone.device)
                seconds.append(time.perf_counter() - started)
            self._calls[kind] = min(seconds)
        return self._calls[kind]


def _edit_seconds(plan: EditPlan, call: Callable[[int], float], *, again: bool) -> float:
    own = 1 if plan.guidance_scale == 1 else 2
    return sum(call(own + (again and plan.fuses(index))) for index in range(len(plan.steps)))


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe_forecast(forecaster: Forecaster, jobs: Sequence[Job], workers: int) -> str:
    """What a run will take, as text.

    Args:
        forecaster: whose networks are on the device that will work.
        jobs: of the run, their clips' sizes settled.
        workers: processes that share them.

    Raises:
        UserError: for a clip, words or settings that do not fit.
    """
    jobs = [job for job in jobs if clip_length(job.tasks[0].request.clip)]  # others fail when their turn comes
    shares = [[forecaster.of_job(piece) for piece in share] for share in spread(jobs, workers)]
    everything = [forecast for share in shares for forecast in share]
    plans = dict.fromkeys(forecast.plan for forecast in everything)
    longest = max(sum(forecast.seconds for forecast in share) for share in shares)
    kept = max((forecast.kept_bytes for forecast in everything), default=0)
    return "\n".join(
        [
            *plans,
            f"predicted: {longest:.0f} s on {workers} processes, {kept / GB:.3f} GB kept at once in each, at most "
            f"{result_bytes([task for job in jobs for task in job.tasks]) / GB:.3f} GB of results",
        ]
    )


def result_bytes(tasks: Sequence[Task]) -> int:
    """The most that results can take on disk."""
    clips = [task.request.clip for task in tasks]
    return sum(PIXEL_BYTES * clip_length(clip) * (clip.height or 0) * (clip.width or 0) for clip in clips)


def check_disk(tasks: Sequence[Task], run: Path, budget: int | None) -> None:
    """Refuse a run whose results may not fit, before it starts.

    Raises:
        UserError: saying what would fit.
    """
    needed, free = result_bytes(tasks), shutil.disk_usage(existing_parent(run)).free
    limit = free if budget is None else min(budget, free)
    if needed > limit:
        raise UserError(
            f"{len(tasks)} results may take {needed / GB:.3f} GB in {run}, more than the {limit / GB:.3f} GB there: "
            f"about {int(len(tasks) * limit / needed)} would fit; take fewer edits or frames, a smaller size, or raise "
            "--disk-gb."
        )
