"""From frames to edited frames: invert a clip once, edit it as often as wanted. Needs neither files nor Lightning."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from hashlib import blake2b
from operator import or_

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fatezero.blending.mask import WordMask, word_attention
from fatezero.cache import TrajectoryCache, cache_key
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.diffusion.backbone import Backbone, to_bytes, to_unit_range
from fatezero.diffusion.ddim import Step, move, schedule
from fatezero.diffusion.denoiser import video_denoiser
from fatezero.diffusion.inversion import Trajectory, invert
from fatezero.editing import EditPlan, EditStep, edit, plan_edit
from fatezero.errors import UserError
from fatezero.planning import GB, Choice, Shapes, choose_backend
from fatezero.settings import recommended_method
from fatezero.types import Frames

Basis = tuple[object, ...]  # see `Target.basis`
INVERSION_VERSION = "1"  # raised when the same clip and settings are inverted to other latents
Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


def no_progress(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One edit of a clip.

    Attributes:
        prompt: describes the clip as it should become.
        edited_words: words of the source prompt that the edit changes; without any, nothing is blended.
        target_words: words of this prompt that stand for them; needed to blend latents by both.
        seed: of a sampled posterior and of SDEdit's noise.
        method: the configuration.
    """

    prompt: str
    edited_words: tuple[str, ...] = ()
    target_words: tuple[str, ...] = ()
    seed: int = 0
    method: MethodConfig

    @property
    def basis(self) -> Basis:
        """What the inversion depends on: targets of one clip and source prompt that agree in it share one.

        Unless they make masks at different layers: see `mask_downsampling`.
        """
        method = self.method
        return (
            method.steps,
            method.key_frames,
            method.key_frames_min_width,
            method.norm_scope,
            self.seed if method.posterior == "sample" else None,
            method.sdedit_strength,
        )

    @property
    def mask_downsampling(self) -> int | None:
        """The layers that masks are made at; None where the edit makes none."""
        return self.method.blending.mask_downsampling if self.method.blending else None


@dataclass(frozen=True)
class Inversion:
    """A clip carried to noise, ready for its edits.

    Attributes:
        source_frames: uint8 F,H,W,3.
        prompt: the source prompt.
        basis: what of the edits' configuration it was made with.
        mask_downsampling: the layers whose cross-attention was kept for masks; None kept none.
        clean: F,C,h,w latents of the frames.
        trajectory: None where no edit needs one (SDEdit).
        choice: how the source's attention is kept; None where no edit needs it.
        chunk: frames in one UNet call, as in `RuntimeConfig`.
        middle: index of the middle frame where these are frames of a longer clip.
        seconds: of encoding and inverting.
    """

    source_frames: Frames
    prompt: str
    basis: Basis
    mask_downsampling: int | None
    clean: Tensor
    trajectory: Trajectory | None
    choice: Choice | None
    chunk: int | None
    middle: int | None
    seconds: dict[str, float]

    @property
    def bytes_kept(self) -> dict[str, int]:
        """Bytes held between inversion and edit: latents, averaged cross maps, attention."""
        trajectory = self.trajectory
        if trajectory is None:
            return {"latents": self.clean.nbytes, "cross_maps": 0, "attention": 0}
        maps = trajectory.cross_maps
        return {
            "latents": trajectory.latents.nbytes,
            "cross_maps": 0 if maps is None else maps.nbytes,
            "attention": trajectory.keeping.store.bytes_kept if trajectory.keeping else 0,
        }


@dataclass(frozen=True)
class EditResult:
    """An edited clip.

    Attributes:
        frames: uint8 F,H,W,3.
        source_frames: uint8 F,H,W,3.
        source_prompt: describes the clip.
        target: what was asked.
        latents: F,C,h,w of the edited frames.
        masks: float F,H,W in [0, 1]: share of the blended steps in which a pixel was free to change; None where
            nothing was blended.
        attention: by edited word, float F,m,n in [0, 1]: its cross-attention in the source, averaged over the
            steps, over each frame's maximum.
        choice: how the source's attention was kept; None where it was not needed.
        bytes_kept: between inversion and edit.
        seconds: by stage.
        peak_memory_bytes: of the process on the CPU, of the allocator on CUDA.
    """

    frames: Frames
    source_frames: Frames
    source_prompt: str
    target: Target
    latents: Tensor
    masks: npt.NDArray[np.float32] | None
    attention: dict[str, npt.NDArray[np.float32]]
    choice: Choice | None
    bytes_kept: dict[str, int]
    seconds: dict[str, float]
    peak_memory_bytes: int


class FateZero:
    """A checkpoint that edits clips.

    Example:
        >>> editor = FateZero.load("picturebook")
        >>> result = editor.edit(frames, "a jeep on the road", "a bus on the road", edited_words=("jeep",))
        >>> write_video("bus.mp4", result.frames, fps=8)
    """

    def __init__(
        self,
        backbone: Backbone,
        runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008  (frozen)
        report: Callable[[str], None] = print,
        cache: TrajectoryCache | None = None,
    ) -> None:
        """Take the networks, how to run them, who is told what came of it, and where inversions are kept.

        With a cache the source is run again beside the edit (backend "recompute"), found or not found: what else a
        backend keeps is not in the cache, and equal requests must give equal bytes.

        Raises:
            UserError: for a cache beside a backend that keeps more than it holds.
        """
        self.backbone = backbone
        self.runtime = runtime
        self._report = report
        self._cache = cache
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
        checkpoint: str = "picturebook",
        runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008  (frozen)
        report: Callable[[str], None] = print,
        cache: TrajectoryCache | None = None,
        motion_adapter: str | None = None,
    ) -> FateZero:
        """Load a checkpoint, and a motion adapter for it, as `Backbone.load` takes them.

        Raises:
            UserError: if it cannot be loaded.
        """
        return cls(Backbone.load(checkpoint, runtime, motion_adapter), runtime, report, cache)

    @cached_property
    def method(self) -> MethodConfig:
        """The configuration recommended for the checkpoint; the original's where it recommends none."""
        return recommended_method(self.backbone.folder, self.backbone.adapter)

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
            seed: of a sampled posterior and of SDEdit's noise.
            progress: called after every step with the stage and how far it is.

        Raises:
            UserError: for frames, words or settings that do not fit.
        """
        target = Target(
            prompt=target_prompt,
            edited_words=tuple(edited_words),
            target_words=tuple(target_words),
            seed=seed,
            method=self.method if method is None else method,
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
            middle: index of the middle frame where these are frames of a longer clip.

        Raises:
            UserError: for frames, words or settings that do not fit.
        """
        method, basis = targets[0].method, targets[0].basis
        layers = {target.mask_downsampling for target in targets if target.mask_downsampling is not None}
        if any(target.basis != basis for target in targets) or len(layers) > 1:
            raise UserError(
                "These edits cannot share an inversion: their steps, key frames, norm scope, posterior (or its seed), "
                "mask layers or SDEdit strengths differ. Invert once for each."
            )
        mask_downsampling = next(iter(layers), None)
        _check_frames(frames)
        if self.backbone.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.backbone.device)
        needs = reduce(or_, (self.plan(prompt, target).needs for target in targets))
        about = self._about(frames, prompt, targets[0], (mask_downsampling, middle)) if self._cache else {}
        kept = self._cache.get(cache_key(about), self.backbone.device) if self._cache else None
        started = time.perf_counter()
        clean = self._encode(frames, targets[0]) if kept is None else kept["clean"]
        encoded = time.perf_counter()
        with video_denoiser(self.backbone, method, len(frames), self.runtime.chunk, middle) as denoiser:
            choice = None
            if needs:
                shapes = Shapes.of(denoiser, clean, method)
                choice = choose_backend(self.runtime, needs, shapes, self.backbone.device)
            source = choice or "the source's attention is not needed"
            self._report(f"{len(frames)} frames in {len(denoiser.chunks)} UNet calls a step; {source}")
            steps = schedule(self.backbone.scheduler_config, method.steps)
            trajectory = None
            if kept is not None and method.sdedit_strength is None:
                trajectory = Trajectory(prompt, steps, kept["latents"], kept.get("cross_maps"), None)
            elif method.sdedit_strength is None:
                trajectory = invert(
                    denoiser,
                    clean,
                    prompt,
                    steps,
                    mask_downsampling,
                    choice.keeping(needs, self.backbone.device) if choice else None,
                    lambda i: progress("inversion", i + 1, method.steps),
                )
        seconds = {"encode": encoded - started, "inversion": time.perf_counter() - encoded}
        inversion = Inversion(
            frames, prompt, basis, mask_downsampling, clean, trajectory, choice, self.runtime.chunk, middle, seconds
        )
        if self._cache and kept is None:
            self._cache.put(cache_key(about), _kept_tensors(inversion), about)
        found = ", from the cache" if kept is not None else ""
        sizes = ", ".join(f"{name} {bytes_ / GB:.3f} GB" for name, bytes_ in inversion.bytes_kept.items())
        self._report(f"kept {sizes}{found}")
        return inversion

    def _encode(self, frames: Frames, target: Target) -> Tensor:
        """F,C,h,w: each frame on its own, so that its latent does not depend on its neighbours."""
        sampled = target.method.posterior == "sample"
        generator = torch.Generator().manual_seed(target.seed) if sampled else None
        return torch.cat([self.backbone.encode(to_unit_range(frame[None]), generator) for frame in frames])

    def _about(self, frames: Frames, prompt: str, target: Target, more: tuple[int | None, ...]) -> dict[str, str]:
        """Everything that an inversion is made from."""
        return {
            "version": INVERSION_VERSION,
            "checkpoint": self.backbone.digest,
            "networks": f"{self.backbone.dtype} on {self.backbone.device.type}",
            "frames": f"{frames.shape} {blake2b(np.ascontiguousarray(frames).data, digest_size=16).hexdigest()}",
            "prompt": prompt,
            "basis": str((*target.basis, *more)),
            "chunk": str(self.runtime.chunk),
        }

    @torch.no_grad()
    def edit_inverted(self, inversion: Inversion, target: Target, progress: Progress = no_progress) -> EditResult:
        """Edit a clip from its inversion."""
        plan = self.plan(inversion.prompt, target)
        unmasked = target.mask_downsampling not in {None, inversion.mask_downsampling}
        if target.basis != inversion.basis or unmasked or (plan.needs and inversion.choice is None):
            raise UserError(
                "This edit needs another inversion: invert with its own steps, key frames, norm scope, posterior (and "
                "its seed), mask layers, SDEdit strength and fusion."
            )
        if target.method.blending and not target.edited_words:
            self._report("nothing is blended: no edited words were given")
        masks = _MaskAverage(inversion.source_frames.shape[1:3])
        started = time.perf_counter()

        def on_step(step: EditStep) -> None:
            masks.add(step)
            progress("editing", step.index + 1, len(plan.steps))

        length, chunk, middle = len(inversion.clean), inversion.chunk, inversion.middle
        with video_denoiser(self.backbone, target.method, length, chunk, middle) as denoiser:
            latents = edit(denoiser, plan, self._noisy(inversion, plan, target), inversion.trajectory, on_step)
        edited = time.perf_counter()
        frames = np.concatenate([to_bytes(self.backbone.decode(latent[None])) for latent in latents])
        seconds = inversion.seconds | {"editing": edited - started, "decode": time.perf_counter() - edited}
        return EditResult(
            frames,
            inversion.source_frames,
            inversion.prompt,
            target,
            latents.cpu(),
            masks.mean(),
            self._attention(inversion, target),
            inversion.choice,
            inversion.bytes_kept,
            seconds,
            peak_memory(self.backbone.device),
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

    def _noisy(self, inversion: Inversion, plan: EditPlan, target: Target) -> Tensor:
        if inversion.trajectory is not None:
            return inversion.trajectory.latents[-1]
        generator = torch.Generator().manual_seed(target.seed)
        noise = torch.randn(inversion.clean.shape, generator=generator, dtype=torch.float32).to(inversion.clean)
        return move(inversion.clean, noise, 1.0, plan.steps[-1].alpha_noisy)

    def _attention(self, inversion: Inversion, target: Target) -> dict[str, npt.NDArray[np.float32]]:
        if inversion.trajectory is None or inversion.trajectory.cross_maps is None:
            return {}
        prompt = self.backbone.read_prompt(inversion.prompt)
        maps = inversion.trajectory.cross_maps.mean(0)
        seen = {word: word_attention(maps, prompt.tokens_of(word)) for word in target.edited_words}
        return {
            word: a.div(a.amax((1, 2), keepdim=True).clamp(min=1e-12)).float().cpu().numpy() for word, a in seen.items()
        }


def _walked_steps(backbone: Backbone, method: MethodConfig) -> tuple[Step, ...]:
    steps = schedule(backbone.scheduler_config, method.steps)
    return steps if method.sdedit_strength is None else steps[: max(1, round(method.sdedit_strength * len(steps)))]


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


class _MaskAverage:
    """Share of the blended steps in which a pixel was free to change."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._sum: Tensor | None = None
        self._steps = 0

    def add(self, step: EditStep) -> None:
        used: list[WordMask] = [step.attention_mask] if step.attention_mask else list(step.latent_masks)
        if used:
            rows, columns = used[0].attention.shape[-2:]
            free = torch.stack([mask.hard((rows, columns)) for mask in used]).any(0).float().cpu()
            self._sum = free if self._sum is None else self._sum + free
            self._steps += 1

    def mean(self) -> npt.NDArray[np.float32] | None:
        if self._sum is None:
            return None
        # Enlarging the average equals averaging enlarged masks, for a fraction of the memory.
        share: npt.NDArray[np.float32] = interpolate(self._sum[:, None] / self._steps, self._size, mode="nearest")[
            :, 0
        ].numpy()
        return share


def peak_memory(device: torch.device) -> int:
    """Peak bytes so far: of CUDA's allocator, else the process's resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # noqa: PLC0415  (not on Windows)

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kilobytes
