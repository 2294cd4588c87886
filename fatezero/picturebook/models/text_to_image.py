"""Training of the text-to-image model on stored latents, its words grounded from the first step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from fatezero.diffusion.noise_schedule import STABLE_DIFFUSION
from fatezero.picturebook.models.fitting import SharedModule, SharedTrainingConfig, fit
from fatezero.picturebook.models.grounding import grounding_loss
from fatezero.picturebook.models.latent_pool import LatentPool, SceneBatch, draw_scenes, shards_in_use
from fatezero.picturebook.models.picture_latents import PictureEncoder, load_autoencoder
from fatezero.picturebook.models.pool import COVERAGE
from fatezero.picturebook.models.tokenizer import CONTEXT, new_tokenizer
from fatezero.picturebook.models.training_attention import watched_words
from fatezero.picturebook.world.scenes import training_scene

LATENT = 32  # side of a latent
SIDES = (16, 8)  # attention maps of these sides are grounded
# A picture's error weighs its signal-to-noise ratio between these bounds. The cap is min-SNR's (Hang et al. 2023);
# the floor is what makes words count: at high noise, where what is painted is decided, plain noise prediction has
# hardly any loss left to learn them from.
SNR_FLOOR, SNR_CAP = 0.2, 3.0


@dataclass(frozen=True, kw_only=True)
class TextToImageConfig(SharedTrainingConfig):
    """How the text-to-image model is trained.

    Attributes:
        vae: folder of the trained autoencoder.
        pool: folder of latents; the training starts with a few shards and takes in more evenly to its end, so that
            `fatezero train picture-latents` can make them meanwhile, on another core.
        shards: of the pool, 400 pictures each.
        grounding: weight of the grounding loss.
        object_weight: how many times more an error inside the object weighs than one in the background.
        empty_prompts: share of pictures whose caption is dropped, for classifier-free guidance.
    """

    vae: Path
    batch: int = 16
    learning_rate: float = 6e-4
    grounding: float = 0.3
    object_weight: float = 5.0
    empty_prompts: float = 0.1


def new_unet() -> UNet2DConditionModel:
    """A UNet for 32×32 latents with attention at 16×16, 8×8 and 4×4, random weights."""
    return UNet2DConditionModel(
        sample_size=LATENT,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 128, 192),
        layers_per_block=1,
        attention_head_dim=4,  # diffusers' historical name for the number of heads
        cross_attention_dim=128,
        norm_num_groups=8,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A three-layer CLIPTextModel with random weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            projection_dim=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def level_weight(kept: Tensor) -> Tensor:
    """What an error in predicted noise weighs at a level, given its cumulative alpha."""
    snr = kept / (1 - kept)
    return snr.clamp(SNR_FLOOR, SNR_CAP) / snr


class TextToImageTraining(SharedModule):
    """Predicts noise (DDPM), weighted for what words decide, its words grounded by the true masks."""

    config: TextToImageConfig

    def __init__(self, config: TextToImageConfig, vae: AutoencoderKL) -> None:
        super().__init__(config)
        self.pool = LatentPool(PictureEncoder(vae), config.pool, config.series)
        self.vae = vae.requires_grad_(False)
        self.tokenizer = new_tokenizer()
        if config.init_from:
            self.unet = UNet2DConditionModel.from_pretrained(config.init_from, subfolder="unet", dtype=torch.float32)
            self.text_encoder = CLIPTextModel.from_pretrained(
                config.init_from, subfolder="text_encoder", dtype=torch.float32
            )
        else:
            self.unet, self.text_encoder = new_unet(), new_text_encoder(self.tokenizer)
        self.unet.to(memory_format=torch.channels_last).train()
        self.text_encoder.train()
        self.scheduler = DDIMScheduler(**STABLE_DIFFUSION)
        self.empty = self.pool.encoder.tokens([""])[0]

    def draw(self) -> SceneBatch:
        """This process's share of the step's pictures, clips of one frame."""
        config = self.config
        in_use = shards_in_use(config.shards, self.global_step, config.steps)
        drawn = draw_scenes(
            self.rng(), self.pool.pictures, in_use, config.batch, empty=self.empty, empty_share=config.empty_prompts
        )
        return drawn.part(self.share).to(self.device)

    def training_step(self, _: Tensor) -> Tensor:
        """One step on fresh noise."""
        drawn = self.draw()
        latents = drawn.latents[:, :, 0].contiguous(memory_format=torch.channels_last)
        generator, batch = self.generator(), self.config.batch
        noise = torch.randn((batch, *latents.shape[1:]), generator=generator)[self.share].to(self.device)
        levels = self.scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, levels, (batch,), generator=generator)[self.share].to(self.device)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        with self.autocast(), watched_words(self.unet) as maps:
            predicted = self.unet(noisy, timesteps, self.text_encoder(drawn.tokens).last_hidden_state).sample.float()
        kept = self.scheduler.alphas_cumprod.to(self.device)[timesteps]
        error = F.mse_loss(predicted, noise, reduction="none")
        places = 1 + (self.config.object_weight - 1) * F.interpolate(drawn.coverage, size=LATENT)
        loss = ((error * places).mean(dim=(1, 2, 3)) * level_weight(kept)).mean()
        # Nobody can see the object in pure noise: its words are held to it as far as the picture shows.
        grounding = torch.stack([self.grounding(maps[side**2], side, drawn, kept.sqrt()) for side in SIDES]).mean()
        self.log_dict({"loss": loss.detach(), "mse": error.mean().detach(), "grounding": grounding.detach()})
        total: Tensor = loss + self.config.grounding * grounding
        return total

    @staticmethod
    def grounding(maps: Sequence[Tensor], side: int, drawn: SceneBatch, clearness: Tensor) -> Tensor:
        """`grounding_loss` of layers' maps N,S,T of one size, side × side places."""
        looking = torch.stack(list(maps)).mean(0).unflatten(1, (side, side))
        return grounding_loss(looking, drawn.columns, F.avg_pool2d(drawn.coverage[:, 0], COVERAGE // side), clearness)

    def pipeline(self) -> StableDiffusionPipeline:
        """The model as a stock Stable Diffusion pipeline."""
        return StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def sample_grid(self) -> npt.NDArray[np.uint8]:
        """Eight pictures from pure noise."""
        rng = np.random.default_rng(0)
        pipeline = self.pipeline()
        pipeline.set_progress_bar_config(disable=True)
        prompts = [training_scene(rng).caption for _ in range(8)]
        generator = torch.Generator().manual_seed(0)
        images = pipeline(prompts, 20, guidance_scale=5.0, generator=generator, output_type="np").images
        return np.hstack(list((images * 255).round().astype(np.uint8)))


def export_pipeline(module: TextToImageTraining, folder: Path) -> None:
    """Write the whole model in diffusers layout, fp16 safetensors; the module ends on the CPU, in fp32."""
    pipeline = module.cpu().pipeline()
    pipeline.vae.register_to_config(_name_or_path="")  # else the configuration names this machine's folders
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    pipeline.to(dtype=torch.float32)


def train_text_to_image(config: TextToImageConfig) -> Path:
    """Train the text-to-image model and export it.

    Args:
        config: how to train it.

    Returns:
        The exported folder, `output/picturebook`.
    """
    torch.set_num_threads(config.threads)
    module = TextToImageTraining(config, load_autoencoder(config.vae))
    fit(module, config.processes)
    folder = config.output / "picturebook"
    export_pipeline(module, folder)
    return folder
