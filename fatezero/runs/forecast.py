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
from fatezero.diffusion.checkpoint import Checkpoint
from fatezero.diffusion.prediction import Branch, Branches
from fatezero.edit_plan import EditPlan
from fatezero.pipeline import FateZero
from fatezero.runs.disk_space import result_bytes
from fatezero.runs.jobs import EditJob, InversionGroup, clip_length
from fatezero.runs.scheduling import spread
from fatezero.source_attention.budget import choose_backend
from fatezero.system.terminal import counted

REPEATS = 2
LATENTS_TIMED = 2  # of a clip, by the autoencoder


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
        if segment is not None:
            editor.backbone.check_cut()
        frames = len(segment.frames(method)) if segment else clip_length(job.request.clip)
        plans = [editor.plan(job.request.source_prompt, job.target) for job in group.jobs]
        shape = self._latent_shape(job, frames)
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        latents = latents.to(editor.backbone.device, editor.backbone.dtype)
        noisiest = editor.backbone.schedule(method.steps, shape)[-1]
        needs = reduce(or_, (plan.needs for plan in plans))
        middle = segment.middle(method) if segment else None
        with editor.backbone.denoiser(method, len(latents), editor.runtime.chunk, middle) as denoiser:
            text = editor.backbone.embed("", method.prompt_contexts)

            def call(branches: int, *, reuse: bool = False) -> float:
                sees = method.key_frames, method.norm_scope, method.window_frames, method.window_overlap
                kind = (latents.shape, sees, method.prompt_contexts, branches, reuse)
                timestep, batch = noisiest.timestep, _branches(Branch(latents, text), branches)
                if reuse and kind not in self._calls:
                    denoiser.predict(batch, timestep)  # computes the features
                return self._timed(kind, lambda: denoiser.predict(batch, timestep, reuse=reuse))

            choice = None
            if needs:
                shapes = denoiser.recording_shapes(latents, job.request.source_prompt)
                choice = choose_backend(editor.runtime, needs, shapes, editor.backbone.device, editor.processes)
            again = choice is not None and choice.backend == "recompute"
            inversion = _inversion_seconds(plans[0], call) if method.inverts else 0.0
            edits = sum(_edit_seconds(plan, call, again=again) for plan in plans)
            plan = f"{counted(len(denoiser.chunks), 'network call')} a step; {choice or 'no source attention'}"
        stages = self._autoencoder(job, frames) * frames * (1 + len(group.jobs)) / 2
        kept = self._trajectory_bytes(group, latents) if method.inverts else 0
        return GroupForecast(inversion + edits + stages, kept + (choice.predicted if choice else 0), plan)

    def _trajectory_bytes(self, group: InversionGroup, latents: torch.Tensor) -> int:
        """Latents of every step and averaged word maps, which keep at least float32."""
        job, backbone = group.jobs[0], self._editor.backbone
        steps, itemsize = job.method.steps, max(4, latents.itemsize)
        numbers = (steps + 1) * latents.numel()
        if backbone.solver(job.method.solver_order).asks_midway:
            numbers += steps * latents.numel()
        layers = {target.mask_layers for target in group.targets if target.mask_layers is not None}
        for one in layers:
            rows, columns = one.among(backbone.sites, backbone.name)[0].size(latents.shape[-2], latents.shape[-1])
            prompt = backbone.read_prompt(job.request.source_prompt, job.method.prompt_contexts)
            numbers += steps * len(latents) * rows * columns * len(prompt.ids)
        return numbers * itemsize

    def _latent_shape(self, job: EditJob, frames: int) -> tuple[int, int, int, int]:
        clip = job.request.clip
        return self._editor.backbone.latent_shape(frames, clip.height or 0, clip.width or 0)

    def _autoencoder(self, job: EditJob, frames: int) -> float:
        """Seconds of encoding and decoding a frame, by the first few."""
        backbone = self._editor.backbone
        shape = self._latent_shape(job, frames)
        tiling = job.method.autoencoder_tiling
        few = torch.zeros(min(LATENTS_TIMED, shape[0]), *shape[1:], device=backbone.device, dtype=backbone.latent_dtype)

        def both() -> None:
            backbone.encode_clip(backbone.decode_clip(few, tiling=tiling), tiling=tiling)

        standing = sum(index < len(few) for index in backbone.latent_of_frames(frames))
        return self._timed(("autoencoder", few.shape, tiling), both) / standing

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
    seconds = [call(1 + step.unconditional + (again and step.fuses), reuse=step.reuses_features) for step in plan.steps]
    if plan.flow_edit is None:
        return sum(seconds)
    source = [call(1 + (step.unconditional and plan.flow_edit.source_guidance != 1)) for step in plan.difference_steps]
    edited = len(plan.difference_steps)
    return plan.flow_edit.n_avg * (sum(source) + sum(seconds[:edited])) + sum(seconds[edited:])


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
                f"predicted: {self.seconds:.0f} s on {self.workers} process{'' if self.workers == 1 else 'es'}, "
                f"{self.kept_bytes / GB:.3f} GB kept at once in each, at most {self.result_bytes / GB:.3f} GB of "
                "results",
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
