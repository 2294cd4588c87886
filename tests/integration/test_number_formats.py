"""What `--dtype` chooses: which networks stay in float32, and what is said of CPUs that lack a format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fatezero.config import RuntimeConfig
from fatezero.diffusion.devices import choose_dtype
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.number_formats import cpu_multiplies_in, slow_format

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "autoencoder"),
    [
        ("float64", torch.float64),
        ("float32", torch.float32),
        ("float16", torch.float16),
        ("bfloat16", torch.float32),  # of no more bits than a pixel
    ],
)
def test_the_autoencoder_beside_each_format(dtype: Any, autoencoder: torch.dtype, golden_folder: Path) -> None:
    backbone = UNetBackbone.load(str(golden_folder / "model"), RuntimeConfig(device="cpu", dtype=dtype))
    assert backbone.dtype == getattr(torch, dtype)
    assert backbone.vae.dtype == autoencoder
    assert backbone.latent_dtype == (torch.float64 if dtype == "float64" else torch.float32)
    frames = torch.rand(1, 3, 16, 16)
    assert backbone.decode(backbone.encode(frames)).shape == frames.shape


def test_auto_does_not_follow_from_the_kind_of_cpu() -> None:
    assert choose_dtype("auto", CPU) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.float16


@pytest.mark.parametrize(
    ("able", "slow"),
    [
        ({"avx512_bf16": True, "avx512_fp16": False}, {torch.float16}),
        ({"amx_bf16": True, "amx_fp16": True}, set()),
        ({"avx2": True}, {torch.float16, torch.bfloat16}),
        ({"bf16": True, "fp16_arith": True}, set()),
    ],
)
def test_a_format_that_the_cpu_lacks_is_said_to_be_slow(
    able: dict[str, bool], slow: set[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        assert bool(slow_format(dtype, CPU)) == (dtype in slow)
        assert not slow_format(dtype, torch.device("cuda"))


def test_a_torch_that_cannot_tell_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert cpu_multiplies_in(torch.bfloat16) is None
    assert not slow_format(torch.bfloat16, CPU)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norms_and_softmax_keep_float32_inside(dtype: torch.dtype) -> None:
    """In half precision only what goes in and comes out is rounded: PyTorch's kernels accumulate in float32."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(2, 8, 32, 32, generator=generator) + 30).to(dtype)  # a mean that would swallow the deviation
    for norm in (torch.nn.GroupNorm(4, 8), torch.nn.LayerNorm(32)):
        norm.requires_grad_(requires_grad=False)
        exact = norm(x.float())
        found = norm.to(dtype)(x).float()
        assert float((found - exact).abs().max()) < 4 * torch.finfo(dtype).eps * float(exact.abs().max())
    queries, keys, values = (torch.randn(1, 2, 300, 16, generator=generator).to(dtype) for _ in range(3))
    attend = torch.nn.functional.scaled_dot_product_attention
    exact = attend(queries.float(), keys.float(), values.float())
    found = attend(queries, keys, values).float()
    assert float((found - exact).norm() / exact.norm()) < 2 * torch.finfo(dtype).eps
