"""Training of the text-to-video transformer (Wan's) on stored latents, its words grounded from the first step.

Flow matching (Lipman et al., ICLR 2023) along straight lines: z = (1 - level) clean + level noise, and the network
predicts noise - clean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from torch import Tensor
from torch.nn.functional import avg_pool2d, mse_loss
from transformers import UMT5EncoderModel

from fatezero.errors import UserError
from fatezero.picturebook.models.clip_pool import FRAMES
from fatezero.picturebook.models.fitting import SharedModule, SharedTrainingConfig, fit
from fatezero.picturebook.models.grounding import grounding_loss
from fatezero.picturebook.models.latent_pool import EncodedScenes, LatentPool, SceneBatch, draw_scenes, shards_in_use
from fatezero.picturebook.models.training_attention import watched_attention
from fatezero.picturebook.models.video_latents import VideoEncoder, load_video_autoencoder
from fatezero.picturebook.models.video_networks import PATCH, new_transformer, new_umt5_encoder, read_captions
from fatezero.picturebook.models.video_tokenizer import new_video_tokenizer
from fatezero.picturebook.world.scenes import SIZE, training_scene

SHIFT = 3.0  # of the noise levels, in training as in sampling
LENGTHS = (2, 3, 4, 5)  # latent frames of a step's clips; the start of a clip is a clip


@dataclass(frozen=True, kw_only=True)
class TextToVideoConfig(SharedTrainingConfig):
    """How the text-to-video model is trained.

    Attributes:
        vae: folder of the trained video autoencoder.
        pool: folder of latents; the training starts with a few shards and takes in more evenly to its end, so that
            `fatezero train video-latents` can make them meanwhile, on another core.
        shards: of clips, and of pictures.
        batch: clips per step.
        pictures: single pictures per step, which teach objects at a fifth of a clip's cost.
        grounding: weight of the grounding loss.
        object_weight: how many times more an error inside the object weighs than one in the background.
        empty_prompts: share of scenes whose caption is dropped, for classifier-free guidance.
    """

    vae: Path
    shards: int = 100
    batch: int = 4
    pictures: int = 16
    learning_rate: float = 6e-4
    grounding: float = 0.3
    object_weight: float = 4.0
    empty_prompts: float = 0.1

    def __post_init__(self) -> None:
        """Refuse steps without pictures, and shares of them that are not equal."""
        super().__post_init__()
        if self.pictures < 1:
            raise UserError(f"pictures is {self.pictures}: it is at least 1.")
        self.check_shares(pictures=self.pictures)


def draw_levels(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels in 0..1, spread as the sampler's steps are, one from each of `count` equal parts: float N.

    With SHIFT most are high: that is where it is decided what is painted, and where words count.
    """
    even = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return SHIFT * even / (1 + (SHIFT - 1) * even)


class TextToVideoTraining(SharedModule):
    """Predicts the flow from clean to noise, its words grounded by the true masks."""

    config: TextToVideoConfig

    def __init__(self, config: TextToVideoConfig, vae: AutoencoderKLWan) -> None:
        super().__init__(config)
        self.vae = vae.requires_grad_(False)
        self.pool = LatentPool(VideoEncoder(vae), config.pool, config.series)
        self.tokenizer = new_video_tokenizer()
        if config.init_from:
            self.transformer = WanTransformer3DModel.from_pretrained(
                config.init_from, subfolder="transformer", dtype=torch.float32
            )
            self.text_encoder = UMT5EncoderModel.from_pretrained(
                config.init_from, subfolder="text_encoder", dtype=torch.float32
            )
        else:
            self.transformer, self.text_encoder = new_transformer(), new_umt5_encoder(len(self.tokenizer))
        self.transformer.train()
        self.text_encoder.train()
        self.scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
        self.empty = self.pool.encoder.tokens([""])[0]

    def draw(
        self, rng: np.random.Generator, shards: Callable[[int], EncodedScenes], count: int, length: int
    ) -> SceneBatch:
        """This process's share of random scenes of the pool, cut to `length` latent frames."""
        config = self.config
        in_use = shards_in_use(config.shards, self.global_step, config.steps)
        drawn = draw_scenes(
            rng, shards, in_use, count, length=length, empty=self.empty, empty_share=config.empty_prompts
        )
        return drawn.part(self.share).to(self.device)

    def training_step(self, _: Tensor) -> Tensor:
        """One step on clips and pictures, which count alike."""
        rng, generator, config = self.rng(), self.generator(), self.config
        clips = self.draw(rng, self.pool.clips, config.batch, int(rng.choice(LENGTHS)))
        pictures = self.draw(rng, self.pool.pictures, config.pictures, 1)
        flow, grounding = (
            self.losses(clips, config.batch, generator) + self.losses(pictures, config.pictures, generator)
        ) / 2
        self.log_dict({"loss": flow.detach(), "grounding": grounding.detach()})
        total: Tensor = flow + config.grounding * grounding
        return total

    def losses(self, batch: SceneBatch, count: int, generator: torch.Generator) -> Tensor:
        """The flow's error and the grounding's, of this process's share of `count` scenes: two numbers."""
        noise = torch.randn((count, *batch.latents.shape[1:]), generator=generator)[self.share].to(self.device)
        levels = draw_levels(count, generator)[self.share].to(self.device)
        padding = batch.tokens == self.tokenizer.pad_token_id
        part = levels.view(-1, 1, 1, 1, 1)
        with (
            self.autocast(),
            watched_attention(self.transformer, padding) as maps,
        ):
            hidden = read_captions(self.text_encoder, batch.tokens)
            noisy = (1 - part) * batch.latents + part * noise
            timesteps = levels * self.scheduler.config.num_train_timesteps
            predicted = self.transformer(noisy, timesteps, hidden, return_dict=False)[0]
        error = mse_loss(predicted.float(), noise - batch.latents, reduction="none")
        places = 1 + (self.config.object_weight - 1) * batch.coverage[:, None]
        looking = torch.stack(maps).float().mean(0)
        return torch.stack([(error * places).mean(), _grounding(looking, batch, 1 - levels)])

    def pipeline(self) -> WanPipeline:
        """The model as a stock Wan pipeline."""
        pipeline = WanPipeline(
            tokenizer=self.tokenizer,
            text_encoder=self.text_encoder,
            vae=self.vae,
            scheduler=self.scheduler,
            transformer=self.transformer,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def sample_grid(self) -> npt.NDArray[np.uint8]:
        """Every fourth frame of four clips, and five pictures, from pure noise."""
        rng, pipeline = np.random.default_rng(0), self.pipeline()
        prompts = [training_scene(rng).caption for _ in range(9)]
        clips, pictures = (
            pipeline(
                wanted,
                height=SIZE,
                width=SIZE,
                num_frames=frames,
                num_inference_steps=20,
                guidance_scale=4.0,
                generator=torch.Generator().manual_seed(0),
            ).frames
            for wanted, frames in ((prompts[:4], FRAMES), (prompts[4:], 1))
        )
        rows = [np.hstack(list(clip[::4])) for clip in clips] + [np.hstack(list(pictures[:, 0]))]
        return (np.vstack(rows) * 255).round().astype(np.uint8)


def _grounding(maps: Tensor, batch: SceneBatch, clearness: Tensor) -> Tensor:
    """`grounding_loss` of maps N,S,T in every latent frame; nobody can see the object in pure noise."""
    frames, height, width = batch.coverage.shape[1:]
    grid = maps.unflatten(1, (frames, height // PATCH, width // PATCH)).flatten(0, 1)
    return grounding_loss(
        grid,
        batch.columns.repeat_interleave(frames, dim=0),
        avg_pool2d(batch.coverage, PATCH).flatten(0, 1),
        clearness.repeat_interleave(frames),
    )


def export_video_pipeline(module: TextToVideoTraining, folder: Path) -> None:
    """Write the whole model in diffusers layout, fp16 safetensors; the module ends in fp16."""
    pipeline = module.cpu().pipeline()
    pipeline.vae.register_to_config(_name_or_path="")  # else the configuration names this machine's folders
    pipeline.to(dtype=torch.float16).save_pretrained(folder)


def train_text_to_video(config: TextToVideoConfig) -> Path:
    """Train the text-to-video model and export it.

    Args:
        config: how to train it.

    Returns:
        The exported folder, `output/picturebook-video`.
    """
    torch.set_num_threads(config.threads)
    module = TextToVideoTraining(config, load_video_autoencoder(config.vae))
    fit(module, config.processes)
    folder = config.output / "picturebook-video"
    export_video_pipeline(module, folder)
    return folder
