"""One frame sampled by this project and by diffusers' own pipeline, from the same noise.

In float64, where networks that round differently (oneDNN or MKL, channels last or first) agree nevertheless.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.ddim import schedule
from fatezero.diffusion.model_families.unet import UNetBackbone, unet_denoiser
from fatezero.edit_plan import plan_edit
from fatezero.editing import denoise

STEPS, GUIDANCE = 2, 3.0


def noise() -> Tensor:
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1)).double()


def loaded(model: Path, **networks: Any) -> UNetBackbone:
    options = ModelOptions(model=str(model), **networks)
    return UNetBackbone.load(options, RuntimeConfig(device="cpu", dtype="float64"))


def sampled_here(backbone: UNetBackbone, prompt: str, negative: str = "") -> Tensor:
    """Latents 1,C,h,w."""
    method = MethodConfig(
        steps=STEPS, guidance_scale=GUIDANCE, key_frames=(), norm_scope="frame", fusion=None, blending=None,
        sdedit_strength=1.0, negative_prompt=negative,
    )  # fmt: skip
    plan, steps = plan_edit(backbone, method, STEPS, "", prompt), schedule(backbone.scheduler_config, STEPS)
    with torch.no_grad(), unet_denoiser(backbone, method, 1, None, None) as denoiser:
        return denoise(denoiser, plan, steps, noise())


def diffusers_pipeline(model: Path) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline  # noqa: PLC0415

    pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(torch.float64)


def sampled_by_diffusers(pipe: Any, prompt: str, negative: str = "", **how: Any) -> Tensor:
    """Latents 1,C,h,w."""
    made: Tensor = pipe(
        prompt, negative_prompt=negative, latents=noise(), num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        output_type="latent", **how,
    ).images  # fmt: skip
    return made
