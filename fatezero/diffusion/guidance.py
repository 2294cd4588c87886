"""What a UNet that was distilled with its guidance is told of it (Meng et al. 2023; latent consistency models)."""

from __future__ import annotations

import torch
from torch import Tensor

TIMES = 1000.0  # as for timesteps, whose sinusoids these are
LONGEST = 10_000.0


def guidance_embedding(scales: Tensor, width: int) -> Tensor:
    """Sinusoids of guidance scales, as diffusers' StableDiffusionPipeline makes them.

    Args:
        scales: float32 B; 1 is no guidance.
        width: numbers in an embedding, at least 4 (`time_cond_proj_dim`).

    Returns:
        float32 B,width.
    """
    half = width // 2
    falling = torch.exp(torch.arange(half, dtype=torch.float32) * (-torch.log(torch.tensor(LONGEST)) / (half - 1)))
    angles = ((scales - 1) * TIMES)[:, None] * falling
    embedding = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.nn.functional.pad(embedding, (0, width % 2))
