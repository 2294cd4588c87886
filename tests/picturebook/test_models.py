"""The shipped weights: they load as any other checkpoint, are as small as promised, and do what their cards say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, WanPipeline
from safetensors import safe_open

from fatezero.clips.video import read_clip
from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.ddim import move, schedule
from fatezero.diffusion.model_families.unet import UNetBackbone, unet_denoiser
from fatezero.diffusion.pixels import to_unit_range
from fatezero.diffusion.prediction import Branch, Branches
from fatezero.errors import UserError
from fatezero.picturebook.benchmark.recipes import render_clip
from fatezero.picturebook.measure import (
    PSNR_CEILING,
    EncoderFeatures,
    MeasurementConfig,
    Painter,
    frechet_distance,
    mask_quality,
    psnr,
    rendered,
    ssim,
    unseen,
)
from fatezero.picturebook.measure_video import unseen_recipes
from fatezero.picturebook.models.attribute_classifier import AttributeClassifier
from fatezero.picturebook.models.clip_pool import draw_recipe
from fatezero.picturebook.models.video_autoencoder import from_clips, to_clips
from fatezero.picturebook.models.video_latents import load_video_autoencoder
from fatezero.pipeline import FateZero
from fatezero.shipped import CHECKPOINT, DEMO, JUDGE, MOTION, VIDEO
from fatezero_eval.metrics import set_distance

pytestmark = pytest.mark.filterwarnings("ignore")


def test_weights_are_small_and_half_precision() -> None:
    files = [path for folder in (CHECKPOINT, VIDEO, JUDGE, MOTION) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 80e6
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert len(weights) == 8
    for path in weights:
        with safe_open(path, "pt") as tensors:
            kinds = {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118 - no iterator
        assert kinds <= {"F16", "I64"}
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


def test_the_video_transformer_is_at_most_30_megabytes() -> None:
    assert sum(path.stat().st_size for path in VIDEO.rglob("*.safetensors")) < 30e6


def test_checkpoint_is_a_stock_pipeline() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(CHECKPOINT, safety_checker=None, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    image = pipe("a fox in the snow", num_inference_steps=2, output_type="np").images
    assert image.shape == (1, 128, 128, 3)
    assert np.isfinite(image).all()


@pytest.mark.slow
@torch.no_grad()
def test_autoencoder_keeps_unseen_pictures() -> None:
    painter, pictures = Painter(CHECKPOINT, steps=2), unseen(24, seed=11)
    latents = painter.encode(pictures.images)
    decoded = painter.decode(latents)
    assert float(latents.std()) == pytest.approx(1, abs=0.1)
    assert psnr(decoded, pictures.images) > 28
    assert ssim(decoded, pictures.images) > 0.9


def test_video_checkpoint_is_a_stock_pipeline() -> None:
    pipe = WanPipeline.from_pretrained(VIDEO, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    frames = pipe(
        "a fox in the snow", height=128, width=128, num_frames=5, num_inference_steps=2, output_type="np"
    ).frames
    assert frames.shape == (1, 5, 128, 128, 3)
    assert np.isfinite(frames).all()


@torch.no_grad()
def test_video_autoencoder_keeps_unseen_clips() -> None:
    vae = load_video_autoencoder(VIDEO / "vae")
    clips = np.stack([render_clip(recipe).frames for recipe in unseen_recipes(3, rare=False)])
    decoded = from_clips(vae.decode(vae.encode(to_clips(clips)).latent_dist.mode()).sample)
    assert psnr(decoded.reshape(-1, *decoded.shape[2:]), clips.reshape(-1, *clips.shape[2:])) > 23


def test_the_video_transformer_edits_by_its_name() -> None:
    """Grey road becomes white snow, and the jeep stays where it was."""
    source = read_clip(DEMO.clip).frames[:5]
    editor = FateZero.load("picturebook-video", RuntimeConfig(device="cpu"), report=lambda _: None)
    edited = editor.edit(
        source,
        DEMO.source_prompt,
        DEMO.target_prompt,
        edited_words=DEMO.edited_words,
        method=replace(editor.method, steps=8),
        progress=False,
    ).frames
    road = np.s_[:, -16:]  # below the jeep
    assert source[road].mean() < 120
    assert edited[road].mean() > 190
    blue = source[..., 2].astype(float) - source[..., 0] > 60  # the jeep, and sky above it
    jeep = blue & (np.arange(128)[:, None] > 50)
    assert (edited[..., 2].astype(float) - edited[..., 0])[jeep].mean() > 30


@pytest.mark.parametrize(
    ("change", "said"), [({"samples": 1}, "samples is 1: it is at least 2"), ({"guidance": ()}, "guidance is empty")]
)
def test_reports_of_nothing_are_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        MeasurementConfig(output=tmp_path, **change)


@torch.no_grad()
def test_distance_to_true_pictures_is_frechets() -> None:
    """As the evaluator's own formula has it; other true pictures are nearer than the same in grey."""
    vae, true = Painter(CHECKPOINT, steps=2).pipe.vae, unseen(24, seed=14)
    others = rendered(true.scenes, np.random.default_rng(0)).images
    features = EncoderFeatures(vae)
    ours, theirs = (
        features(torch.from_numpy(images).permute(0, 3, 1, 2)).double().numpy() for images in (others, true.images)
    )
    distance = frechet_distance(vae, others, true.images)
    assert distance == pytest.approx(set_distance.frechet_distance(ours, theirs), rel=1e-3)
    grey = others.mean(-1, keepdims=True).repeat(3, -1).astype(np.uint8)
    assert distance < frechet_distance(vae, grey, true.images) / 2


def test_equal_pictures_have_a_finite_psnr() -> None:
    pictures = np.zeros((2, 8, 8, 3), np.uint8)
    assert psnr(pictures, pictures) == PSNR_CEILING
    assert psnr(pictures + 1, pictures) == pytest.approx(20 * np.log10(255))


@pytest.mark.slow
def test_the_motion_adapter_knows_clips_better_than_pictures() -> None:
    """Its frames share what they show: on clips of an unseen series the noise is found better than frame by frame."""
    recipes = [draw_recipe(9, number, 16) for number in range(3)]

    def error(adapter: str | None) -> float:
        backbone = UNetBackbone.load(ModelOptions(motion_adapter=adapter), RuntimeConfig(device="cpu"))
        errors, method = [], MethodConfig(key_frames=(), norm_scope="frame")
        for recipe in recipes:
            clean, text = backbone.encode(to_unit_range(render_clip(recipe).frames[:8])), recipe.scene.caption
            generator = torch.Generator().manual_seed(0)
            with unet_denoiser(backbone, method, len(clean), None) as denoiser:
                for step in schedule(backbone.scheduler_config, 4):
                    noise = torch.randn(clean.shape, generator=generator)
                    branch = Branch(move(clean, noise, 1.0, step.alpha_noisy), backbone.embed(text))
                    with torch.no_grad():
                        found = denoiser.predict(Branches(conditional=branch), step.timestep).conditional
                    errors.append((found - noise).square().mean().item())
        return float(np.mean(errors))

    assert error("picturebook-motion") < error(None)


@pytest.mark.slow
def test_judge_tells_attributes_apart() -> None:
    pictures = unseen(64, seed=12)
    accuracy = AttributeClassifier(JUDGE).accuracy(pictures.images, pictures.scenes)
    assert accuracy["background"] > 0.9
    assert accuracy["colour"] > 0.85
    assert accuracy["style"] > 0.9
    assert accuracy["object"] > 0.9
    shuffled = AttributeClassifier(JUDGE).accuracy(pictures.images, pictures.scenes[1:] + pictures.scenes[:1])
    assert shuffled["object"] < 0.2


@pytest.mark.slow
@torch.no_grad()
def test_object_words_look_at_their_objects() -> None:
    painter, pictures = Painter(CHECKPOINT, steps=10), unseen(8, seed=13)
    inversions = painter.invert(pictures)
    quality = mask_quality(inversions, pictures)
    assert quality["object mask IoU"] > 0.5
    assert quality["background word outside"] > 0.85
    assert psnr(painter.denoise(inversions), pictures.images) > 18


def test_demo_is_a_clip_of_what_its_prompt_says() -> None:
    frames = read_clip(DEMO.clip).frames
    assert frames.shape == (8, 128, 128, 3)
    assert set(DEMO.edited_words) <= set(DEMO.source_prompt.split())
    assert set(DEMO.target_words) <= set(DEMO.target_prompt.split())
    assert Path(DEMO.clip.path).is_relative_to(CHECKPOINT.parents[1])
