"""Edits that video transformers are held to, and how they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fatezero import FateZero, MethodConfig, RuntimeConfig
from fatezero.diffusion.backbone import Backbone
from fatezero.edit_plan import plan_edit
from fatezero.editing import denoise
from fatezero.types import Frames

SOURCE, TARGET = "a silver jeep driving down the road", "a red bus driving down the snow road"
SWAPPED = "a red roads driving down the road"  # "roads" is two tokens to these tokenizers
WORDS: dict[str, Any] = {"edited_words": ("silver", "jeep"), "target_words": ("red", "bus")}
STEPS, GUIDANCE = 4, 3.0

CASES: Mapping[str, dict[str, Any]] = {
    "plain": {"fusion": None, "blending": None},
    "refine": {"blending": None},
    "blended attention": {"fusion": {"self_window": (0, 1)}},
    "second order": {"solver_order": 2, "blending": {"latent_window": (0.2, 0.8), "latent_words": "both"}},
    "blended latents": {
        "fusion": {"cross_window": (0.0, 0.5), "self_window": None},
        "blending": {"latent_window": (0, 1), "latent_words": "source", "mask_blocks": (1,), "threshold": 0.9},
    },
    "words": {
        "fusion": {"word_windows": {"bus": (0.0, 0.3), "red": (0.0, 1.0)}, "reweight": {"snow": 3.0, "driving": -1.0}},
        "blending": {"latent_window": (0.25, 0.75), "latent_words": "both"},
    },
    "replace": {"fusion": {"word_map": "replace", "cross_window": (0, 1)}},
}


def loaded(folder: Path, **runtime: Any) -> FateZero:
    """In float64, where orders of sums make no difference to speak of."""
    chosen = RuntimeConfig(**({"device": "cpu", "dtype": "float64"} | runtime))
    return FateZero.load(str(folder), chosen, report=lambda _: None)


def random_frames(count: int, height: int, width: int) -> Frames:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)


def method_of(editor: FateZero, **changes: Any) -> MethodConfig:
    """The editor's own, of few steps, with masks that are neither full nor empty."""
    fusion, blending = changes.pop("fusion", {}), changes.pop("blending", {})
    method = editor.method
    assert method.fusion is not None
    assert method.blending is not None
    return replace(
        method,
        steps=STEPS,
        guidance_scale=changes.pop("guidance_scale", GUIDANCE),
        fusion=None if fusion is None else replace(method.fusion, **fusion),
        blending=None if blending is None else replace(method.blending, **({"threshold": 0.95} | blending)),
        **changes,
    )


def noise_of(backbone: Backbone, count: int, height: int, width: int) -> Tensor:
    """F,C,h,w."""
    shape = backbone.latent_shape(count, height, width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()


def sampled(editor: FateZero, noise: Tensor) -> Tensor:
    """Latents F,C,h,w of the target prompt, from noise."""
    backbone, method = editor.backbone, method_of(editor, fusion=None, blending=None, sdedit_strength=1.0)
    frames, channels, rows, columns = noise.shape
    plan, schedule = (
        plan_edit(backbone, method, STEPS, "", TARGET),
        backbone.schedule(STEPS, (frames, channels, rows, columns)),
    )
    with torch.no_grad(), backbone.denoiser(method, frames, None) as denoiser:
        return denoise(denoiser, plan, schedule, noise)
