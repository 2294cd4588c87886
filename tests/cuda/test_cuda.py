"""What a CUDA device may change: nothing beyond rounding, and nothing at all from one run to the next.

Bounds are some four times what the same number format loses on a CPU.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fatezero.config import BlendingConfig, FusionConfig, MethodConfig, RuntimeConfig
from fatezero.diffusion.model_families.unet import UNetBackbone, unet_denoiser
from fatezero.diffusion.prediction import Branch, Branches
from fatezero.pipeline import FateZero
from fatezero.results import EditResult
from fatezero.source_attention.stores import Key, PinnedStore, Recording
from fatezero.types import Frames

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CUDA = torch.device("cuda")
SOURCE, TARGET = "a silver jeep driving down a road", "a silver car driving down a road"
METHOD = MethodConfig(
    steps=4,
    norm_scope="frame",
    key_frames=("self", "middle", "last"),
    fusion=FusionConfig(min_downsampling=1, reweight={"car": 2.0}),
    blending=BlendingConfig(threshold=0.8, latent_window=(0.2, 0.8)),
)


def moving_square(frames: int = 5) -> Frames:
    picture = np.full((frames, 64, 96, 3), 100, np.uint8)
    for i in range(frames):
        picture[i, 16:40, 8 + 6 * i : 32 + 6 * i] = (190, 190, 220)
    return picture


def load(golden_folder: Path, dtype: Any = "float32") -> UNetBackbone:
    return UNetBackbone.load(str(golden_folder / "model"), RuntimeConfig(device="cuda", dtype=dtype))


@pytest.fixture(scope="module")
def on_cuda(golden_folder: Path) -> UNetBackbone:
    return load(golden_folder)


def edit(backbone: UNetBackbone, method: MethodConfig = METHOD, **runtime: Any) -> EditResult:
    editor = FateZero(backbone, RuntimeConfig(**runtime), report=lambda _: None)
    words: dict[str, Any] = {"edited_words": ("jeep",), "target_words": ("car",)} if method.blending else {}
    return editor.edit(moving_square(), SOURCE, TARGET, method=method, **words)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.cpu() - expected.cpu()).norm() / expected.norm())


@pytest.fixture(scope="module")
def exact(backbone32: UNetBackbone) -> EditResult:
    """By the CPU in float32."""
    return edit(backbone32, backend="recompute")


def predicted(backbone: UNetBackbone) -> torch.Tensor:
    latents = torch.randn(3, 4, 8, 12, generator=torch.Generator().manual_seed(0)).to(backbone.device)
    with unet_denoiser(backbone, METHOD, 3, None) as denoiser:
        return denoiser.predict(Branches(conditional=Branch(latents, backbone.embed(SOURCE))), 501).conditional


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-4), ("float16", 6e-3), ("bfloat16", 5e-2)])
def test_a_prediction_is_the_cpus_in_float32(
    dtype: str, bound: float, golden_folder: Path, backbone32: UNetBackbone
) -> None:
    found = predicted(load(golden_folder, dtype))
    assert found.dtype == torch.float32
    assert relative_error(found, predicted(backbone32)) < bound


@pytest.mark.parametrize(
    "runtime",
    [
        {"backend": "recompute"},
        {"backend": "recompute", "chunk": 2},
        {"backend": "qk", "store": "host"},
        {"backend": "qk", "store": "device"},
        {"backend": "qk", "store": "disk", "chunk": 2},
        {"backend": "maps", "store": "host", "chunk": 3},
    ],
)
def test_backends_stores_and_chunks_agree(runtime: dict[str, Any], on_cuda: UNetBackbone, exact: EditResult) -> None:
    torch.backends.cudnn.allow_tf32 = False
    result = edit(on_cuda, **runtime)
    assert relative_error(result.latents, exact.latents) < 1e-3
    assert result.masks is not None
    assert abs(result.frames.astype(int) - exact.frames).max() <= 3
    assert result.peak_memory_bytes > 0


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("backend", ["qk", "recompute"])
def test_the_same_request_gives_the_same_bytes(dtype: str, backend: str, golden_folder: Path) -> None:
    """In one process, on one device: whichever store, and whatever the allocator did meanwhile."""
    backbone = load(golden_folder, dtype)
    first = edit(backbone, backend=backend)
    waste = torch.randn(1000, 1000, device=CUDA)
    second = edit(backbone, backend=backend, store="device")
    del waste
    assert torch.equal(first.latents, second.latents)
    assert np.array_equal(first.frames, second.frames)


def test_half_precision_edits_stay_near(golden_folder: Path, exact: EditResult, backbone32: UNetBackbone) -> None:
    unlike = edit(backbone32, replace(METHOD, fusion=None))
    far = relative_error(unlike.latents, exact.latents)
    near = relative_error(edit(load(golden_folder, "float16")).latents, exact.latents)
    assert near < far / 3


def recording(key: Key) -> Recording:
    """Larger than one copy's worth, heads before tokens."""
    generator = torch.Generator(CUDA).manual_seed(10 * key[0] + key[1])
    queries = torch.randn(8, 512, 8, 64, generator=generator, device=CUDA, dtype=torch.float16).transpose(1, 2)
    return {"site/queries": queries, "site/keys": queries[:1].clone()}


def test_pinned_recordings_come_back_while_the_device_works() -> None:
    """Sources are overwritten by later work as soon as they are put, results as soon as they are let go."""
    keys = [(step, chunk) for step in range(12) for chunk in range(2)]
    expected = {key: {name: tensor.cpu() for name, tensor in recording(key).items()} for key in keys}
    store, work = PinnedStore(CUDA), torch.randn(2048, 2048, device=CUDA)
    for key in keys:
        work = (work @ work).tanh()
        store.put(key, recording(key))
    assert store.bytes_kept == sum(t.nbytes for kept in expected.values() for t in kept.values())
    assert all(tensor.is_pinned() for tensor in store._recordings[0, 0].values())
    for key in sorted(keys, key=lambda key: (-key[0], key[1])) * 2:
        found = store.get(key, CUDA)
        work = (work @ work).tanh()
        copies = {name: tensor + 0 for name, tensor in found.items()}
        del found
        assert all(torch.equal(copies[name].cpu(), expected[key][name]) for name in copies)


def test_what_is_beyond_the_bound_is_not_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    one = recording((0, 0))
    monkeypatch.setattr("fatezero.source_attention.stores.MAX_PINNED", sum(t.nbytes for t in one.values()))
    store = PinnedStore(CUDA)
    for step in range(2):
        store.put((step, 0), recording((step, 0)))
    assert [store._recordings[step, 0]["site/keys"].is_pinned() for step in range(2)] == [True, False]
    for step in (1, 0):
        assert torch.equal(store.get((step, 0), CUDA)["site/queries"], recording((step, 0))["site/queries"])
