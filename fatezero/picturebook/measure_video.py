"""Measures Picturebook-Video on clips that no training has seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from diffusers import WanPipeline
from torch import Tensor

from fatezero.blending.mask import WordMask
from fatezero.config import ModelOptions, RuntimeConfig
from fatezero.errors import UserError
from fatezero.picturebook.benchmark.recipes import ClipRecipe, TrueClip, render_clip
from fatezero.picturebook.measure import MASK_THRESHOLD, SERIES, as_table, psnr, sheet, ssim
from fatezero.picturebook.models.attribute_classifier import AttributeClassifier
from fatezero.picturebook.models.clip_pool import FRAMES, PAN
from fatezero.picturebook.models.grounding import word_columns
from fatezero.picturebook.models.training_attention import watched_attention
from fatezero.picturebook.models.video_autoencoder import TEMPORAL, from_clips, to_clips
from fatezero.picturebook.models.video_latents import VideoEncoder
from fatezero.picturebook.models.video_networks import read_captions
from fatezero.picturebook.world.scenes import SIZE, Scene, held_out, random_scene
from fatezero.pipeline import FateZero
from fatezero.results import Target
from fatezero.shipped import JUDGE, VIDEO
from fatezero.system.progress import steps_shown
from fatezero.types import Frames

JUDGED = (0, 8, 16)  # frames of a generated clip that the judge looks at
SOLVER_ORDERS: tuple[Literal[1, 2], ...] = (1, 2)
LEVELS = (0.2, 0.4, 0.6, 0.8)  # of noise, at which words' masks are measured


@dataclass(frozen=True, kw_only=True)
class VideoMeasurementConfig:
    """What is measured, and on how much.

    Attributes:
        output: folder for report.json, report.md and the sample sheets.
        checkpoint: the text-to-video model, by default the shipped one.
        judge: an open_clip folder.
        clips: rendered clips for the autoencoder and for masks.
        inverted: how many of them are inverted, by each order of solver.
        samples: generated clips, once for seen and once for held-out scenes.
        steps: of samples and of inversions.
        guidance: classifier-free guidance scale.
        threads: CPU threads.
    """

    output: Path
    checkpoint: Path = VIDEO
    judge: Path = JUDGE
    clips: int = 24
    inverted: int = 8
    samples: int = 24
    steps: int = 30
    guidance: float = 4.0
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuse a folder without a model."""
        if not (self.checkpoint / "model_index.json").is_file():
            raise UserError(f"checkpoint: {self.checkpoint} holds no text-to-video model.")


def unseen_recipes(count: int, *, rare: bool) -> list[ClipRecipe]:
    """Fresh clips of random scenes, held out from training or not."""
    rng = np.random.default_rng([SERIES, FRAMES, rare])
    recipes: list[ClipRecipe] = []
    while len(recipes) < count:
        scene, seed, pan = random_scene(rng), int(rng.integers(2**31)), float(rng.uniform(-PAN, PAN))
        if held_out(scene) == rare:
            recipes.append(ClipRecipe(scene=scene, seed=seed, frames=FRAMES, pan=pan if len(recipes) % 2 else 0.0))
    return recipes


class VideoPainter:
    """The text-to-video model, by its stock pipeline."""

    def __init__(self, config: VideoMeasurementConfig) -> None:
        self.config = config
        self.progress = steps_shown("", "clip")
        self.pipe = WanPipeline.from_pretrained(config.checkpoint, dtype=torch.float32)
        self.pipe.set_progress_bar_config(disable=True)
        self.editor = FateZero.load(ModelOptions(model=str(config.checkpoint)), RuntimeConfig(device="cpu"))

    def paint(self, scenes: Sequence[Scene]) -> Frames:
        """One clip per scene, from pure noise: uint8 N,FRAMES,SIZE,SIZE,3."""
        clips = []
        for number, scene in enumerate(scenes):
            made = self.pipe(
                scene.caption,
                height=SIZE,
                width=SIZE,
                num_frames=FRAMES,
                num_inference_steps=self.config.steps,
                guidance_scale=self.config.guidance,
                generator=torch.Generator().manual_seed(number),
            )
            clips.append((made.frames[0] * 255).round().astype(np.uint8))
            self.progress("painting", len(clips), len(scenes))
        return np.stack(clips)

    def rebuilt(self, frames: Frames) -> Frames:
        """Clips N,F,H,W,3 through the autoencoder and back."""
        vae = self.pipe.vae
        return np.concatenate(
            [from_clips(vae.decode(vae.encode(to_clips(clip[None])).latent_dist.mode()).sample) for clip in frames]
        )

    def inverted(self, frames: Frames, scene: Scene, solver_order: Literal[1, 2]) -> Frames:
        """A clip F,H,W,3 carried to noise under its caption and back, without guidance, as the editor does it."""
        method = replace(
            self.editor.method,
            steps=self.config.steps,
            solver_order=solver_order,
            guidance_scale=1,
            fusion=None,
            blending=None,
        )
        target = Target(prompt=scene.caption, method=method)
        inversion = self.editor.invert(frames, scene.caption, [target], progress=False)
        return self.editor.edit_inverted(inversion, target, progress=False).frames

    def word_maps(self, frames: Frames, scene: Scene, level: float) -> Tensor:
        """Where a clip's words look at a noise level: f,m,n,T, the mean over heads and layers."""
        clean = VideoEncoder(self.pipe.vae).latents(frames[None])
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        tokens = torch.from_numpy(VideoEncoder.tokens([scene.caption]))
        timesteps = torch.tensor([level * self.pipe.scheduler.config.num_train_timesteps])
        with watched_attention(self.pipe.transformer, tokens == self.pipe.tokenizer.pad_token_id) as maps:
            text = read_captions(self.pipe.text_encoder, tokens)
            self.pipe.transformer((1 - level) * clean + level * noise, timesteps, text)
        patch = self.pipe.transformer.config.patch_size
        grid = [side // part for side, part in zip(clean.shape[2:], patch, strict=True)]
        looking: Tensor = torch.stack(maps).mean(0)[0].unflatten(0, grid)
        return looking


def latent_masks(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The object's masks as latent frames see them, f,H,W: where it stands in most of their frames."""
    later = masks[1:].reshape(-1, TEMPORAL, *masks.shape[1:]).mean(1) > 0.5
    return np.concatenate([masks[:1], later])


def video_mask_quality(
    painter: VideoPainter, recipes: Sequence[ClipRecipe], clips: Sequence[TrueClip]
) -> dict[str, float]:
    """How well words find what they name, over noise levels.

    Returns:
        By level the mean IoU of the object word's blending mask with the true mask, and over all levels the share of
        the last background word's attention that lies outside the object.
    """
    numbers, outside = {}, []
    for level in LEVELS:
        ious = []
        for recipe, clip in zip(recipes, clips, strict=True):
            maps, true = painter.word_maps(clip.frames, recipe.scene, level), latent_masks(clip.mask)
            object_, _, *background = word_columns(recipe.scene, first=0)
            found = WordMask(maps[..., object_], MASK_THRESHOLD).hard((SIZE, SIZE)).numpy()
            ious.append(((found & true).sum((1, 2)) / (found | true).sum((1, 2)).clip(1)).mean())
            side = maps.shape[1]
            covered = true.reshape(-1, side, SIZE // side, side, SIZE // side).mean((2, 4))
            place = maps[..., max(background)].numpy()
            outside.append(((place * (1 - covered)).sum((1, 2)) / place.sum((1, 2))).mean())
        numbers[f"object mask IoU at level {level:g}"] = float(np.mean(ious))
    return numbers | {"background word outside": float(np.mean(outside))}


def frame_change(frames: Frames) -> float:
    """Mean absolute change from frame to frame, grey levels, of clips N,F,H,W,3."""
    return float(np.abs(np.diff(frames.astype(np.int16), axis=1)).mean())


@torch.no_grad()
def measure_video_model(config: VideoMeasurementConfig) -> Path:
    """Measure autoencoder, text-to-video model, grounding and inversion.

    Args:
        config: what is measured.

    Returns:
        The table, `output/report.md`; beside it `report.json`, and sheets of reconstructions and of samples with
        their captions in the same order in `report.json`.
    """
    torch.set_num_threads(config.threads)
    config.output.mkdir(parents=True, exist_ok=True)
    painter = VideoPainter(config)
    recipes = unseen_recipes(config.clips, rare=False)
    clips = [render_clip(recipe) for recipe in recipes]
    numbers = {
        "autoencoder": _measure_rebuilt(config, painter, np.stack([clip.frames for clip in clips])),
        "grounding": video_mask_quality(painter, recipes, clips),
        "true clips": {"frame-to-frame change": frame_change(np.stack([clip.frames for clip in clips]))},
    }
    scenes = {
        "seen": [recipe.scene for recipe in unseen_recipes(config.samples, rare=False)],
        "held-out": [recipe.scene for recipe in unseen_recipes(config.samples, rare=True)],
    }
    numbers["inversion"] = _measure_inverted(config, painter, recipes, clips)
    numbers |= _measure_painted(config, painter, scenes)
    captions = {name: [scene.caption for scene in wanted] for name, wanted in scenes.items()}
    report = json.dumps({"numbers": numbers, "captions": captions}, indent=1) + "\n"
    (config.output / "report.json").write_text(report, encoding="utf-8")
    table = config.output / "report.md"
    table.write_text(as_table(numbers), encoding="utf-8")
    return table


def _measure_rebuilt(config: VideoMeasurementConfig, painter: VideoPainter, true: Frames) -> dict[str, float]:
    """What the autoencoder keeps of clips N,F,H,W,3."""
    rebuilt = painter.rebuilt(true)
    rows = [clip[::2] for pair in zip(true[:3], rebuilt[:3], strict=True) for clip in pair]
    sheet(rows, config.output / "reconstructions.png")
    every, all_rebuilt = (frames.reshape(-1, *true.shape[2:]) for frames in (true, rebuilt))
    return {
        "PSNR": psnr(all_rebuilt, every),
        "PSNR of first frames": psnr(rebuilt[:, 0], true[:, 0]),
        "SSIM": ssim(all_rebuilt, every),
    }


def _measure_inverted(
    config: VideoMeasurementConfig, painter: VideoPainter, recipes: Sequence[ClipRecipe], clips: Sequence[TrueClip]
) -> dict[str, float]:
    """What inversion and back keeps of the first clips, beside what the autoencoder alone keeps."""
    true = np.stack([clip.frames for clip in clips[: config.inverted]])
    every = true.reshape(-1, *true.shape[2:])
    numbers = {"autoencoder's PSNR": psnr(painter.rebuilt(true).reshape(every.shape), every)}
    for order in SOLVER_ORDERS:
        back = []
        for frames, recipe in zip(true, recipes, strict=False):
            back.append(painter.inverted(frames, recipe.scene, order))
            painter.progress(f"inverting by moves of order {order}", len(back), len(true))
        numbers[f"PSNR, solver order {order}"] = psnr(np.concatenate(back), every)
    return numbers


def _measure_painted(
    config: VideoMeasurementConfig, painter: VideoPainter, scenes: dict[str, list[Scene]]
) -> dict[str, dict[str, float]]:
    """What the judge sees in clips painted from noise, and how they move, by kind of scene."""
    judge, numbers = AttributeClassifier(config.judge), {}
    for name, wanted in scenes.items():
        painted = painter.paint(wanted)
        shown = painted[:, JUDGED].reshape(-1, *painted.shape[2:])
        judged = judge.accuracy(shown, [scene for scene in wanted for _ in JUDGED])
        change = {"frame-to-frame change": frame_change(painted)}
        numbers[f"text-to-video, {name}, guidance {config.guidance:g}"] = judged | change
        sheet([clip[::2] for clip in painted[:8]], config.output / f"samples-{name}.png")
    return numbers
