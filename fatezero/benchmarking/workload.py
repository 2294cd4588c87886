"""The work that benchmarks measure: inversion and edit of seeded latents, and the network calls it contains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fatezero.attention.mask_layers import mask_layers
from fatezero.benchmarking.random_checkpoint import WIDTHS, random_motion, random_pipeline
from fatezero.benchmarking.random_wan import WAN_FRAMES, WAN_SHAPES, random_wan
from fatezero.benchmarking.stock import stock_calls
from fatezero.config import BlendingConfig, FusionConfig, KeyFrame, MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.backbone import Backbone, Denoiser
from fatezero.diffusion.backbone import load_backbone as load_checkpoint
from fatezero.diffusion.checkpoint import Checkpoint
from fatezero.diffusion.compiling import compile_blocks
from fatezero.diffusion.devices import choose_device, choose_dtype
from fatezero.diffusion.inversion import Trajectory, invert
from fatezero.diffusion.model_families.transformer_loading import transformer_backbone
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.model_families.wan import WanNetworks
from fatezero.diffusion.moves import Step
from fatezero.diffusion.prediction import Branch, Branches
from fatezero.edit_plan import EditPlan, plan_edit
from fatezero.editing import edit
from fatezero.source_attention.budget import BackendChoice, choose_backend

SOURCE, TARGET = "a silver jeep on the road", "a red sports car on the road"
EDITED_WORDS = ("silver", "jeep")


def load_backbone(model: str, runtime: RuntimeConfig) -> Backbone:
    """A checkpoint, or a random one by its size in `WIDTHS` or `WAN_SHAPES`.

    Raises:
        UserError: if it cannot be loaded.
    """
    named = ModelOptions(model=model)
    if model in WAN_SHAPES:
        dtype = choose_dtype(runtime.dtype, choose_device(runtime.device))
        networks = WanNetworks(model, random_wan(model, dtype))  # type: ignore[arg-type]
        return transformer_backbone(networks, Checkpoint(named, Path()), runtime, WAN_FRAMES)
    if model in WIDTHS:
        device = choose_device(runtime.device)
        pipe = random_pipeline(model, choose_dtype(runtime.dtype, device))  # type: ignore[arg-type]
        backbone = UNetBackbone.of_pipeline(pipe, Checkpoint(named, Path()), device)
        return with_compiled(backbone) if runtime.compile else backbone
    return load_checkpoint(named, runtime)


def plain_method(backbone: Backbone, steps: int, key_frames: tuple[KeyFrame, ...] | None = None) -> MethodConfig:
    """The method that a model is measured under: the original's beside a UNet, what is plain beside a transformer."""
    if isinstance(backbone, UNetBackbone):
        return MethodConfig(steps=steps, key_frames=key_frames or MethodConfig().key_frames)
    joint = any(site.kind == "joint" for site in backbone.sites)  # the prompt's part stays the edit's own
    return MethodConfig(
        steps=steps,
        key_frames=key_frames or ("self",),
        norm_scope="frame",
        fusion=FusionConfig(min_downsampling=1, cross_window=None if joint else FusionConfig().cross_window),
        blending=BlendingConfig(mask_downsampling=backbone.sites[0].downsampling),
    )


def with_random_motion(backbone: UNetBackbone) -> UNetBackbone:
    """The same with random motion modules in its UNet, compiled if it is.

    Raises:
        UserError: if this machine cannot compile.
    """
    moving = replace(backbone, unet=random_motion(backbone.unet), compiled=False)
    return with_compiled(moving) if backbone.compiled else moving


def with_compiled(backbone: UNetBackbone) -> UNetBackbone:
    """The same networks, the UNet's blocks compiled in place as `--compile` does it.

    Raises:
        UserError: if this machine cannot compile.
    """
    compile_blocks(backbone.unet, backbone.name)
    return replace(backbone, compiled=True)


def random_latents(backbone: Backbone, frames: int, height: int, width: int) -> Tensor:
    """Seeded F,C,h,w for a clip of a size in pixels.

    Raises:
        UserError: if such a clip does not fit the networks.
    """
    generator = torch.Generator().manual_seed(0)
    shape = backbone.latent_shape(frames, height, width)
    return torch.randn(shape, generator=generator).to(backbone.device, backbone.latent_dtype)


@dataclass(frozen=True)
class EditWorkload:
    """One clip's inversion and edit.

    Attributes:
        backbone: the networks.
        method: the method's configuration.
        clean: F,C,h,w of the clip.
    """

    backbone: Backbone
    method: MethodConfig
    clean: Tensor

    @torch.no_grad()
    def stock(self) -> None:
        """Call diffusers' own network as often as the job needs it, and do nothing else.

        Its own attention processors and norms, no key frames; one branch a step to invert, and to edit the two branches
        of classifier-free guidance.
        """
        with stock_calls(self.backbone, self.clean, self.backbone.embed(SOURCE)) as call:
            for branches, step in self._calls():
                call(branches, step.timestep)

    @torch.no_grad()
    def bare(self) -> None:
        """The same calls with our attention, key frames and norms: nothing is recorded, masked or fused."""
        backbone = self.backbone
        conditional = Branch(self.clean, backbone.embed(SOURCE))
        unconditional = Branch(self.clean, backbone.embed_negative(""))
        with backbone.denoiser(self.method, len(self.clean), None) as denoiser:
            for branches, step in self._calls():
                pair = Branches(conditional=conditional, unconditional=unconditional if branches == 2 else None)
                denoiser.predict(pair, step.timestep)

    def _calls(self) -> Iterator[tuple[int, Step]]:
        """Branches and step of every network call that inversion and guided edit need."""
        schedule = self._schedule()
        yield from ((1, step) for step in schedule)
        yield from ((2 if step.unconditional else 1, schedule[step.source_index]) for step in self._plan().steps)

    def _schedule(self) -> tuple[Step, ...]:
        frames, channels, rows, columns = self.clean.shape
        return self.backbone.schedule(self.method.steps, (frames, channels, rows, columns))

    def _plan(self) -> EditPlan:
        return plan_edit(self.backbone, self.method, self.method.steps, SOURCE, TARGET, EDITED_WORDS)

    @torch.no_grad()
    def edited(self, runtime: RuntimeConfig) -> tuple[Tensor, Trajectory]:
        """Invert and edit with the full method.

        Returns:
            The edited latents F,C,h,w, and the inversion.

        Raises:
            UserError: if the backend does not fit the budget.
        """
        plan, method = self._plan(), self.method
        with self.backbone.denoiser(method, len(self.clean), runtime.chunk) as denoiser:
            choice = self._choice(runtime, denoiser)
            attention = choice.open(plan.needs, self.backbone.device)
            layers = mask_layers(method.blending) if method.blending else None
            trajectory = invert(denoiser, self.clean, SOURCE, self._schedule(), layers, attention)
            return edit(denoiser, plan, trajectory), trajectory

    def choice(self, runtime: RuntimeConfig) -> BackendChoice:
        """How the source's attention is kept, and the bytes that are foretold of it.

        Raises:
            UserError: if the backend does not fit the budget.
        """
        with self.backbone.denoiser(self.method, len(self.clean), runtime.chunk) as denoiser:
            return self._choice(runtime, denoiser)

    def _choice(self, runtime: RuntimeConfig, denoiser: Denoiser) -> BackendChoice:
        shapes = denoiser.recording_shapes(self.clean, SOURCE)
        return choose_backend(runtime, self._plan().needs, shapes, self.backbone.device)
