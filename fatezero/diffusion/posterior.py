"""Latents of what an autoencoder's encoder returns: the mode of its posterior, or a seeded draw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def latents_of(posterior: Any, dtype: torch.dtype, generator: torch.Generator | None) -> Tensor:
    """Latents on the autoencoder's own scale.

    Args:
        posterior: diffusers' `latent_dist`.
        dtype: of the result.
        generator: of the CPU, so that the draw is the same on every device; None takes the mode.
    """
    mode: Tensor = posterior.mode().to(dtype)
    if generator is None:
        return mode
    noise = torch.randn(mode.shape, generator=generator, dtype=torch.float32).to(mode)
    deviation: Tensor = posterior.std.to(mode)
    return mode + deviation * noise
