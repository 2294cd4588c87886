"""The four trainings, for a few steps on a few pictures: they learn, resume, export, and their exports load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from fatezero.config import ModelOptions, RuntimeConfig
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.errors import UserError
from fatezero.picturebook.models import latent_pool, motion_adapter, pool
from fatezero.picturebook.models.autoencoder import AutoencoderConfig, new_autoencoder, train_autoencoder
from fatezero.picturebook.models.clip_pool import draw_recipe
from fatezero.picturebook.models.judge import JudgeConfig, train_judge
from fatezero.picturebook.models.motion_adapter import MotionConfig, train_motion
from fatezero.picturebook.models.text_to_image import TextToImageConfig, TextToImageTraining, train_text_to_image
from fatezero.picturebook.world.scenes import held_out
from fatezero.shipped import CHECKPOINT

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SHARD", 8)
    monkeypatch.setattr(latent_pool, "PICTURES", 8)


def autoencoder_config(folder: Path) -> AutoencoderConfig:
    return AutoencoderConfig(
        output=folder / "out", pool=folder / "pool", shards=1, steps=6, batch=2, crop=32, warmup=1, sample_every=3
    )


def logged(folder: Path, column: str) -> list[float]:
    """Values of one column over all runs that logged into a folder."""
    tables = [pd.read_csv(path) for path in sorted((folder / "log").glob("version_*/metrics.csv"))]
    return [value for table in tables if column in table for value in table[column].dropna()]


def test_autoencoder_learns_resumes_and_exports(tmp_path: Path) -> None:
    config = autoencoder_config(tmp_path)
    folder = train_autoencoder(replace(config, steps=3))
    first = load_file(folder / "diffusion_pytorch_model.safetensors")
    train_autoencoder(config)
    second = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert all(value.dtype == torch.float16 for value in second.values())
    assert any((first[name] != second[name]).any() for name in first)
    state = torch.load(config.output / "checkpoints" / "last.ckpt", weights_only=False)
    assert state["global_step"] == 6
    assert sorted(path.name for path in (config.output / "samples").iterdir()) == ["0000003.png", "0000006.png"]
    vae = AutoencoderKL.from_pretrained(folder, dtype=torch.float32)
    images = pool.read_shard(tmp_path / "pool" / "1-000").images
    latents = vae.encode(torch.from_numpy(images[:]).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mode()
    assert latents.shape == (8, 4, 32, 32)
    assert float((latents * vae.config.scaling_factor).std()) == pytest.approx(1, abs=0.02)


def test_weights_and_biases_gets_numbers_and_grids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = replace(autoencoder_config(tmp_path), steps=3, wandb=True)
    train_autoencoder(config)
    assert list(config.output.rglob("*.wandb")) or list((tmp_path / "wandb").rglob("*.wandb"))
    grids = [path for path in tmp_path.rglob("*.png") if "media" in path.parts]
    assert len(grids) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"crop": 130}, "crop is 130"),
        ({"init_from": Path("nowhere")}, "no folder nowhere"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        replace(autoencoder_config(tmp_path), **change)


def test_text_to_image_needs_an_autoencoder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no autoencoder"):
        train_text_to_image(TextToImageConfig(output=tmp_path, pool=tmp_path, vae=tmp_path / "vae"))


def test_decoder_only_keeps_latents_valid(tmp_path: Path) -> None:
    start = tmp_path / "start"
    vae = new_autoencoder()
    vae.register_to_config(scaling_factor=0.7)
    vae.save_pretrained(start)
    folder = train_autoencoder(replace(autoencoder_config(tmp_path), init_from=start, decoder_only=True))
    before, after = vae.state_dict(), load_file(folder / "diffusion_pytorch_model.safetensors")
    frozen = [name for name in after if name.startswith(("encoder.", "quant_conv."))]
    assert frozen
    for name in frozen:  # averaging and fp16 round
        torch.testing.assert_close(after[name].float(), before[name], rtol=1e-3, atol=1e-4)
    assert (after["decoder.conv_out.weight"] != before["decoder.conv_out.weight"].half()).any()
    assert AutoencoderKL.from_pretrained(folder).config.scaling_factor == 0.7


def text_to_image_config(folder: Path) -> TextToImageConfig:
    vae = new_autoencoder()
    vae.register_to_config(scaling_factor=1.0)
    vae.save_pretrained(folder / "vae")
    return TextToImageConfig(
        output=folder / "out", pool=folder / "pool", vae=folder / "vae", shards=1, steps=12, batch=2, warmup=1,
        sample_every=100,
    )  # fmt: skip


def weights(folder: Path) -> Tensor:
    """All weights of an exported model's UNet and text encoder, in one row."""
    parts = (load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"),
             load_file(folder / "text_encoder" / "model.safetensors"))  # fmt: skip
    return torch.cat([part[name].double().flatten() for part in parts for name in sorted(part)])


def test_interrupted_training_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(text_to_image_config(tmp_path), steps=4, checkpoint_minutes=1e-6)
    straight = weights(train_text_to_image(config))
    again = replace(config, output=tmp_path / "again")
    step = TextToImageTraining.training_step

    def stops(module: TextToImageTraining, number: Tensor) -> Tensor:
        if module.global_step == 2:
            raise RuntimeError("the power went out")
        return step(module, number)

    with monkeypatch.context() as patched:
        patched.setattr(TextToImageTraining, "training_step", stops)
        with pytest.raises(RuntimeError, match="power"):
            train_text_to_image(again)
    assert torch.equal(weights(train_text_to_image(again)), straight)


def test_two_processes_share_the_pictures_of_one(tmp_path: Path) -> None:
    # Without the grounding loss, whose mean is taken over the words of each process's own pictures.
    config = replace(text_to_image_config(tmp_path), steps=3, grounding=0.0, bf16=False)
    start = weights(train_text_to_image(replace(config, output=tmp_path / "start", steps=1, learning_rate=0.0)))
    alone = weights(train_text_to_image(config)) - start
    together = weights(train_text_to_image(replace(config, output=tmp_path / "together", processes=2))) - start
    assert float((alone - together).norm() / alone.norm()) < 0.1


def test_pictures_of_a_step_are_shared_equally(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="processes is 3: a step's batch of 2 cannot be shared"):
        replace(text_to_image_config(tmp_path), processes=3)


def test_text_to_image_trains_from_stored_latents_and_exports_a_pipeline(tmp_path: Path) -> None:
    config = text_to_image_config(tmp_path)
    folder = train_text_to_image(config)
    assert len(logged(config.output, "grounding")) == 1
    (stored,) = config.pool.glob("latents-*/pictures-1-000/latents.npy")
    assert np.load(stored).shape == (8, 4, 1, 32, 32)
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32)
    image = pipe("a fox in the snow", 2, output_type="np").images
    assert image.shape == (1, 128, 128, 3)
    more = train_text_to_image(replace(config, output=tmp_path / "more", init_from=folder, steps=1))
    assert (more / "model_index.json").exists()


def test_motion_trains_only_its_modules_and_exports_an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion_adapter, "CLIPS", 2)
    config = MotionConfig(
        output=tmp_path / "out", pool=tmp_path / "pool", checkpoint=CHECKPOINT, shards=1, steps=2, warmup=1,
        sample_every=2,
    )  # fmt: skip
    folder = train_motion(config)
    latents = np.load(tmp_path / "pool" / "clips-1-000" / "latents.npy")
    assert (latents.dtype, latents.shape) == (np.float16, (2, 16, 4, 32, 32))
    assert Image.open(config.output / "samples" / "0000002.png").size == (8 * 128, 2 * 128)
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert all(value.dtype == torch.float16 for value in weights.values())
    assert all("motion_modules" in name for name in weights)
    assert any(value.any() for name, value in weights.items() if name.endswith("proj_out.weight"))
    backbone = UNetBackbone.load(ModelOptions(motion_adapter=str(folder)), RuntimeConfig(device="cpu"))
    assert backbone.has_motion
    more = train_motion(replace(config, output=tmp_path / "more", init_from=folder, steps=1))
    assert (more / "config.json").exists()


def test_motion_needs_a_model_and_whole_excerpts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no text-to-image model"):
        MotionConfig(output=tmp_path, pool=tmp_path, checkpoint=tmp_path)
    with pytest.raises(UserError, match="batch is 12: frames a step are a multiple of 16"):
        MotionConfig(output=tmp_path, pool=tmp_path, checkpoint=CHECKPOINT, batch=12)


def test_clips_of_the_series_are_the_same_whenever_drawn() -> None:
    assert draw_recipe(1, 7, 16) == draw_recipe(1, 7, 16)
    recipes = [draw_recipe(1, number, 16) for number in range(40)]
    assert len({recipe.seed for recipe in recipes}) == 40
    assert not any(held_out(recipe.scene) for recipe in recipes)
    assert 5 < sum(recipe.pan != 0 for recipe in recipes) < 35


def test_clip_trains_and_loads_as_any_open_clip_folder(tmp_path: Path) -> None:
    config = JudgeConfig(
        output=tmp_path / "out", pool=tmp_path / "pool", shards=1, steps=2, batch=4, warmup=1, sample_every=1
    )
    folder = train_judge(config)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["a fox in the snow"])
    pixels = preprocess(Image.new("RGB", (128, 128)))[None]
    assert model.encode_image(pixels).shape == model.encode_text(tokens).shape == (1, 128)
