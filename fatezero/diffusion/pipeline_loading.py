"""A checkpoint's folder as a pipeline of diffusers, every network whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fatezero.diffusion.components import load_parts
from fatezero.diffusion.layouts import WAN, Layout
from fatezero.diffusion.motion_unet import with_motion
from fatezero.diffusion.vetting import vet_adapter, vet_checkpoint
from fatezero.diffusion.weight_sets import WeightsChoice
from fatezero.errors import UserError, first_line


def silence_libraries() -> None:
    """Keep diffusers and transformers from warning of what is refused, and from showing how far they are."""
    from diffusers.utils import logging as diffusers_logging  # noqa: PLC0415  (seconds to import)
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()


def load_pipeline(folder: Path, dtype: torch.dtype, *, variant: str | None = None, vae: Path | None = None) -> Any:
    """The checkpoint as a diffusers pipeline, on the CPU.

    Args:
        folder: the checkpoint's.
        dtype: of the networks. Autoencoders that lose too much in half precision are float32, and so is, beside half
            precision, what diffusers and transformers keep in it (`_keep_in_fp32_modules`).
        variant: of the weights, where a network has several.
        vae: folder of another autoencoder than the checkpoint's own.

    Raises:
        UserError: if its files say what they should not, or weights are missing, of other shapes or not finite.
    """
    silence_libraries()
    choice = WeightsChoice(variant, str(dtype).removeprefix("torch."))
    layout = vet_checkpoint(folder, choice)
    parts = load_parts(folder, layout, dtype, variant=variant, vae=vae)
    if layout.animated and layout.classes["unet"] == "UNet2DConditionModel":
        adapter = folder / "motion_adapter"
        vet_adapter(adapter, choice)
        parts["unet"] = with_motion(parts["unet"], adapter, str(adapter), variant)
    try:
        return _unet_pipeline(layout, parts) if layout.has_unet else _transformer_pipeline(layout, parts)
    except Exception as error:  # a value of any wrong type
        raise UserError(f"{folder} makes no {layout.pipeline} ({first_line(error)}): get it again.") from error


def _unet_pipeline(layout: Layout, parts: dict[str, Any]) -> Any:
    import diffusers  # noqa: PLC0415  (seconds to import)

    if layout.family.two_encoders:
        zeros = layout.zeros_for_empty_prompt
        return diffusers.StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False)
    if layout.animated:
        return diffusers.AnimateDiffPipeline(**parts, motion_adapter=None)
    return diffusers.StableDiffusionPipeline(
        **parts, safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False
    )


def _transformer_pipeline(layout: Layout, parts: dict[str, Any]) -> Any:
    """Of the family's first class, as the pipelines of a family differ in what they are given, not in their parts."""
    import diffusers  # noqa: PLC0415

    family = layout.family
    absent: dict[str, Any] = dict.fromkeys(family.optional.keys() - parts.keys())
    of_wan = {"boundary_ratio": layout.boundary_ratio, "expand_timesteps": layout.expand_timesteps}
    return getattr(diffusers, family.pipelines[0])(**parts, **absent, **(of_wan if family is WAN else {}))
