"""Latent blending: outside the mask the edit is put back to the source."""

from __future__ import annotations

from torch import Tensor


def blend_latents(edited_FChw: Tensor, source_FChw: Tensor, mask_Fhw: Tensor) -> Tensor:
    """Mask * edited + (1 - mask) * source: F,C,h,w.

    Args:
        edited_FChw: latents after an edit step.
        source_FChw: the inversion's latents at the same noise level. (The original code takes them one step noisier.)
        mask_Fhw: bool, True where the edit stands.
    """
    return source_FChw + mask_Fhw[:, None].to(edited_FChw.dtype) * (edited_FChw - source_FChw)
