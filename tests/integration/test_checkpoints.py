"""Checkpoints of other shapes than the golden one, made small and random on the spot."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from fatezero.benchmarking.random_checkpoint import random_pipeline
from fatezero.clips.video import write_video
from fatezero.config import FusionConfig, MethodConfig, RuntimeConfig
from fatezero.errors import UserError
from fatezero.pipeline import FateZero

SOURCE, TARGET = "a jeep", "a bus"
QUIET = RuntimeConfig(device="cpu", dtype="float32")


def tiny_pipeline(golden_folder: Path, **parts: Any) -> Any:
    return StableDiffusionPipeline.from_pretrained(golden_folder / "model", safety_checker=None, **parts)


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    shape = {"sample_size": 16, "block_out_channels": (8, 16, 32, 32), "norm_num_groups": 8, "cross_attention_dim": 32}
    return UNet2DConditionModel(**(shape | changes))


def edit(folder: Path, **method: Any) -> np.ndarray:
    editor = FateZero.load(str(folder), QUIET)
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 128, 3), np.uint8)
    chosen = MethodConfig(steps=2, **method)
    result = editor.edit(frames, SOURCE, TARGET, edited_words=("jeep",), method=chosen)
    assert result.frames.shape == frames.shape
    return result.frames


@pytest.mark.slow
def test_stable_diffusion_2(golden_folder: Path, tmp_path: Path) -> None:
    """v-prediction, linear projections, and a number of heads for every level."""
    unet = tiny_unet(use_linear_projection=True, attention_head_dim=(1, 2, 4, 4))
    scheduler = DDIMScheduler.from_pretrained(golden_folder / "model" / "scheduler", prediction_type="v_prediction")
    tiny_pipeline(golden_folder, unet=unet, scheduler=scheduler).save_pretrained(tmp_path)
    frames = edit(tmp_path)
    as_noise = DDIMScheduler.from_pretrained(golden_folder / "model" / "scheduler")
    as_noise.save_pretrained(tmp_path / "scheduler")
    assert not np.array_equal(frames, edit(tmp_path))


@pytest.mark.slow
def test_autoencoder_tiny(golden_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    )  # fmt: skip
    tiny_pipeline(golden_folder, vae=vae).save_pretrained(tmp_path)
    edit(tmp_path)
    with pytest.raises(UserError, match="no posterior to sample"):
        edit(tmp_path, posterior="sample")


@pytest.mark.slow
def test_autoencoder_tiny_is_scaled_as_diffusers_does(golden_folder: Path, tmp_path: Path) -> None:
    vae = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    tiny_pipeline(golden_folder, vae=vae).save_pretrained(tmp_path)
    backbone = FateZero.load(str(tmp_path), QUIET).backbone
    frames = torch.rand(1, 3, 64, 64)
    expected = backbone.vae.encode(frames * 2 - 1).latents * backbone.vae.config.scaling_factor
    torch.testing.assert_close(backbone.encode(frames), expected)


@pytest.mark.slow
def test_levels_without_attention_elsewhere(golden_folder: Path, tmp_path: Path) -> None:
    """Attention at two levels only, one layer a block, as small models have it: found where it is, and fused there."""
    unet = tiny_unet(
        layers_per_block=1, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    tiny_pipeline(golden_folder, unet=unet).save_pretrained(tmp_path)
    sites = FateZero.load(str(tmp_path), QUIET).backbone.sites
    found = Counter((site.part, site.downsampling, site.kind) for site in sites)
    kinds = ("self", "cross")
    levels = {("down", 2): 1, ("down", 4): 1, ("mid", 8): 1, ("up", 4): 2, ("up", 2): 2}
    assert found == {(*level, kind): layers for level, layers in levels.items() for kind in kinds}
    unfused, coarse, fused = (
        edit(tmp_path, fusion=fusion) for fusion in (None, *(FusionConfig(min_downsampling=n) for n in (4, 1)))
    )
    assert not np.array_equal(unfused, coarse)
    assert not np.array_equal(coarse, fused)  # the layers at downsampling 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"in_channels": 9}, "inpainting"),
        ({"addition_embed_type": "text", "encoder_hid_dim": 32}, "another kind"),
        ({"down_block_types": ("AttnDownBlock2D",) * 3 + ("DownBlock2D",)}, "not the plain attention"),
    ],
)
def test_other_networks_are_refused(changes: Any, complaint: str, golden_folder: Path, tmp_path: Path) -> None:
    tiny_pipeline(golden_folder, unet=tiny_unet(**changes)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=complaint):
        FateZero.load(str(tmp_path), QUIET)


@pytest.mark.slow
def test_a_schedule_that_ends_in_pure_noise_is_refused(golden_folder: Path, tmp_path: Path) -> None:
    scheduler = DDIMScheduler.from_pretrained(golden_folder / "model" / "scheduler", rescale_betas_zero_snr=True)
    tiny_pipeline(golden_folder, scheduler=scheduler).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="pure noise"):
        edit(tmp_path)


@pytest.mark.slow
def test_other_predictions_are_refused(golden_folder: Path, tmp_path: Path) -> None:
    scheduler = DDIMScheduler.from_pretrained(golden_folder / "model" / "scheduler", prediction_type="sample")
    tiny_pipeline(golden_folder, scheduler=scheduler).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="predicts 'sample'"):
        FateZero.load(str(tmp_path), QUIET)


@pytest.mark.parametrize("name", ["owner/name", "./here", "nobody"])
def test_a_checkpoint_that_is_nowhere(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=name):
        FateZero.load(name, QUIET)


@pytest.mark.slow
def test_stable_diffusion_1_in_its_own_shape(tmp_path: Path) -> None:
    """A checkpoint folder of Stable Diffusion 1.x's size with random weights: an mp4 in, an edited one out."""
    from fatezero.cli import main  # noqa: PLC0415

    random_pipeline("sd1", torch.float32).save_pretrained(tmp_path / "model")
    write_video(tmp_path / "clip.mp4", np.random.default_rng(0).integers(0, 255, (2, 320, 512, 3), np.uint8), 8)
    words = {"model": tmp_path / "model", "clip": tmp_path / "clip.mp4", "source": SOURCE, "target": TARGET, "id": "sd"}
    words |= {
        "edited_words": "[jeep]",
        "out": tmp_path / "run",
        "steps": 1,
        "height": 320,
        "width": 512,
        "device": "cpu",
    }
    words |= {"fusion.self_window": "[0,1]", "fusion.cross_window": "[0,1]"}
    assert main(["edit", *(f"--{name}={value}" for name, value in words.items())]) == 0
    assert (tmp_path / "run" / "fatezero" / "sd" / "edited.mp4").stat().st_size > 1000
