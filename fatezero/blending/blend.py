"""Latent blending: outside the mask the edit is put back to the source."""

from __future__ import annotations

from torch import Tensor


def blend_latents(edited: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    """Mask * edited + (1 - mask) * source.

    Args:
        edited: F,C,h,w after an edit step.
        source: F,C,h,w of the inversion at the same noise level. (The original code takes the level one step noisier.)
        mask: bool F,h,w, True where the edit stands.
    """
    return source + mask[:, None].to(edited.dtype) * (edited - source)
