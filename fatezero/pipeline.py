"""From frames to edited frames: invert a clip once, edit it as often as wanted. Needs neither files nor Lightning."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, reduce
from hashlib import blake2b
from operator import or_
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fatezero.blending.mask import MaskAverage, word_attention
from fatezero.config import GB, MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.backbone import Backbone, to_bytes, to_unit_range
from fatezero.diffusion.checkpoint import pixels_per_latent
from fatezero.diffusion.ddim import Step, move, schedule
from fatezero.diffusion.denoiser import Denoiser, video_denoiser
from fatezero.diffusion.inversion import Trajectory, invert
from fatezero.diffusion.recommendations import recommended_method
from fatezero.edit_plan import EditPlan, plan_edit
from fatezero.editing import EditStep, denoise, edit
from fatezero.errors import UserError
from fatezero.results import EditResult, Inversion, Target, as_words, with_weights
from fatezero.source_attention.backends import SourceAttention
from fatezero.source_attention.budget import BackendChoice, choose_backend
from fatezero.source_attention.needs import Needs
from fatezero.system.terminal import quoted
from fatezero.types import Frames

INVERSION_VERSION = "2"  # raised when the same clip and settings are inverted to other latents
Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all
About = Mapping[str, str]  # everything that an inversion is made from
Expected = Mapping[str, tuple[tuple[int, ...], torch.dtype]]  # shape and dtype of an inversion's tensors, by name


def no_progress(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


class KeptInversions(Protocol):
    """Where inversions are kept and found again."""

    def get(
        self, about: About, device: torch.device, expected: Expected, report: Callable[[str], None]
    ) -> Mapping[str, Tensor] | None:
        """The tensors of an inversion on a device; None where it was not kept, or is not what is expected."""

    def put(self, about: About, tensors: Mapping[str, Tensor]) -> None:
        """Keep the tensors of an inversion."""


class FateZero:
    """A checkpoint that edits clips.

    Example:
        >>> editor = FateZero.load("picturebook")
        >>> result = editor.edit(frames, "a jeep on the road", "a bus on the road", edited_words=("jeep",))
        >>> write_video("bus.mp4", result.frames, 8)
    """

    def __init__(
        self,
        backbone: Backbone,
        runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008  (frozen)
        report: Callable[[str], None] = print,
        cache: KeptInversions | None = None,
        processes: int = 1,
    ) -> None:
        """Take the networks, how to run them, who is told what came of it, and where inversions are kept.

        So many processes of this kind share the machine's memory.

        With a cache the source is run again beside the edit (backend "recompute"), found or not found: what else a
        backend keeps is not in the cache, and equal requests must give equal bytes.

        Raises:
            UserError: for a cache beside a backend that keeps more than it holds.
        """
        self.backbone = backbone
        self.runtime = runtime
        self._report = report
        self._cache = cache
        self.processes = processes
        if cache is not None:
            if runtime.backend not in {"auto", "recompute"}:
                raise UserError(
                    f"Backend '{runtime.backend}' keeps attention that the cache does not hold: take backend "
                    "'recompute', or no cache."
                )
            self.runtime = replace(runtime, backend="recompute")

    @classmethod
    def load(
        cls,
        networks: str | ModelOptions = "picturebook",
        runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008  (frozen)
        report: Callable[[str], None] = print,
        cache: KeptInversions | None = None,
        processes: int = 1,
    ) -> FateZero:
        """Load a checkpoint and what is added to it, as `Backbone.load` does; the rest as for `FateZero`.

        Raises:
            UserError: if it cannot be loaded.
        """
        backbone = Backbone.load(networks, runtime)
        for note in backbone.notes:
            report(note)
        return cls(backbone, runtime, report, cache, processes)

    @cached_property
    def method(self) -> MethodConfig:
        """The configuration recommended for the checkpoint; the original's where it recommends none."""
        return recommended_method(self.backbone.checkpoint.folder, self.backbone.checkpoint.adapter)

    def edit(
        self,
        frames: Frames,
        source_prompt: str,
        target_prompt: str,
        *,
        edited_words: Sequence[str] = (),
        target_words: Sequence[str] = (),
        method: MethodConfig | None = None,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> EditResult:
        """Edit a clip.

        Args:
            frames: uint8 F,H,W,3.
            source_prompt: describes the clip.
            target_prompt: describes the edit.
            edited_words: words of the source prompt that the edit changes; without any, nothing is blended.
            target_words: words of the target prompt that stand for them; needed to blend latents by both.
            method: the configuration; None is the one recommended for the checkpoint.
            seed: seed of a sampled posterior and of SDEdit's noise.
            progress: called after every step with the stage and how far it is.

        Raises:
            UserError: for frames, words or settings that do not fit.
        """
        prompt, method = with_weights(target_prompt, self.method if method is None else method)
        target = Target(
            prompt=prompt,
            edited_words=as_words(edited_words, "edited_words"),
            target_words=as_words(target_words, "target_words"),
            seed=seed,
            method=method,
        )
        return self.edit_inverted(self.invert(frames, source_prompt, [target], progress), target, progress)

    @torch.no_grad()
    def invert(
        self,
        frames: Frames,
        prompt: str,
        targets: Sequence[Target],
        progress: Progress = no_progress,
        middle: int | None = None,
    ) -> Inversion:
        """Invert a clip for some edits that agree in what the inversion depends on.

        Args:
            frames: uint8 F,H,W,3.
            prompt: the source prompt.
            targets: the edits to come; they say what of the source's attention is kept.
            progress: called after every step.
            middle: index of the whole clip's middle frame among these, where they are a segment of it.

        Raises:
            UserError: for frames, words or settings that do not fit.
        """
        mask_downsampling = _shared_mask_downsampling(targets)
        _check_frames(frames)
        if self.backbone.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.backbone.device)
        needs = reduce(or_, (self.plan(prompt, target).needs for target in targets))
        about = self._about(frames, prompt, targets[0], (mask_downsampling, middle)) if self._cache else {}
        kept = None
        if self._cache:
            expected = self._expected(frames, prompt, targets[0].method, mask_downsampling)
            kept = self._cache.get(about, self.backbone.device, expected, self._report)
        started = time.perf_counter()
        clean = self._encode(frames, targets[0]) if kept is None else kept["clean"]
        encoded = time.perf_counter()
        method = targets[0].method
        with self._denoiser(method, len(frames), middle) as denoiser:
            choice = self._choose_backend(denoiser, clean, needs)
            trajectory = None
            if method.sdedit_strength is None and kept is not None:
                steps = schedule(self.backbone.scheduler_config, method.steps)
                trajectory = Trajectory(prompt, steps, kept["latents"], kept.get("cross_maps"), None)
            elif method.sdedit_strength is None:
                attention = choice.open(needs, self.backbone.device) if choice else None
                trajectory = self._invert(denoiser, clean, prompt, method, mask_downsampling, attention, progress)
        inversion = Inversion(
            source_frames=frames,
            prompt=prompt,
            basis=targets[0].basis,
            mask_downsampling=mask_downsampling,
            clean=clean,
            trajectory=trajectory,
            choice=choice,
            chunk=self.runtime.chunk,
            middle=middle,
            seconds={"encode": encoded - started, "inversion": time.perf_counter() - encoded},
        )
        if self._cache and kept is None:
            self._cache.put(about, _kept_tensors(inversion))
        found = ", from the cache" if kept is not None else ""
        sizes = ", ".join(f"{name} {bytes_ / GB:.3f} GB" for name, bytes_ in inversion.bytes_kept.items())
        self._report(f"kept {sizes}{found}")
        return inversion

    def _denoiser(self, method: MethodConfig, length: int, middle: int | None) -> AbstractContextManager[Denoiser]:
        return video_denoiser(self.backbone, method, length, self.runtime.chunk, middle)

    def _invert(
        self,
        denoiser: Denoiser,
        clean: Tensor,
        prompt: str,
        method: MethodConfig,
        mask_downsampling: int | None,
        attention: SourceAttention | None,
        progress: Progress,
    ) -> Trajectory:
        def on_step(index: int) -> None:
            progress("inversion", index + 1, method.steps)

        return invert(
            denoiser,
            clean,
            prompt,
            schedule(self.backbone.scheduler_config, method.steps),
            mask_downsampling,
            attention,
            on_step,
            solver_order=method.solver_order,
            feature_reuse=method.feature_reuse,
        )

    def _choose_backend(self, denoiser: Denoiser, clean: Tensor, needs: Needs) -> BackendChoice | None:
        """How the source's attention is kept; None where it is not needed. Tells the user."""
        choice = None
        if needs:
            shapes = denoiser.recording_shapes(clean)
            choice = choose_backend(self.runtime, needs, shapes, self.backbone.device, self.processes)
        source = choice or "the source's attention is not needed"
        self._report(f"{len(clean)} frames in {len(denoiser.chunks)} UNet calls a step; {source}")
        return choice

    def _encode(self, frames: Frames, target: Target) -> Tensor:
        """F,C,h,w: each frame on its own, so that its latent does not depend on its neighbours."""
        sampled = target.method.posterior == "sample"
        generator = torch.Generator().manual_seed(target.seed) if sampled else None
        return torch.cat([self.backbone.encode(to_unit_range(frame[None]), generator) for frame in frames])

    def _about(self, frames: Frames, prompt: str, target: Target, more: tuple[int | None, ...]) -> dict[str, str]:
        """Everything that an inversion is made from."""
        return {
            "version": INVERSION_VERSION,
            "checkpoint": self.backbone.checkpoint.digest,
            "networks": self.backbone.rounding,
            "frames": f"{frames.shape} {blake2b(np.ascontiguousarray(frames).data, digest_size=16).hexdigest()}",
            "prompt": prompt,
            "basis": str((*target.basis, *more)),
            "chunk": str(self.runtime.chunk),
        }

    def _expected(self, frames: Frames, prompt: str, method: MethodConfig, mask_downsampling: int | None) -> Expected:
        """The tensors of an inversion, as `_kept_tensors` gives them."""
        backbone, length = self.backbone, len(frames)
        unit = pixels_per_latent(backbone.vae.config)
        size = frames.shape[1] // unit, frames.shape[2] // unit
        clean = (length, int(backbone.vae.config.latent_channels), *size)
        expected: dict[str, tuple[tuple[int, ...], torch.dtype]] = {"clean": (clean, backbone.latent_dtype)}
        if method.sdedit_strength is None:
            steps = len(schedule(backbone.scheduler_config, method.steps))
            expected["latents"] = ((steps + 1, *clean), backbone.latent_dtype)
            for site in backbone.sites:
                if site.kind == "cross" and site.downsampling == mask_downsampling:
                    tokens = len(backbone.read_prompt(prompt, method.prompt_contexts).ids)
                    expected["cross_maps"] = ((steps, length, *site.size(*size), tokens), backbone.latent_dtype)
        return expected

    @torch.no_grad()
    def edit_inverted(self, inversion: Inversion, target: Target, progress: Progress = no_progress) -> EditResult:
        """Edit a clip from its inversion."""
        plan = self.plan(inversion.prompt, target)
        unmasked = target.mask_downsampling not in {None, inversion.mask_downsampling}
        if target.basis != inversion.basis or unmasked or (plan.needs and inversion.choice is None):
            raise UserError(
                "This edit needs another inversion: invert with its own steps, solver order, feature reuse, key "
                "frames, norm scope, posterior (and its seed), contexts of prompts, mask layers, SDEdit strength and "
                "fusion."
            )
        if target.method.blending and not target.edited_words:
            self._report("nothing is blended: no edited words were given")
        for prompt in (inversion.prompt, target.prompt):
            for word in self.backbone.read_prompt(prompt, target.method.prompt_contexts).spelled:
                self._report(f"{quoted(word)} is no word to this checkpoint, which reads it letter by letter")
        masks = MaskAverage(inversion.source_frames.shape[1:3])
        started = time.perf_counter()

        def on_step(step: EditStep) -> None:
            masks.add([step.attention_mask] if step.attention_mask else step.latent_masks)
            progress("editing", step.index + 1, len(plan.steps))

        with video_denoiser(
            self.backbone, target.method, len(inversion.clean), inversion.chunk, inversion.middle
        ) as denoiser:
            if inversion.trajectory is None:
                latents = denoise(denoiser, plan, self._noised(inversion.clean, plan, target.seed), on_step)
            else:
                latents = edit(denoiser, plan, inversion.trajectory, on_step)
        edited = time.perf_counter()
        frames = np.concatenate([to_bytes(self.backbone.decode(latent[None])) for latent in latents])
        return EditResult(
            frames=frames,
            source_frames=inversion.source_frames,
            source_prompt=inversion.prompt,
            target=target,
            latents=latents.cpu(),
            masks=masks.mean(),
            attention=self._attention(inversion, target),
            choice=inversion.choice,
            bytes_kept=inversion.bytes_kept,
            seconds={**inversion.seconds, "editing": edited - started, "decode": time.perf_counter() - edited},
            peak_memory_bytes=peak_memory(self.backbone.device),
        )

    def plan(self, source_prompt: str, target: Target) -> EditPlan:
        """Work out what an edit does at each step, before anything runs.

        Raises:
            UserError: for words that are not in their prompt, or prompts that the word map cannot align.
        """
        return plan_edit(
            self.backbone,
            target.method,
            _walked_steps(self.backbone, target.method),
            source_prompt,
            target.prompt,
            target.edited_words,
            target.target_words,
        )

    def _noised(self, clean: Tensor, plan: EditPlan, seed: int) -> Tensor:
        """Latents F,C,h,w at the noisiest level of a plan, where SDEdit starts."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float32).to(clean)
        return move(clean, noise, 1.0, plan.steps[0].ddim.alpha_noisy)

    def _attention(self, inversion: Inversion, target: Target) -> dict[str, npt.NDArray[np.float32]]:
        if inversion.trajectory is None or inversion.trajectory.cross_maps is None:
            return {}
        prompt = self.backbone.read_prompt(inversion.prompt, target.method.prompt_contexts)
        maps = inversion.trajectory.cross_maps.mean(0)
        seen = {word: word_attention(maps, prompt.tokens_of(word)) for word in target.edited_words}
        return {
            word: a.div(a.amax((1, 2), keepdim=True).clamp(min=1e-12)).float().cpu().numpy() for word, a in seen.items()
        }


def _walked_steps(backbone: Backbone, method: MethodConfig) -> tuple[Step, ...]:
    steps = schedule(backbone.scheduler_config, method.steps)
    return steps if method.sdedit_strength is None else steps[: max(1, round(method.sdedit_strength * len(steps)))]


def _shared_mask_downsampling(targets: Sequence[Target]) -> int | None:
    """The layers that all targets make masks at; None where none makes any.

    Raises:
        UserError: if the targets cannot share an inversion.
    """
    layers = {target.mask_downsampling for target in targets if target.mask_downsampling is not None}
    if any(target.basis != targets[0].basis for target in targets) or len(layers) > 1:
        raise UserError(
            "These edits cannot share an inversion: their steps, solver orders, feature reuse, key frames, norm "
            "scope, posterior (or its seed), contexts of prompts, mask layers or SDEdit strengths differ. Invert once "
            "for each."
        )
    return next(iter(layers), None)


def _check_frames(frames: Frames) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise UserError(f"frames are {frames.dtype} {frames.shape}: give at least one frame as uint8 F,H,W,3.")


def _kept_tensors(inversion: Inversion) -> dict[str, Tensor]:
    tensors = {"clean": inversion.clean}
    if inversion.trajectory is not None:
        tensors["latents"] = inversion.trajectory.latents
        if inversion.trajectory.cross_maps is not None:
            tensors["cross_maps"] = inversion.trajectory.cross_maps
    return tensors


def peak_memory(device: torch.device) -> int:
    """Peak bytes so far: of CUDA's allocator, else the process's resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # noqa: PLC0415  (not on Windows)

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kilobytes
