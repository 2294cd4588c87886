"""Stable Diffusion's noise schedule, for checkpoints that are made here rather than read."""

from __future__ import annotations

from typing import Any

STABLE_DIFFUSION: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""Arguments of diffusers' DDIMScheduler: those of Stable Diffusion 1.x's scheduler_config.json."""
