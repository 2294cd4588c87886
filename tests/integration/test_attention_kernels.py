"""Kernels of attention by name: another one computes the same, and what cannot be used is refused in a sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry, attention_backend

from fatezero.attention.kernels import attention_kernel
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.diffusion.model_families.unet import UNetBackbone, unet_denoiser
from fatezero.diffusion.prediction import Branch, Branches
from fatezero.errors import UserError

METHOD = MethodConfig(norm_scope="frame")


def predict(backbone: UNetBackbone) -> torch.Tensor:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with unet_denoiser(backbone, METHOD, 2, None) as denoiser:
        branch = Branch(latents, backbone.embed("a jeep"))
        return denoiser.predict(Branches(conditional=branch), 501).conditional


def test_a_kernel_by_name_computes_the_same(backbone64: UNetBackbone) -> None:
    """And only while it is asked for: diffusers' choice is put back."""

    def active() -> str:
        return str(_AttentionBackendRegistry.get_active_backend()[0].value)

    with attention_kernel("_native_math"):
        assert active() == "_native_math"
    own = predict(backbone64)
    torch.testing.assert_close(predict(replace(backbone64, attention_kernel="_native_math")), own)
    assert active() == "native"


def test_a_kernel_decides_how_results_round(backbone32: UNetBackbone) -> None:
    """Kept inversions go by it, and by the one that is active in diffusers."""
    plain = backbone32.rounding
    assert replace(backbone32, attention_kernel="flex").rounding == f"{plain}, attention by flex"
    with attention_backend("_native_math"):
        assert backbone32.rounding == f"{plain}, attention by _native_math"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("flash_hub", "code that would be fetched"), ("fast", "diffusers knows .*flex"), ("flash", "does not work here")],
)
def test_a_kernel_that_cannot_be_used_is_refused(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        UNetBackbone.load("picturebook", RuntimeConfig(device="cpu", attention_kernel=name))
