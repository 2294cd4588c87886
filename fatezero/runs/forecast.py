"""What a run will take, before it starts: seconds from timed network calls, bytes from shapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Protocol

import torch

from fatezero.config import GB
from fatezero.diffusion.checkpoint import Checkpoint, pixels_per_latent
from fatezero.diffusion.denoiser import Branch, Branches, video_denoiser
from fatezero.edit_plan import EditPlan
from fatezero.pipeline import FateZero
from fatezero.runs.disk_space import result_bytes
from fatezero.runs.jobs import EditJob, InversionGroup, clip_length
from fatezero.runs.scheduling import spread
from fatezero.source_attention.budget import choose_backend

REPEATS = 2


@dataclass(frozen=True)
class GroupForecast:
    """What one group will take.

    Attributes:
        seconds: how long one process works on it.
        kept_bytes: latents, averaged maps and attention between inversion and edits.
        plan: backend and chunks, for people.
    """

    seconds: float
    kept_bytes: int
    plan: str


class Forecaster:
    """Times each kind of network call once and adds them up.

    Models of one run, one for each clip, count as equally fast.
    A kind is a size, a length and how frames attend; all groups of a run are usually of few kinds.
    """

    def __init__(self, load: Callable[[Checkpoint], FateZero]) -> None:
        self._load = load
        self._loaded: Checkpoint | None = None
        self._calls: dict[object, float] = {}

    def of_group(self, group: InversionGroup) -> GroupForecast:
        """Forecast one group.

        Raises:
            UserError: if its clip cannot be read or its attention does not fit.
        """
        job = group.jobs[0]
        if self._loaded != job.checkpoint:
            self._editor, self._loaded = self._load(job.checkpoint), job.checkpoint
        editor = self._editor
        method, segment = job.method, job.segment
        frames = len(segment.frames(method)) if segment else clip_length(job.request.clip)
        plans = [editor.plan(job.request.source_prompt, job.target) for job in group.jobs]
        latents = torch.randn(frames, *self._latent_shape(job), generator=torch.Generator().manual_seed(0))
        latents = latents.to(editor.backbone.device, editor.backbone.dtype)
        needs = reduce(or_, (plan.needs for plan in plans))
        middle = segment.middle(method) if segment else None
        with video_denoiser(editor.backbone, method, frames, editor.runtime.chunk, middle) as denoiser:
            text = editor.backbone.embed("", method.prompt_contexts)

            def call(branches: int, *, reuse: bool = False) -> float:
                kind = (latents.shape, method.key_frames, method.norm_scope, method.prompt_contexts, branches, reuse)
                timestep, batch = plans[0].steps[-1].ddim.timestep, _branches(Branch(latents, text), branches)
                if reuse and kind not in self._calls:
                    denoiser.predict(batch, timestep)  # computes the features
                return self._timed(kind, lambda: denoiser.predict(batch, timestep, reuse=reuse))

            choice = None
            if needs:
                shapes = denoiser.recording_shapes(latents)
                choice = choose_backend(editor.runtime, needs, shapes, editor.backbone.device, editor.processes)
            again = choice is not None and choice.backend == "recompute"
            inversion = 0.0 if method.sdedit_strength is not None else _inversion_seconds(plans[0], call)
            edits = sum(_edit_seconds(plan, call, again=again) for plan in plans)
            plan = f"{len(denoiser.chunks)} UNet calls a step; {choice or 'no source attention'}"
        stages = self._autoencoder(job) * frames * (1 + len(group.jobs)) / 2
        kept = 0 if method.sdedit_strength is not None else self._trajectory_bytes(group, latents)
        return GroupForecast(inversion + edits + stages, kept + (choice.predicted if choice else 0), plan)

    def _trajectory_bytes(self, group: InversionGroup, latents: torch.Tensor) -> int:
        """Latents of every step and averaged word maps, which keep at least float32."""
        job, backbone = group.jobs[0], self._editor.backbone
        steps, itemsize = job.method.steps, max(4, latents.itemsize)
        numbers = (steps + 1) * latents.numel()
        layers = {target.mask_downsampling for target in group.targets} - {None}
        sites = [site for site in backbone.sites if site.kind == "cross" and site.downsampling in layers]
        if sites:
            rows, columns = sites[0].size(latents.shape[-2], latents.shape[-1])
            prompt = backbone.read_prompt(job.request.source_prompt, job.method.prompt_contexts)
            numbers += steps * len(latents) * rows * columns * len(prompt.ids)
        return numbers * itemsize

    def _latent_shape(self, job: EditJob) -> tuple[int, int, int]:
        config, clip = self._editor.backbone.vae.config, job.request.clip
        scale = pixels_per_latent(config)
        return int(config.latent_channels), (clip.height or 0) // scale, (clip.width or 0) // scale

    def _autoencoder(self, job: EditJob) -> float:
        """Seconds of encoding and decoding one frame."""
        backbone = self._editor.backbone
        shape = self._latent_shape(job)
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


class _Call(Protocol):
    """Seconds of a network call."""

    def __call__(self, branches: int, *, reuse: bool = False) -> float: ...


def _inversion_seconds(plan: EditPlan, call: _Call) -> float:
    return sum(call(1, reuse=step.reuses_features and step.source_index > 0) for step in plan.steps)


def _edit_seconds(plan: EditPlan, call: _Call, *, again: bool) -> float:
    return sum(call(1 + step.unconditional + (again and step.fuses), reuse=step.reuses_features) for step in plan.steps)


def _branches(branch: Branch, count: int) -> Branches:
    return Branches(
        conditional=branch, unconditional=branch if count > 1 else None, source=branch if count > 2 else None
    )


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class RunForecast:
    """What a run will take; as text, for people.

    Attributes:
        plans: the groups' backends and chunks, each once.
        workers: processes that share the groups.
        seconds: work of the busiest process.
        kept_bytes: the most that a process keeps between an inversion and its edits.
        result_bytes: the most that the results take on disk.
    """

    plans: tuple[str, ...]
    workers: int
    seconds: float
    kept_bytes: int
    result_bytes: int

    def __str__(self) -> str:
        return "\n".join(
            [
                *self.plans,
                f"predicted: {self.seconds:.0f} s on {self.workers} processes, {self.kept_bytes / GB:.3f} GB kept at "
                f"once in each, at most {self.result_bytes / GB:.3f} GB of results",
            ]
        )


def forecast_run(forecaster: Forecaster, groups: Sequence[InversionGroup], workers: int) -> RunForecast:
    """What a run will take.

    Args:
        forecaster: has its networks on the device that will work.
        groups: the run's groups, their clips' sizes settled.
        workers: processes that share them.

    Raises:
        UserError: for a clip, words or settings that do not fit.
    """
    groups = [group for group in groups if clip_length(group.jobs[0].request.clip)]  # others fail when their turn comes
    shares = [[forecaster.of_group(segment) for segment in share] for share in spread(groups, workers)]
    everything = [forecast for share in shares for forecast in share]
    return RunForecast(
        plans=tuple(dict.fromkeys(forecast.plan for forecast in everything)),
        workers=workers,
        seconds=max(sum(forecast.seconds for forecast in share) for share in shares),
        kept_bytes=max((forecast.kept_bytes for forecast in everything), default=0),
        result_bytes=result_bytes([job for group in groups for job in group.jobs]),
    )


def describe_forecast(forecaster: Forecaster, groups: Sequence[InversionGroup], workers: int) -> str:
    """`forecast_run` as text."""
    return str(forecast_run(forecaster, groups, workers))
