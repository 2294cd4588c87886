"""The work that benchmarks measure: inversion and edit of seeded latents, and the network calls a bare UNet needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fatezero.benchmarking.random_checkpoint import WIDTHS, random_motion, random_pipeline
from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.backbone import Backbone, choose_device, choose_dtype
from fatezero.diffusion.checkpoint import Checkpoint, pixels_per_latent
from fatezero.diffusion.compiling import compile_blocks
from fatezero.diffusion.ddim import Step, schedule
from fatezero.diffusion.denoiser import Branch, Branches, video_denoiser
from fatezero.diffusion.inversion import Trajectory, invert
from fatezero.diffusion.onednn import OneDnnLinear
from fatezero.edit_plan import EditPlan, plan_edit
from fatezero.editing import edit
from fatezero.source_attention.budget import choose_backend

SOURCE, TARGET = "a silver jeep on the road", "a red sports car on the road"
EDITED_WORDS = ("silver", "jeep")


def load_backbone(model: str, runtime: RuntimeConfig) -> Backbone:
    """A checkpoint, or a random one by its size in `WIDTHS`.

    Raises:
        UserError: if it cannot be loaded.
    """
    if model not in WIDTHS:
        return Backbone.load(model, runtime)
    device = choose_device(runtime.device)
    pipe = random_pipeline(model, choose_dtype(runtime.dtype, device))  # type: ignore[arg-type]
    backbone = Backbone.of_pipeline(pipe, Checkpoint(ModelOptions(model=model), Path()), device)
    return with_compiled(backbone) if runtime.compile else backbone


def with_random_motion(backbone: Backbone) -> Backbone:
    """The same with random motion modules in its UNet, compiled if it is.

    Raises:
        UserError: if this machine cannot compile.
    """
    moving = replace(backbone, unet=random_motion(backbone.unet), compiled=False)
    return with_compiled(moving) if backbone.compiled else moving


def with_compiled(backbone: Backbone) -> Backbone:
    """The same networks, the UNet's blocks compiled in place as `--compile` does it.

    Raises:
        UserError: if this machine cannot compile.
    """
    compile_blocks(backbone.unet, backbone.name)
    return replace(backbone, compiled=True)


def random_latents(backbone: Backbone, frames: int, height: int, width: int) -> Tensor:
    """Seeded F,C,h,w for frames of a size in pixels."""
    generator = torch.Generator().manual_seed(0)
    unit = pixels_per_latent(backbone.vae.config)
    shape = (frames, int(backbone.unet.config.in_channels), height // unit, width // unit)
    return torch.randn(shape, generator=generator).to(backbone.device, backbone.latent_dtype)


@contextmanager
def stock_network(unet: nn.Module) -> Iterator[None]:
    """The network has PyTorch's own Linear layers and channels first while the context lasts, as diffusers loads it."""
    linears: list[nn.Module] = [module for module in unet.modules() if isinstance(module, OneDnnLinear)]
    unet.to(memory_format=torch.contiguous_format)
    for linear in linears:
        linear.__class__ = nn.Linear
    try:
        yield
    finally:
        for linear in linears:
            linear.__class__ = OneDnnLinear
        unet.to(memory_format=torch.channels_last)


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
        """Call diffusers' own UNet as often as the job needs it, and do nothing else.

        Its own attention processors and norms, no key frames; one branch a step to invert, and to edit the two branches
        of classifier-free guidance. Frames lie in the batch.
        """
        backbone, frames = self.backbone, len(self.clean)
        text, size = backbone.embed(SOURCE), (self.clean.shape[-2], self.clean.shape[-1])
        told = {n: backbone.conditioning([text] * n, frames, size) for n in (1, 2)}
        batches = {n: torch.cat([self.clean.to(backbone.dtype)] * n) for n in (1, 2)}
        if backbone.has_motion:  # branches,C,F,h,w
            batches = {n: batch.unflatten(0, (n, frames)).transpose(1, 2) for n, batch in batches.items()}
        with stock_network(backbone.unet):
            for branches, step in self._calls():
                backbone.unet(batches[branches], step.timestep, **told[branches])

    @torch.no_grad()
    def bare(self) -> None:
        """The same calls with our attention, key frames and norms: nothing is recorded, masked or fused."""
        backbone = self.backbone
        conditional = Branch(self.clean, backbone.embed(SOURCE))
        unconditional = Branch(self.clean, backbone.embed_negative(""))
        with video_denoiser(backbone, self.method, len(self.clean), None) as denoiser:
            for branches, step in self._calls():
                pair = Branches(conditional=conditional, unconditional=unconditional if branches == 2 else None)
                denoiser.predict(pair, step.timestep)

    def _calls(self) -> Iterator[tuple[int, Step]]:
        """Branches and step of every UNet call that inversion and guided edit need."""
        yield from ((1, step) for step in schedule(self.backbone.scheduler_config, self.method.steps))
        yield from ((2 if step.unconditional else 1, step.ddim) for step in self._plan().steps)

    def _plan(self) -> EditPlan:
        steps = schedule(self.backbone.scheduler_config, self.method.steps)
        return plan_edit(self.backbone, self.method, steps, SOURCE, TARGET, EDITED_WORDS)

    @torch.no_grad()
    def edited(self, runtime: RuntimeConfig) -> tuple[Tensor, Trajectory]:
        """Invert and edit with the full method.

        Returns:
            The edited latents F,C,h,w, and the inversion.

        Raises:
            UserError: if the backend does not fit the budget.
        """
        plan, method = self._plan(), self.method
        with video_denoiser(self.backbone, method, len(self.clean), runtime.chunk) as denoiser:
            choice = choose_backend(runtime, plan.needs, denoiser.recording_shapes(self.clean), self.backbone.device)
            attention = choice.open(plan.needs, self.backbone.device)
            downsampling = method.blending.mask_downsampling if method.blending else None
            steps = schedule(self.backbone.scheduler_config, method.steps)
            trajectory = invert(denoiser, self.clean, SOURCE, steps, downsampling, attention)
            return edit(denoiser, plan, trajectory), trajectory
