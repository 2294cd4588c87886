"""From frames to edited frames: invert a clip once, edit it as often as wanted. Needs no Lightning."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, reduce
from hashlib import blake2b
from operator import or_
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fatezero.attention.mask_layers import MaskLayers
from fatezero.blending.mask import MaskAverage, word_attention
from fatezero.config import GB, MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.backbone import Backbone, Denoiser, load_backbone
from fatezero.diffusion.checkpoint import least_psnr, native_size, sized
from fatezero.diffusion.inversion import Trajectory, invert
from fatezero.diffusion.moves import Step
from fatezero.diffusion.recommendations import recommended_method
from fatezero.edit_plan import EditPlan, plan_edit
from fatezero.editing import EditStep, denoise, edit, flow_edit
from fatezero.errors import UserError
from fatezero.results import EditResult, Inversion, Target, as_clip, as_words, with_weights
from fatezero.source_attention.backends import SourceAttention
from fatezero.source_attention.budget import BackendChoice, choose_backend
from fatezero.source_attention.needs import Needs
from fatezero.system.progress import Progress, chosen_progress
from fatezero.system.terminal import counted, quoted
from fatezero.types import Clip, ClipSpec, Frames

INVERSION_VERSION = "2"  # raised when the same clip and settings are inverted to other latents
Report = Callable[[str], None]  # is told a sentence
About = Mapping[str, str]  # everything that an inversion is made from
Expected = Mapping[str, tuple[tuple[int, ...], torch.dtype]]  # shape and dtype of an inversion's tensors, by name


def untold(sentence: str) -> None:
    """Says nothing."""


class KeptInversions(Protocol):
    """Where inversions are kept and found again."""

    def get(
        self, about: About, device: torch.device, expected: Expected, report: Report
    ) -> Mapping[str, Tensor] | None:
        """The tensors of an inversion on a device; None where it was not kept, or is not what is expected."""

    def put(self, about: About, tensors: Mapping[str, Tensor]) -> None:
        """Keep the tensors of an inversion."""


class FateZero:
    """A checkpoint that edits clips.

    Example:
        >>> editor = FateZero.load("picturebook")
        >>> clip = editor.read("jeep.mp4")
        >>> result = editor.edit(clip, "a jeep on the road", "a bus on the road", edited_words=("jeep",))
        >>> result.save("bus.mp4")
    """

    def __init__(
        self,
        backbone: Backbone,
        runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008  (frozen)
        report: Report = print,
        cache: KeptInversions | None = None,
        processes: int = 1,
        detail: Report = untold,
    ) -> None:
        """Take the networks, how to run them, who is told what came of it and how it is done, and the cache.

        So many processes of this kind share the machine's memory. What an edit takes inside (network calls, where the
        source's attention is, bytes kept) is told to `detail`.

        With a cache the source is run again beside the edit (backend "recompute"), found or not found: what else a
        backend keeps is not in the cache, and equal requests must give equal bytes.

        Raises:
            UserError: for a cache beside a backend that keeps more than it holds.
        """
        self.backbone = backbone
        self.runtime = runtime
        self._report = report
        self._detail = detail
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
        report: Report = print,
        cache: KeptInversions | None = None,
        processes: int = 1,
        detail: Report = untold,
    ) -> FateZero:
        """Load a checkpoint and what is added to it, as `load_backbone` does; the rest as for `FateZero`.

        Raises:
            UserError: if it cannot be loaded.
        """
        named = ModelOptions(model=networks) if isinstance(networks, str) else networks
        backbone = load_backbone(named, runtime)
        for note in backbone.notes:
            report(note)
        return cls(backbone, runtime, report, cache, processes, detail)

    @cached_property
    def method(self) -> MethodConfig:
        """The configuration recommended for the checkpoint; the original's where it recommends none."""
        return recommended_method(self.backbone.checkpoint.folder, self.backbone.checkpoint.adapter)

    def read(self, clip: str | Path | ClipSpec) -> Clip:
        """Read a clip as an edit takes it: where no size is asked for, at the checkpoint's own scale.

        What is done to the file's own frames is reported.

        Args:
            clip: a video or a folder of images; as a `ClipSpec` with what is taken of it.

        Raises:
            UserError: if it cannot be read.
        """
        from fatezero.clips.video import read_clip  # noqa: PLC0415  (imports av)

        asked = clip if isinstance(clip, ClipSpec) else ClipSpec(path=str(clip))
        read = read_clip(sized(asked, *native_size(self.backbone.checkpoint.folder)))
        reader, *changes = read.notes
        self._detail(reader)
        for change in changes:
            self._report(change)
        return read

    def edit(
        self,
        frames: Frames | Clip,
        source_prompt: str,
        target_prompt: str,
        *,
        edited_words: Sequence[str] = (),
        target_words: Sequence[str] = (),
        method: MethodConfig | None = None,
        seed: int = 0,
        progress: Progress | bool = True,
    ) -> EditResult:
        """Edit a clip.

        Args:
            frames: uint8 F,H,W,3, or a clip as `read` returns it, whose times and sound the result keeps.
            source_prompt: describes the clip.
            target_prompt: describes the edit.
            edited_words: words of the source prompt that the edit changes; without any, nothing is blended.
            target_words: words of the target prompt that stand for them, by which latents are blended; by default those
                that stand in their places.
            method: the configuration; None is the one recommended for the checkpoint.
            seed: seed of a sampled posterior, and of SDEdit's and FlowEdit's noise.
            progress: shows a bar in a terminal and in a notebook; or what is called after every step with the stage,
                the steps done and their number.

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
        on_step = chosen_progress(progress)
        return self.edit_inverted(self.invert(frames, source_prompt, [target], on_step), target, on_step)

    @torch.no_grad()
    def invert(
        self,
        frames: Frames | Clip,
        prompt: str,
        targets: Sequence[Target],
        progress: Progress | bool = True,
        middle: int | None = None,
    ) -> Inversion:
        """Invert a clip for some edits that agree in what the inversion depends on.

        Args:
            frames: as in `edit`.
            prompt: the source prompt.
            targets: the edits to come; they say what of the source's attention is kept.
            progress: as in `edit`.
            middle: index of the whole clip's middle frame among these, where they are a segment of it.

        Raises:
            UserError: for frames, words or settings that do not fit.
        """
        mask_layers, method = _shared_mask_layers(targets), targets[0].method
        source = as_clip(frames)
        frames, on_step = source.frames, chosen_progress(progress)
        if self.backbone.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.backbone.device)
        needs = reduce(or_, (self.plan(prompt, target).needs for target in targets))
        schedule = self._schedule(frames, method)
        about = self._about(frames, prompt, targets[0], (mask_layers, middle)) if self._cache else {}
        kept = None
        if self._cache:
            expected = self._expected(frames, prompt, method, mask_layers)
            kept = self._cache.get(about, self.backbone.device, expected, self._report)
        started = time.perf_counter()
        clean = self._encode(frames, targets[0]) if kept is None else kept["clean"]
        encoded = time.perf_counter()
        if middle is None:  # a segment's clip would be told of as often as it has segments
            self._tell_of_strange_frames(frames, clean, tiling=method.autoencoder_tiling)
        with self.backbone.denoiser(method, len(clean), self.runtime.chunk, middle) as denoiser:
            choice = self._choose_backend(denoiser, clean, prompt, needs)
            trajectory = None
            if method.inverts and kept is not None:
                trajectory = _kept_trajectory(prompt, schedule, kept)
            elif method.inverts:
                attention = choice.open(needs, self.backbone.device) if choice else None
                trajectory = self._invert(denoiser, clean, prompt, schedule, method, mask_layers, attention, on_step)
        inversion = Inversion(
            source=source,
            prompt=prompt,
            basis=targets[0].basis,
            mask_layers=mask_layers,
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
        self._detail(f"kept {sizes}{found}")
        return inversion

    def _invert(
        self,
        denoiser: Denoiser,
        clean: Tensor,
        prompt: str,
        schedule: tuple[Step, ...],
        method: MethodConfig,
        mask_layers: MaskLayers | None,
        attention: SourceAttention | None,
        progress: Progress,
    ) -> Trajectory:
        def on_step(index: int) -> None:
            progress("inversion", index + 1, method.steps)

        return invert(
            denoiser,
            clean,
            prompt,
            schedule,
            mask_layers,
            attention,
            on_step,
            solver_order=method.solver_order,
            feature_reuse=method.feature_reuse,
        )

    def _choose_backend(self, denoiser: Denoiser, clean: Tensor, prompt: str, needs: Needs) -> BackendChoice | None:
        """How the source's attention is kept; None where it is not needed."""
        choice = None
        if needs:
            shapes = denoiser.recording_shapes(clean, prompt)
            choice = choose_backend(self.runtime, needs, shapes, self.backbone.device, self.processes)
        source = choice or "the source's attention is not needed"
        calls = counted(len(denoiser.chunks), "network call")
        self._detail(f"{counted(len(clean), 'latent')} in {calls} a step; {source}")
        return choice

    def _schedule(self, frames: Frames, method: MethodConfig) -> tuple[Step, ...]:
        """The levels that a method walks for a clip, clean to noisy; SDEdit's and FlowEdit's end where they start."""
        steps = self.backbone.schedule(method.steps, self.backbone.latent_shape(*frames.shape[:3]))
        return steps[: method.edit_steps]

    def _encode(self, frames: Frames, target: Target) -> Tensor:
        """F,C,h,w, of which a sampled one follows from the target's seed."""
        sampled = target.method.posterior == "sample"
        generator = torch.Generator().manual_seed(target.seed) if sampled else None
        return self.backbone.encode_clip(frames, generator, tiling=target.method.autoencoder_tiling)

    def _tell_of_strange_frames(self, frames: Frames, clean: Tensor, *, tiling: bool) -> None:
        """Say so where the autoencoder gives the first frame back far worse than anything of the model's world."""
        checkpoint = self.backbone.checkpoint
        least = least_psnr(checkpoint.folder)
        if least is None or checkpoint.vae is not None:  # it is measured with the checkpoint's own autoencoder
            return
        back = self.backbone.decode_clip(clean[:1], tiling=tiling)[:1].astype(np.float64)
        psnr = 10 * np.log10(255**2 / max(1e-6, float(np.mean((back - frames[:1]) ** 2))))
        if psnr < least:
            self._report(
                f"this clip is plainly not of {self.backbone.name}'s world: its autoencoder gives the first frame back "
                f"at {psnr:.1f} dB, and 99 of 100 pictures of its world at more than {least:.1f} dB; expect little of "
                "the edit, or name a model that knows such clips (--model)"
            )

    def _about(self, frames: Frames, prompt: str, target: Target, more: tuple[object, ...]) -> dict[str, str]:
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

    def _expected(self, frames: Frames, prompt: str, method: MethodConfig, mask_layers: MaskLayers | None) -> Expected:
        """The tensors of an inversion, as `_kept_tensors` gives them."""
        backbone, steps = self.backbone, method.steps
        clean = backbone.latent_shape(*frames.shape[:3])
        shapes: dict[str, tuple[int, ...]] = {"clean": clean}
        if method.inverts:
            shapes["latents"] = (steps + 1, *clean)
            if backbone.solver(method.solver_order).asks_midway:
                shapes["midway"] = (steps, *clean)
            if mask_layers is not None:
                size = mask_layers.among(backbone.sites, backbone.name)[0].size(*clean[2:])
                tokens = len(backbone.read_prompt(prompt, method.prompt_contexts).ids)
                shapes["cross_maps"] = (steps, clean[0], *size, tokens)
        return {name: (shape, backbone.latent_dtype) for name, shape in shapes.items()}

    @torch.no_grad()
    def edit_inverted(self, inversion: Inversion, target: Target, progress: Progress | bool = True) -> EditResult:
        """Edit a clip from its inversion; progress as in `edit`."""
        plan = self.plan(inversion.prompt, target)
        unmasked = target.mask_layers not in {None, inversion.mask_layers}
        if target.basis != inversion.basis or unmasked or (plan.needs and inversion.choice is None):
            raise UserError(
                "This edit needs another inversion: invert with its own steps, solver order, feature reuse, key "
                "frames, norm scope, posterior (and its seed), contexts of prompts, mask layers, SDEdit strength, "
                "FlowEdit, windows, tiling and fusion."
            )
        self._tell_of_words(inversion, target)
        masks = MaskAverage(inversion.source.frames.shape[1:3])
        shown_progress = chosen_progress(progress)
        started = time.perf_counter()

        def on_step(step: EditStep) -> None:
            masks.add([step.attention_mask] if step.attention_mask else step.latent_masks)
            shown_progress("editing", step.index + 1, len(plan.steps))

        latents = self._edited(inversion, target, plan, on_step)
        edited = time.perf_counter()
        frames = self.backbone.decode_clip(latents, tiling=target.method.autoencoder_tiling)
        shown = list(self.backbone.latent_of_frames(len(frames)))
        share = masks.mean()
        return EditResult(
            frames=frames,
            source=inversion.source,
            source_prompt=inversion.prompt,
            target=target,
            latents=latents.cpu(),
            masks=None if share is None else share[shown],
            attention={word: seen[shown] for word, seen in self._attention(inversion, target).items()},
            choice=inversion.choice,
            bytes_kept=inversion.bytes_kept,
            seconds={**inversion.seconds, "editing": edited - started, "decode": time.perf_counter() - edited},
            peak_memory_bytes=peak_memory(self.backbone.device),
        )

    def _edited(
        self, inversion: Inversion, target: Target, plan: EditPlan, on_step: Callable[[EditStep], None]
    ) -> Tensor:
        """The edit's latents, F,C,h,w: from the inversion, or from noise where there is none."""
        method, clean = target.method, inversion.clean
        with self.backbone.denoiser(method, len(clean), inversion.chunk, inversion.middle) as denoiser:
            if inversion.trajectory is not None:
                return edit(denoiser, plan, inversion.trajectory, on_step)
            schedule, noises = self._schedule(inversion.source.frames, method), _noises(clean, target.seed)
            if plan.flow_edit is not None:
                return flow_edit(denoiser, plan, plan.flow_edit, schedule, clean, inversion.prompt, noises, on_step)
            return denoise(denoiser, plan, schedule, schedule[-1].noised(clean, next(noises)), on_step)

    def _tell_of_words(self, inversion: Inversion, target: Target) -> None:
        """Say so where no words are blended by, and which words the checkpoint does not know."""
        if target.method.blending and not target.edited_words:
            self._report("nothing is blended, as no words are named as edited: the edit may change all of the picture")
        for prompt in (inversion.prompt, target.prompt):
            for word in self.backbone.read_prompt(prompt, target.method.prompt_contexts).spelled:
                self._report(
                    f"{quoted(word)} is no word to this checkpoint, which reads it letter by letter: use words that it "
                    "knows, or another model"
                )

    def plan(self, source_prompt: str, target: Target) -> EditPlan:
        """Work out what an edit does at each step, before anything runs.

        Raises:
            UserError: for words that are not in their prompt, or prompts that the word map cannot align.
        """
        return plan_edit(
            self.backbone,
            target.method,
            target.method.edit_steps,
            source_prompt,
            target.prompt,
            target.edited_words,
            target.target_words,
        )

    def _attention(self, inversion: Inversion, target: Target) -> dict[str, npt.NDArray[np.float32]]:
        if inversion.trajectory is None or inversion.trajectory.cross_maps is None:
            return {}
        prompt = self.backbone.read_prompt(inversion.prompt, target.method.prompt_contexts)
        maps = inversion.trajectory.cross_maps.mean(0)
        seen = {word: word_attention(maps, prompt.tokens_of(word)) for word in target.edited_words}
        return {
            word: a.div(a.amax((1, 2), keepdim=True).clamp(min=1e-12)).float().cpu().numpy() for word, a in seen.items()
        }


def _noises(like: Tensor, seed: int) -> Iterator[Tensor]:
    """Seeded noise, again and again, drawn on the CPU so that it is the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like)


def _shared_mask_layers(targets: Sequence[Target]) -> MaskLayers | None:
    """The layers whose maps all targets make masks of; None where none makes any.

    Raises:
        UserError: if the targets cannot share an inversion.
    """
    layers = {target.mask_layers for target in targets if target.mask_layers is not None}
    if any(target.basis != targets[0].basis for target in targets) or len(layers) > 1:
        raise UserError(
            "These edits cannot share an inversion: their steps, solver orders, feature reuse, key frames, norm "
            "scope, posterior (or its seed), contexts of prompts, mask layers, SDEdit strengths, FlowEdit, windows or "
            "tiling differ. Invert once for each."
        )
    return next(iter(layers), None)


def _kept_tensors(inversion: Inversion) -> dict[str, Tensor]:
    tensors = {"clean": inversion.clean}
    if inversion.trajectory is not None:
        tensors["latents"] = inversion.trajectory.latents
        if inversion.trajectory.midway is not None:
            tensors["midway"] = inversion.trajectory.midway
        if inversion.trajectory.cross_maps is not None:
            tensors["cross_maps"] = inversion.trajectory.cross_maps
    return tensors


def _kept_trajectory(prompt: str, schedule: tuple[Step, ...], kept: Mapping[str, Tensor]) -> Trajectory:
    """The walk of an inversion from its kept tensors, without the source's attention."""
    return Trajectory(prompt, schedule, kept["latents"], kept.get("cross_maps"), None, kept.get("midway"))


def peak_memory(device: torch.device) -> int:
    """Peak bytes so far: of CUDA's allocator, else the process's resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # noqa: PLC0415  (not on Windows)

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kilobytes
