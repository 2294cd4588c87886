"""LTX-Video: equal to diffusers' own pipeline where nothing is fused, and to a naive computation where something is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline
from torch.testing import assert_close

from fatezero import FateZero, UserError
from fatezero.types import Frames
from tests.integration.transformer_cases import (
    CASES,
    GUIDANCE,
    SOURCE,
    STEPS,
    SWAPPED,
    TARGET,
    WORDS,
    loaded,
    method_of,
    noise_of,
    random_frames,
    sampled,
)
from tests.integration.transformer_reference import LTXByHand, NaiveEdit
from tests.tiny_pipelines import saved, tiny_ltx

SIZE = 128, 192  # 3 latents of 4 x 6 places


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pipe = tiny_ltx()
    pipe.vae.latents_mean.copy_(torch.linspace(-0.4, 0.4, 8))
    pipe.vae.latents_std.copy_(torch.linspace(0.7, 1.4, 8))
    return saved(pipe, tmp_path_factory.mktemp("ltx"))


@pytest.fixture(scope="module")
def editor(folder: Path) -> Callable[..., FateZero]:
    return lambda **runtime: loaded(folder, **runtime)


@pytest.fixture(scope="module")
def networks(folder: Path) -> LTXByHand:
    """The same networks, as diffusers loads them."""
    pipe = LTXPipeline.from_pretrained(folder, dtype=torch.float64)
    pipe.set_progress_bar_config(disable=True)
    return LTXByHand(pipe)


def frames(count: int = 17) -> Frames:
    return random_frames(count, *SIZE)


@pytest.mark.slow
def test_unfused_sampling_is_the_pipelines(editor: Any, networks: LTXByHand) -> None:
    fz = editor()
    noise = noise_of(fz.backbone, 17, *SIZE)
    made = networks.pipe(
        TARGET, height=SIZE[0], width=SIZE[1], num_frames=17, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        latents=noise.permute(0, 2, 3, 1).reshape(1, -1, 8), output_type="latent",
    ).frames  # fmt: skip
    expected = made.reshape(3, 4, 6, 8).permute(0, 3, 1, 2).double()
    assert_close(sampled(fz, noise), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_latents_are_the_autoencoders_normalised(editor: Any, networks: LTXByHand) -> None:
    backbone, vae, clip = editor().backbone, networks.pipe.vae, frames()
    pixels = torch.from_numpy(clip).permute(3, 0, 1, 2)[None].double() / 127.5 - 1
    with torch.no_grad():
        encoded = vae.encode(pixels).latent_dist.mode()
        normalised = networks.pipe._normalize_latents(
            encoded, vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        )
        latents = backbone.encode_clip(clip)
        assert_close(latents, normalised[0].transpose(0, 1), atol=1e-5, rtol=0)
        shown = vae.decode(encoded).sample[0].permute(1, 2, 3, 0)
    decoded = ((shown / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    assert np.abs(backbone.decode_clip(latents).astype(int) - decoded).max() <= 1  # rounding to bytes


@pytest.mark.slow
@pytest.mark.parametrize("case", ["second order", "blended latents", "words", "replace"])
def test_an_edit_is_the_naive_one(case: str, editor: Any, networks: LTXByHand) -> None:
    """Source and target prompt are of different lengths, and neither branch attends to places behind its own."""
    fz, target = editor(backend="qk"), SWAPPED if case == "replace" else TARGET
    words = WORDS | ({"target_words": ("red", "roads")} if case == "replace" else {})
    method, clip = method_of(fz, **CASES[case]), frames()
    result = fz.edit(clip, SOURCE, target, **words, method=method)
    naive = NaiveEdit(networks, method, SOURCE, target, **words).run(fz.backbone.encode_clip(clip))
    assert_close(result.latents, naive.edited[-1], atol=1e-5, rtol=0)
    if result.choice is not None:
        assert result.bytes_kept["attention"] == result.choice.predicted


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["recompute", "maps"])
def test_all_backends_give_the_same_edit(backend: str, editor: Any) -> None:
    clip, latents = frames(), []
    for one in ("qk", backend):
        fz = editor(backend=one)
        latents.append(fz.edit(clip, SOURCE, TARGET, **WORDS, method=method_of(fz, **CASES["words"])).latents)
    assert_close(*latents, atol=1e-9, rtol=0)


@pytest.mark.slow
def test_the_clock(editor: Any) -> None:
    """Latent 0 stands for frame 0, latent 1 for frames 1 to 8, latent 2 for frames 9 to 16."""
    fz = editor()
    result = fz.edit(frames(), SOURCE, TARGET, **WORDS, method=method_of(fz))
    for seen in (result.masks, *result.attention.values()):
        assert len(seen) == 17
        assert not (seen[0] == seen[1]).all()
        assert (seen[1:9] == seen[1]).all()
        assert (seen[9:] == seen[9]).all()
        assert not (seen[8] == seen[9]).all()


@pytest.mark.slow
def test_a_decoder_that_draws_noise_decodes_alike_each_time(tmp_path: Path) -> None:
    levels = (8, 8, 8, 8)
    vae = AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=levels, decoder_block_out_channels=levels, layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5, decoder_inject_noise=(True,) * 5, timestep_conditioning=True,
    )  # fmt: skip
    for name, value in vae.named_parameters():
        if "per_channel_scale" in name:
            value.data.fill_(0.5)
    backbone = loaded(saved(tiny_ltx(vae=vae), tmp_path / "ltx")).backbone
    latents = noise_of(backbone, 9, 64, 64)
    once = backbone.decode_clip(latents)
    torch.rand(1)
    assert (backbone.decode_clip(latents) == once).all()


@pytest.mark.parametrize(
    ("size", "changes", "said"),
    [
        ((10, 64, 64), {}, "takes one more than a multiple of 8"),
        ((9, 48, 64), {}, "needs multiples of 32"),
        ((9, 64, 64), {"key_frames": ()}, "key_frames is .* attends to those of all frames"),
        ((9, 64, 64), {"norm_scope": "clip"}, "norm_scope is 'clip'"),
    ],
)
def test_what_does_not_fit_is_refused(size: tuple[int, int, int], changes: Any, said: str, editor: Any) -> None:
    fz = editor()
    with pytest.raises(UserError, match=said):
        fz.edit(random_frames(*size), SOURCE, TARGET, method=replace(method_of(fz), **changes))
