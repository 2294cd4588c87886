"""Measures the shipped models on pictures that no training has seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from fatezero.blending.mask import WordMask, word_attention
from fatezero.config import BlendingConfig, MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.checkpoint import Checkpoint
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.pipeline_loading import load_pipeline
from fatezero.diffusion.pixels import to_bytes, to_unit_range
from fatezero.errors import UserError
from fatezero.picturebook.models.attribute_classifier import AttributeClassifier
from fatezero.picturebook.models.grounding import word_columns
from fatezero.picturebook.world.scenes import SIZE, Scene, held_out, random_pose, random_scene, render
from fatezero.pipeline import FateZero
from fatezero.results import Inversion, Target
from fatezero.shipped import CHECKPOINT, JUDGE
from fatezero.system.progress import steps_shown

Images = npt.NDArray[np.uint8]
SERIES = 3  # pictures for measuring: neither the painter's nor the judge's
MASK_DOWNSAMPLING = 2  # of the latent: masks are measured on the finest cross-attention, 16×16
MASK_THRESHOLD = 0.3
DISTANCE = "Fréchet distance"
PSNR_CEILING = float(10 * np.log10(255**2 / 1e-6))  # of equal pictures


@dataclass(frozen=True, kw_only=True)
class MeasurementConfig:
    """What is measured, and on how much.

    Attributes:
        output: folder for report.json, report.md and the sample sheets.
        checkpoint: the text-to-image model.
        judge: an open_clip folder.
        pictures: rendered pictures for the autoencoder and the judge.
        samples: generated pictures, once for seen and once for held-out scenes.
        inverted: rendered pictures for inversion and for masks.
        steps: DDIM steps.
        guidance: classifier-free guidance scales; the first is reported, the others are swept with fewer samples.
        threads: CPU threads.
    """

    output: Path
    checkpoint: Path = CHECKPOINT
    judge: Path = JUDGE
    pictures: int = 256
    samples: int = 64
    inverted: int = 24
    steps: int = 50
    guidance: tuple[float, ...] = (3.0, 5.0, 7.5)
    threads: int = 1

    def __post_init__(self) -> None:
        """Refuse counts that measure nothing."""
        least = {"pictures": 1, "samples": 2, "inverted": 1, "steps": 1, "threads": 1}  # one sample has no spread
        for name, count in least.items():
            if getattr(self, name) < count:
                raise UserError(f"{name} is {getattr(self, name)}: it is at least {count}.")
        if not self.guidance:
            raise UserError("guidance is empty: name at least one scale.")


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
    return rendered(scenes, rng)


def rendered(scenes: list[Scene], rng: np.random.Generator) -> Pictures:
    """One picture of each scene, its object posed at random."""
    drawn = [render(scene, random_pose(rng), int(rng.integers(2**31))) for scene in scenes]
    return Pictures(scenes, np.stack([image for image, _ in drawn]), np.stack([mask for _, mask in drawn]))


def psnr(images: Images, targets: Images) -> float:
    """Mean over pictures of the peak signal-to-noise ratio, dB."""
    pairs = zip(images, targets, strict=True)
    with np.errstate(divide="ignore"):  # equal pictures
        ratios = [peak_signal_noise_ratio(target, image, data_range=255) for image, target in pairs]
    return float(np.minimum(ratios, PSNR_CEILING).mean())


def ssim(images: Images, targets: Images) -> float:
    """Mean structural similarity over pictures."""
    pairs = zip(images, targets, strict=True)
    return float(np.mean([structural_similarity(one, other, channel_axis=2) for one, other in pairs]))


class EncoderFeatures(nn.Module):
    """What an autoencoder's encoder has seen of pictures before it makes latents: the mean of each channel, N,D."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.num_features = int(vae.config.block_out_channels[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Of uint8 pictures N,3,H,W."""
        hidden = self.encoder.conv_in(images / 127.5 - 1)
        for block in self.encoder.down_blocks:
            hidden = block(hidden)
        features: Tensor = self.encoder.mid_block(hidden).mean((2, 3))
        return features


def frechet_distance(vae: AutoencoderKL, images: Images, others: Images) -> float:
    """Fréchet's distance between two sets of pictures on an autoencoder's features, as FID is on Inception's.

    It depends on the autoencoder and on how many pictures there are: two sets of true pictures of the same number say
    what is small.

    Source: Heusel et al. 2017.

    Args:
        vae: whose encoder sees them.
        images: at least two, uint8 N,H,W,3.
        others: likewise; the two sets need not be of the same number.
    """
    distance = FrechetInceptionDistance(EncoderFeatures(vae))
    for some, real in ((others, True), (images, False)):
        for batch in torch.from_numpy(some).permute(0, 3, 1, 2).split(16):
            distance.update(batch, real=real)
    return float(distance.compute())


class Painter:
    """The text-to-image model: painting by the stock pipeline, everything else as the editor does it."""

    def __init__(self, checkpoint: Path, steps: int) -> None:
        self.progress = steps_shown("", "picture")
        self.pipe = load_pipeline(checkpoint, torch.float32)
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.scheduler = DDIMScheduler.from_config(self.pipe.scheduler.config)
        found = Checkpoint(ModelOptions(model=str(checkpoint)), checkpoint)
        self.backbone = UNetBackbone.of_pipeline(self.pipe, found, torch.device("cpu"))
        self.editor = FateZero(self.backbone, RuntimeConfig(device="cpu"), report=lambda _: None)
        self.method = MethodConfig(
            steps=steps,
            guidance_scale=1,
            key_frames=(),
            norm_scope="frame",
            fusion=None,
            blending=BlendingConfig(mask_downsampling=MASK_DOWNSAMPLING),  # keeps the words' maps
        )

    def encode(self, images: Images) -> Tensor:
        """Scaled latents of uint8 pictures."""
        return self.backbone.encode(to_unit_range(images))

    def decode(self, latents: Tensor) -> Images:
        """Pictures of scaled latents."""
        return to_bytes(self.backbone.decode(latents))

    def paint(self, scenes: Sequence[Scene], guidance: float) -> Images:
        """One picture per scene, from pure noise."""
        images, stage = [], f"painting at guidance {guidance:g}"
        self.progress(stage, 0, len(scenes))
        for start in range(0, len(scenes), 16):
            prompts = [scene.caption for scene in scenes[start : start + 16]]
            generators = [torch.Generator().manual_seed(start + row) for row in range(len(prompts))]
            painted = self.pipe(
                prompts, self.method.steps, guidance_scale=guidance, generator=generators, output_type="np"
            ).images
            images.append((painted * 255).round().astype(np.uint8))
            self.progress(stage, start + len(prompts), len(scenes))
        return np.concatenate(images)

    def invert(self, pictures: Pictures) -> list[Inversion]:
        """Each picture carried to noise under its caption, as a clip of one frame."""
        inversions = []
        for image, scene in zip(pictures.images, pictures.scenes, strict=True):
            inversions.append(
                self.editor.invert(image[None], scene.caption, [self._target(scene.caption)], progress=False)
            )
            self.progress("inverting", len(inversions), len(pictures.scenes))
        return inversions

    def denoise(self, inversions: Sequence[Inversion]) -> Images:
        """Back from inverted noise, without guidance."""
        targets = [self._target(inversion.prompt) for inversion in inversions]
        results = [
            self.editor.edit_inverted(inversion, target, progress=False)
            for inversion, target in zip(inversions, targets, strict=True)
        ]
        return np.concatenate([result.frames for result in results])

    def _target(self, prompt: str) -> Target:
        return Target(prompt=prompt, method=self.method)


def mask_quality(inversions: Sequence[Inversion], pictures: Pictures) -> dict[str, float]:
    """How well words find what they name, over the steps of the pictures' inversions.

    Returns:
        Mean IoU of the object word's blending mask with the true mask, and the share of the last background word's
        attention that lies outside the object.
    """
    ious, outside = [], []
    for inversion, scene, mask in zip(inversions, pictures.scenes, pictures.masks, strict=True):
        assert inversion.trajectory is not None
        assert inversion.trajectory.cross_maps is not None
        maps = inversion.trajectory.cross_maps[:, 0]  # steps,side,side,tokens
        object_, _, *background = word_columns(scene)
        found = WordMask(word_attention(maps, [object_]), MASK_THRESHOLD).hard((SIZE, SIZE)).numpy()
        ious.append(((found & mask).sum((1, 2)) / (found | mask).sum((1, 2))).mean())
        side = maps.shape[1]
        covered = mask.reshape(side, SIZE // side, side, SIZE // side).mean((1, 3))
        place = word_attention(maps, [max(background)]).numpy()
        outside.append(((place * (1 - covered)).sum((1, 2)) / place.sum((1, 2))).mean())
    return {"object mask IoU": float(np.mean(ious)), "background word outside": float(np.mean(outside))}


def sheet(rows: Sequence[Images], path: Path) -> None:
    """Rows of pictures as one PNG."""
    Image.fromarray(np.vstack([np.hstack(list(row)) for row in rows])).save(path)


@torch.no_grad()
def measure_models(config: MeasurementConfig) -> Path:
    """Measure autoencoder, judge, text-to-image model, grounding and inversion.

    Args:
        config: what is measured.

    Returns:
        The table, `output/report.md`; beside it `report.json`, and sheets of reconstructions, of samples with
        their captions in the same order in `report.json`, and of inversions.
    """
    torch.set_num_threads(config.threads)
    config.output.mkdir(parents=True, exist_ok=True)
    judge, painter = AttributeClassifier(config.judge), Painter(config.checkpoint, config.steps)
    every, rare = unseen(config.pictures, 0), unseen(config.pictures, 1, held_out)
    asked = {
        "seen": unseen(config.samples, 2, lambda scene: not held_out(scene)),
        "held-out": unseen(config.samples, 3, held_out),
    }
    decoded = painter.decode(painter.encode(every.images))
    sheet([every.images[:10], decoded[:10]], config.output / "reconstructions.png")
    numbers = {
        "autoencoder": {"PSNR": psnr(decoded, every.images), "SSIM": ssim(decoded, every.images)},
        "CLIP, any scene": judge.accuracy(every.images, every.scenes),
        "CLIP, held-out scenes": judge.accuracy(rare.images, rare.scenes),
        **_measure_samples(config, painter, judge, asked),
        **_measure_inversion(config, painter, every, decoded),
    }
    captions = {name: [scene.caption for scene in pictures.scenes] for name, pictures in asked.items()}
    (config.output / "report.json").write_text(json.dumps({"numbers": numbers, "captions": captions}, indent=1) + "\n")
    table = config.output / "report.md"
    table.write_text(as_table(numbers))
    return table


def _measure_samples(
    config: MeasurementConfig, painter: Painter, judge: AttributeClassifier, asked: dict[str, Pictures]
) -> dict[str, dict[str, float]]:
    """What the judge sees in pictures painted from noise, and how far they lie from true pictures of the same scenes.

    By guidance and kind of scene; beside them, how far true pictures with other poses lie from those.
    """
    numbers, vae = {}, painter.pipe.vae
    for name, true in asked.items():
        others = rendered(true.scenes, np.random.default_rng([SERIES, 4]))
        numbers[f"true pictures, {name}"] = {DISTANCE: frechet_distance(vae, others.images, true.images)}
        for guidance in config.guidance:
            reported = guidance == config.guidance[0]
            wanted = true.scenes if reported else true.scenes[: config.samples // 2]
            painted = painter.paint(wanted, guidance)
            row = judge.accuracy(painted, wanted)
            if reported:
                row[DISTANCE] = frechet_distance(vae, painted, true.images)
                rows = [painted[start : start + 8] for start in range(0, len(painted) - len(painted) % 8, 8)]
                sheet(rows, config.output / f"samples-{name}.png")
            numbers[f"text-to-image, {name}, guidance {guidance:g}"] = row
    return numbers


def _measure_inversion(
    config: MeasurementConfig, painter: Painter, every: Pictures, decoded: Images
) -> dict[str, dict[str, float]]:
    """What inversion and back loses beyond the autoencoder's `decoded`, and where words look meanwhile."""
    count = config.inverted
    some = Pictures(every.scenes[:count], every.images[:count], every.masks[:count])
    inversions = painter.invert(some)
    rebuilt = painter.denoise(inversions)
    sheet([some.images[:10], rebuilt[:10]], config.output / "inversions.png")
    return {
        "inversion": {
            "PSNR": psnr(rebuilt, some.images),
            "autoencoder's PSNR": psnr(decoded[:count], some.images),
        },
        "grounding": mask_quality(inversions, some),
    }


def as_table(numbers: dict[str, dict[str, float]]) -> str:
    """The numbers as a Markdown table, one row per measurement."""
    lines = ["| what | measured |", "|---|---|"]
    for name, values in numbers.items():
        cells = (f"{key} {value:.3f}" if value <= 1 else f"{key} {value:.2f}" for key, value in values.items())
        lines.append(f"| {name} | {', '.join(cells)} |")
    return "\n".join(lines) + "\n"
