"""Measures the shipped models on pictures that no training has seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image
from skimage.metrics import structural_similarity
from torch import Tensor

from fatezero.picturebook import CHECKPOINT, CLIP
from fatezero.picturebook.grounding import CrossAttentionMaps, blending_map, word_columns
from fatezero.picturebook.judge import Judge
from fatezero.picturebook.training import to_images, to_pixels
from fatezero.picturebook.world import SIZE, Scene, held_out, random_pose, random_scene, render

Images = npt.NDArray[np.uint8]
SERIES = 3  # pictures for measuring: neither the painter's nor the judge's
MASK_SIDE = 16
MASK_THRESHOLD = 0.3


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """What is measured, and on how much.

    Attributes:
        output: folder for report.json, report.md and the sample sheets.
        checkpoint: the text-to-image model.
        clip: the judge.
        pictures: rendered pictures for the autoencoder and the judge.
        samples: generated pictures, once for seen and once for held-out scenes.
        inverted: rendered pictures for inversion and for masks.
        steps: DDIM steps.
        guidance: classifier-free guidance scales; the first is reported, the others are swept with fewer samples.
        threads: CPU threads.
    """

    output: Path
    checkpoint: Path = CHECKPOINT
    clip: Path = CLIP
    pictures: int = 256
    samples: int = 64
    inverted: int = 24
    steps: int = 50
    guidance: tuple[float, ...] = (7.5, 3.0, 5.0)
    threads: int = 1


@dataclass(frozen=True)
class Pictures:
    """Scenes with their renderings: images N,SIZE,SIZE,3 and masks N,SIZE,SIZE."""

    scenes: list[Scene]
    images: Images
    masks: npt.NDArray[np.bool_]


def unseen(count: int, seed: int, wanted: Callable[[Scene], bool] = lambda _: True) -> Pictures:
    """Fresh pictures of random scenes that are `wanted`."""
    rng = np.random.default_rng([SERIES, seed])
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = random_scene(rng)
        if wanted(scene):
            scenes.append(scene)
    drawn = [render(scene, random_pose(rng), int(rng.integers(2**31))) for scene in scenes]
    return Pictures(scenes, np.stack([image for image, _ in drawn]), np.stack([mask for _, mask in drawn]))


def psnr(images: Images, targets: Images) -> float:
    """Mean over pictures of the peak signal-to-noise ratio, dB."""
    error = np.square(images.astype(np.float64) - targets).mean(axis=(1, 2, 3))
    return float((10 * np.log10(255**2 / np.maximum(error, 1e-6))).mean())


def ssim(images: Images, targets: Images) -> float:
    """Mean structural similarity over pictures."""
    pairs = zip(images, targets, strict=True)
    return float(np.mean([structural_similarity(one, other, channel_axis=2) for one, other in pairs]))


class Painter:
    """The text-to-image model with what measuring it needs."""

    def __init__(self, checkpoint: Path, steps: int) -> None:
        self.pipe = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None, dtype=torch.float32)
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config)
        self.steps = steps

    def encode(self, images: Images) -> Tensor:
        """Scaled latents of uint8 pictures."""
        batches = to_pixels(images).split(16)
        means = torch.cat([self.pipe.vae.encode(batch).latent_dist.mode() for batch in batches])
        scale: float = self.pipe.vae.config.scaling_factor
        return means * scale

    def decode(self, latents: Tensor) -> Images:
        """Pictures of scaled latents."""
        batches = (latents / self.pipe.vae.config.scaling_factor).split(16)
        return to_images(torch.cat([self.pipe.vae.decode(batch).sample for batch in batches]))

    def paint(self, scenes: Sequence[Scene], guidance: float) -> Images:
        """One picture a scene from pure noise."""
        images = []
        for start in range(0, len(scenes), 16):
            prompts = [scene.caption for scene in scenes[start : start + 16]]
            generators = [torch.Generator().manual_seed(start + row) for row in range(len(prompts))]
            painted = self.pipe(
                prompts, self.steps, guidance_scale=guidance, generator=generators, output_type="np"
            ).images
            images.append((painted * 255).round().astype(np.uint8))
        return np.concatenate(images)

    def invert(self, pictures: Pictures) -> tuple[Tensor, list[Tensor]]:
        """DDIM inversion without guidance.

        Returns:
            The noise it ends at, and for each step the attention maps at MASK_SIDE: N,positions,tokens.
        """
        scheduler = DDIMInverseScheduler.from_config(self.pipe.scheduler.config)
        latents, maps = self.encode(pictures.images), []
        hidden = self._text(pictures.scenes)
        for timestep in self._timesteps(scheduler):
            recorder = CrossAttentionMaps(self.pipe.unet)
            noise = self.pipe.unet(latents, timestep, hidden).sample
            maps.append(recorder.take(MASK_SIDE))
            latents = scheduler.step(noise, timestep, latents).prev_sample
        self.pipe.unet.set_attn_processor(AttnProcessor2_0())
        return latents, maps

    def denoise(self, latents: Tensor, scenes: Sequence[Scene]) -> Images:
        """Back from inverted noise, without guidance."""
        hidden = self._text(scenes)
        for timestep in self._timesteps(self.pipe.scheduler):
            noise = self.pipe.unet(latents, timestep, hidden).sample
            latents = self.pipe.scheduler.step(noise, timestep, latents).prev_sample
        return self.decode(latents)

    def _text(self, scenes: Sequence[Scene]) -> Tensor:
        tokens = self.pipe.tokenizer(
            [scene.caption for scene in scenes], padding="max_length", return_tensors="pt"
        ).input_ids
        return self.pipe.text_encoder(tokens).last_hidden_state  # type: ignore[no-any-return]

    def _timesteps(self, scheduler: DDIMScheduler | DDIMInverseScheduler) -> Tensor:
        scheduler.set_timesteps(self.steps)
        return scheduler.timesteps  # type: ignore[no-any-return]


def mask_quality(maps: Sequence[Tensor], pictures: Pictures) -> dict[str, float]:
    """How well words find what they name, over the steps of an inversion.

    Args:
        maps: for each step N,positions,tokens at MASK_SIDE.
        pictures: the N pictures inverted.

    Returns:
        Mean IoU of the object word's thresholded blending map with the true mask, and the share of the last
        background word's attention that lies outside the object.
    """
    columns = torch.from_numpy(np.stack([word_columns(scene) for scene in pictures.scenes]))
    last = torch.where(columns[:, 3] >= 0, columns[:, 3], columns[:, 2])
    words = torch.stack([columns[:, 0], last], dim=1)
    block = SIZE // MASK_SIDE
    cells = pictures.masks.reshape(-1, MASK_SIDE, block, MASK_SIDE, block).mean(axis=(2, 4)).reshape(-1, MASK_SIDE**2)
    ious, outside = [], []
    for attention in maps:
        named = attention.gather(2, words[:, None].expand(-1, attention.shape[1], -1))
        found = (blending_map(named, MASK_SIDE)[..., 0] > MASK_THRESHOLD).reshape(-1, MASK_SIDE, MASK_SIDE).numpy()
        found = found.repeat(block, axis=1).repeat(block, axis=2)
        both, either = (found & pictures.masks).sum(axis=(1, 2)), (found | pictures.masks).sum(axis=(1, 2))
        ious.append((both / either).mean())
        place = named[..., 1].numpy()
        outside.append(((place * (1 - cells)).sum(axis=1) / place.sum(axis=1)).mean())
    return {"object mask IoU": float(np.mean(ious)), "background word outside": float(np.mean(outside))}


def sheet(rows: Sequence[Images], path: Path) -> None:
    """Rows of pictures as one PNG."""
    Image.fromarray(np.vstack([np.hstack(list(row)) for row in rows])).save(path)


@torch.no_grad()
def report(config: ReportConfig) -> Path:
    """Measure autoencoder, judge, text-to-image model, grounding and inversion.

    Args:
        config: what is measured.

    Returns:
        The table, `output/report.md`; beside it `report.json`, and sheets of reconstructions, of samples with
        their captions in the same order in `report.json`, and of inversions.
    """
    torch.set_num_threads(config.threads)
    config.output.mkdir(parents=True, exist_ok=True)
    judge, painter = Judge(config.clip), Painter(config.checkpoint, config.steps)
    numbers: dict[str, dict[str, float]] = {}
    every, rare = unseen(config.pictures, 0), unseen(config.pictures, 1, held_out)
    decoded = painter.decode(painter.encode(every.images))
    numbers["autoencoder"] = {"PSNR": psnr(decoded, every.images), "SSIM": ssim(decoded, every.images)}
    sheet([every.images[:10], decoded[:10]], config.output / "reconstructions.png")
    numbers["CLIP, any scene"] = judge.accuracy(every.images, every.scenes)
    numbers["CLIP, held-out scenes"] = judge.accuracy(rare.images, rare.scenes)
    seen = unseen(config.samples, 2, lambda scene: not held_out(scene)).scenes
    for guidance in config.guidance:
        count = config.samples if guidance == config.guidance[0] else config.samples // 2
        for name, scenes in (("seen", seen[:count]), ("held-out", rare.scenes[:count])):
            painted = painter.paint(scenes, guidance)
            numbers[f"text-to-image, {name}, guidance {guidance:g}"] = judge.accuracy(painted, scenes)
            if guidance == config.guidance[0]:
                rows = [painted[start : start + 8] for start in range(0, count - count % 8, 8)]
                sheet(rows, config.output / f"samples-{name}.png")
    clips = Pictures(every.scenes[: config.inverted], every.images[: config.inverted], every.masks[: config.inverted])
    noise, maps = painter.invert(clips)
    rebuilt = painter.denoise(noise, clips.scenes)
    numbers["inversion"] = {
        "PSNR": psnr(rebuilt, clips.images),
        "autoencoder's PSNR": psnr(decoded[: config.inverted], clips.images),
    }
    numbers["grounding"] = mask_quality(maps, clips)
    sheet([clips.images[:10], rebuilt[:10]], config.output / "inversions.png")
    captions = {
        "seen": [scene.caption for scene in seen],
        "held-out": [scene.caption for scene in rare.scenes[: config.samples]],
    }
    (config.output / "report.json").write_text(json.dumps({"numbers": numbers, "captions": captions}, indent=1) + "\n")
    table = config.output / "report.md"
    table.write_text(as_table(numbers))
    return table


def as_table(numbers: dict[str, dict[str, float]]) -> str:
    """The numbers as a Markdown table, one row a measurement."""
    lines = ["| what | measured |", "|---|---|"]
    for name, values in numbers.items():
        cells = (f"{key} {value:.3f}" if value <= 1 else f"{key} {value:.2f}" for key, value in values.items())
        lines.append(f"| {name} | {', '.join(cells)} |")
    return "\n".join(lines) + "\n"
