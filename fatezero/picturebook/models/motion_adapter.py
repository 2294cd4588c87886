"""Training of the motion adapter: AnimateDiff's modules between the frozen layers of the text-to-image model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    MotionAdapter,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNetMotionModel,
)
from torch import Tensor
from torch.nn.functional import mse_loss

from fatezero.diffusion.schedule_fields import SCHEDULER_FILE
from fatezero.errors import UserError
from fatezero.picturebook.benchmark.recipes import render_clip
from fatezero.picturebook.models.clip_pool import draw_recipe
from fatezero.picturebook.models.fitting import PicturebookModule, TrainingConfig, fit, to_pixels
from fatezero.picturebook.models.text_to_image import level_weight
from fatezero.picturebook.world.scenes import training_scene
from fatezero.system.publishing import replacing

CLIPS = 50  # per shard
FRAMES = 16  # of a clip, and the most that the adapter counts
LENGTHS = (8, 16)  # of the excerpts that the adapter is trained on


@dataclass(frozen=True, kw_only=True)
class MotionConfig(TrainingConfig):
    """How the motion adapter is trained.

    Attributes:
        checkpoint: folder of the text-to-image model, which stays as it is.
        batch: frames per step: one long excerpt of a clip, or several short ones.
        empty_prompts: share of steps without caption, for classifier-free guidance.
    """

    checkpoint: Path
    batch: int = 16
    empty_prompts: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a folder without a model, and steps that no excerpt fits."""
        super().__post_init__()
        if not (self.checkpoint / "model_index.json").is_file():
            raise UserError(f"checkpoint: {self.checkpoint} holds no text-to-image model.")
        if self.batch % max(LENGTHS):
            raise UserError(f"batch is {self.batch}: frames a step are a multiple of {max(LENGTHS)}.")


@dataclass(frozen=True)
class EncodedClips:
    """One shard of encoded clips.

    Attributes:
        latents: float16 N,FRAMES,4,h,w of unit variance.
        captions: what each clip shows.
    """

    latents: npt.NDArray[np.float16]
    captions: tuple[str, ...]

    def __deepcopy__(self, _: object) -> EncodedClips:
        """Itself: weight averaging copies a whole training, but never its data."""
        return self


@torch.no_grad()
def encode_clips(vae: AutoencoderKL, pool: Path, series: int, number: int) -> EncodedClips:
    """A shard of clips, rendered and encoded unless it exists.

    Args:
        vae: the trained autoencoder, fp32.
        pool: holds one folder per shard.
        series: names the series of clips.
        number: which shard of the series.
    """
    folder = pool / f"clips-{series}-{number:03d}"
    if not folder.exists():
        recipes = [draw_recipe(series, number * CLIPS + row, FRAMES) for row in range(CLIPS)]
        scale: float = vae.config.scaling_factor
        clips = (to_pixels(render_clip(recipe).frames).to(vae.device) for recipe in recipes)
        rows = [vae.encode(clip).latent_dist.mode() * scale for clip in clips]
        with replacing(folder) as partial:
            partial.mkdir(exist_ok=True)
            np.save(partial / "latents.npy", torch.stack(rows).half().cpu().numpy())
            (partial / "captions.json").write_text(json.dumps([recipe.scene.caption for recipe in recipes]))
    return EncodedClips(np.load(folder / "latents.npy"), tuple(json.loads((folder / "captions.json").read_text())))


def new_adapter(unet: UNet2DConditionModel) -> MotionAdapter:
    """Motion modules for a UNet that change nothing until they are trained."""
    config = unet.config
    adapter = MotionAdapter(
        block_out_channels=config.block_out_channels,
        motion_layers_per_block=config.layers_per_block,
        motion_norm_num_groups=config.norm_num_groups,
        motion_num_attention_heads=config.attention_head_dim,  # diffusers' historical name for their number
        motion_max_seq_length=FRAMES,
    )
    for name, module in adapter.named_modules():
        if name.endswith("proj_out"):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    return adapter


class MotionTraining(PicturebookModule):
    """Predicts the noise of clips; only the motion modules learn (Guo et al., ICLR 2024, section 4.2)."""

    config: MotionConfig

    def __init__(self, config: MotionConfig, pipeline: StableDiffusionPipeline, pool: Sequence[EncodedClips]) -> None:
        super().__init__(config)
        self.pool = pool
        self.vae = pipeline.vae.requires_grad_(False)
        self.text_encoder = pipeline.text_encoder.requires_grad_(False)
        self.tokenizer, self.scheduler = pipeline.tokenizer, pipeline.scheduler
        adapter = (
            MotionAdapter.from_pretrained(config.init_from, dtype=torch.float32)
            if config.init_from
            else new_adapter(pipeline.unet)
        )
        self.unet = UNetMotionModel.from_unet2d(pipeline.unet, adapter)
        self.unet.freeze_unet2d_params()
        self.unet.train()

    def draw(self) -> tuple[Tensor, list[str]]:
        """This step's latents B,4,F,h,w and a caption each."""
        rng = self.rng()
        length = int(rng.choice(LENGTHS))
        excerpts, captions = [], []
        for _ in range(self.config.batch // length):
            shard = self.pool[int(rng.integers(len(self.pool)))]
            row, stride = int(rng.integers(len(shard.latents))), int(rng.integers(1, FRAMES // length + 1))
            start = int(rng.integers(FRAMES - stride * (length - 1)))
            excerpt = shard.latents[row][start : start + stride * length : stride][:length]
            excerpts.append(excerpt[::-1] if rng.random() < 0.5 else excerpt)  # backwards is as true
            captions.append("" if rng.random() < self.config.empty_prompts else shard.captions[row])
        latents = torch.from_numpy(np.stack(excerpts).astype(np.float32)).transpose(1, 2)
        return latents.contiguous().to(self.device), captions

    def training_step(self, _: Tensor) -> Tensor:
        """One step on fresh noise."""
        latents, captions = self.draw()
        generator = self.generator()
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        count = self.scheduler.config.num_train_timesteps
        levels = torch.randint(0, count, (len(latents),), generator=generator).to(self.device)
        noisy = self.scheduler.add_noise(latents, noise, levels)
        with self.autocast():
            text = self._text(captions).repeat_interleave(latents.shape[2], dim=0)
            predicted = self.unet(noisy, levels, text).sample.float()
        error = mse_loss(predicted, noise, reduction="none").mean(dim=(1, 2, 3, 4))
        loss = (error * level_weight(self.scheduler.alphas_cumprod.to(self.device)[levels])).mean()
        self.log_dict({"loss": loss.detach(), "mse": error.mean().detach()})
        return loss

    def _text(self, captions: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(captions, padding="max_length", return_tensors="pt").input_ids.to(self.device)
        hidden: Tensor = self.text_encoder(tokens).last_hidden_state
        return hidden

    def sample_grid(self) -> npt.NDArray[np.uint8]:
        """Two clips of eight frames from pure noise."""
        pipeline = AnimateDiffPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            motion_adapter=None,
            scheduler=self.scheduler,
        )
        pipeline.set_progress_bar_config(disable=True)
        rng, rows = np.random.default_rng(0), []
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            frames = pipeline(
                training_scene(rng).caption, 8, num_inference_steps=20, guidance_scale=3.0, generator=generator,
                output_type="np",
            ).frames[0]  # fmt: skip
            rows.append(np.hstack(list((frames * 255).round().astype(np.uint8))))
        return np.vstack(rows)


def export_adapter(module: MotionTraining, folder: Path) -> None:
    """Write the motion modules in the layout of diffusers' MotionAdapter, fp16 safetensors, and their noise levels."""
    module.cpu().unet.save_motion_modules(folder)
    MotionAdapter.from_pretrained(folder, dtype=torch.float16).save_pretrained(folder)
    module.scheduler.save_pretrained(folder / SCHEDULER_FILE.parent)


def train_motion(config: MotionConfig) -> Path:
    """Train the motion adapter and export it.

    Args:
        config: how to train it.

    Returns:
        The exported folder, `output/picturebook-motion`.
    """
    torch.set_num_threads(config.threads)
    pipeline = StableDiffusionPipeline.from_pretrained(config.checkpoint, safety_checker=None, dtype=torch.float32)
    pool = [encode_clips(pipeline.vae, config.pool, config.series, number) for number in range(config.shards)]
    module = MotionTraining(config, pipeline, pool)
    fit(module)
    folder = config.output / "picturebook-motion"
    export_adapter(module, folder)
    return folder
