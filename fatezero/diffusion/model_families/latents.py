"""Latents of autoencoders whose posteriors are Gaussian, as several families have them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fatezero.diffusion.posterior import latents_of


def encode_images(vae: Any, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
    """Latents F,C,h,w of a clip 1,3,F,H,W in [-1, 1]: each frame on its own, so that it does not depend on others."""
    images = pixels[0].transpose(0, 1)
    latents = torch.cat(
        [latents_of(vae.encode(image[None].to(vae.dtype)).latent_dist, pixels.dtype, generator) for image in images]
    )
    scaled: Tensor = (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    return scaled


def decode_images(vae: Any, latents: Tensor) -> Tensor:
    """A clip 1,3,F,H,W in [-1, 1] of latents F,C,h,w, frame by frame."""
    own = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    images = torch.cat([vae.decode(latent[None].to(vae.dtype)).sample for latent in own])
    return images.transpose(0, 1)[None]


def encode_video(vae: Any, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
    """Latents F,C,h,w of a clip 1,3,F,H,W in [-1, 1], scaled by the autoencoder's factor."""
    latents = latents_of(vae.encode(pixels.to(vae.dtype)).latent_dist, pixels.dtype, generator)
    scaled: Tensor = latents[0].transpose(0, 1) * vae.config.scaling_factor
    return scaled


def decode_video(vae: Any, latents: Tensor) -> Tensor:
    """A clip 1,3,F,H,W in [-1, 1] of latents F,C,h,w."""
    own = latents.transpose(0, 1)[None] / vae.config.scaling_factor
    clip: Tensor = vae.decode(own.to(vae.dtype)).sample
    return clip
