"""Training of the autoencoder: 128×128 pictures to 32×32 latents of four channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from fatezero.errors import UserError
from fatezero.picturebook.models.fitting import PicturebookModule, TrainingConfig, fit, read_pool, to_images, to_pixels
from fatezero.picturebook.models.pool import Shard
from fatezero.picturebook.world.scenes import SIZE


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(TrainingConfig):
    """How the autoencoder is trained.

    Attributes:
        crop: side of the random crops, a multiple of 4; small ones give more steps in the same time.
        kl_weight: weight of the latent's divergence from a unit normal, per pixel.
        decoder_only: keep the encoder as it is, so that latents encoded earlier stay valid.
    """

    crop: int = SIZE
    kl_weight: float = 1e-6
    weight_decay: float = 0.0
    decoder_only: bool = False

    def __post_init__(self) -> None:
        """Refuse crops that the autoencoder cannot halve twice."""
        super().__post_init__()
        if not 4 <= self.crop <= SIZE or self.crop % 4:
            raise UserError(f"crop is {self.crop}: it is a multiple of 4, at most {SIZE}.")


def new_autoencoder() -> AutoencoderKL:
    """A small AutoencoderKL with random weights, its latents almost without noise at first."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=SIZE,
    )
    torch.nn.init.constant_(vae.quant_conv.bias[vae.config.latent_channels :], -5.0)
    return vae


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 + MSE + ½ L1 of the image gradients, of N,3,H,W in -1..1."""
    error = output - target
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + error.square().mean() + 0.5 * edges


class AutoencoderTraining(PicturebookModule):
    """Trains an AutoencoderKL on random crops of the pool."""

    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig, pool: Sequence[Shard]) -> None:
        super().__init__(config)
        self.pool = pool
        self.vae = AutoencoderKL.from_pretrained(config.init_from) if config.init_from else new_autoencoder()
        self.vae.to(memory_format=torch.channels_last)
        if config.decoder_only:
            self.vae.encoder.requires_grad_(False)
            self.vae.quant_conv.requires_grad_(False)

    def draw(self) -> npt.NDArray[np.uint8]:
        """This step's crops: uint8 batch,crop,crop,3."""
        rng, side = self.rng(), self.config.crop
        crops = np.empty((self.config.batch, side, side, 3), np.uint8)
        for crop in crops:
            images = self.pool[int(rng.integers(len(self.pool)))].images
            top, left = rng.integers(0, SIZE - side + 1, 2)
            crop[:] = images[rng.integers(len(images)), top : top + side, left : left + side]
        return crops

    def training_step(self, _: Tensor) -> Tensor:
        """One step on fresh crops."""
        pixels = to_pixels(self.draw()).to(self.device)
        with self.autocast():
            posterior = DiagonalGaussianDistribution(self.vae.encode(pixels).latent_dist.parameters.float())
            noise = torch.randn(posterior.mean.shape, generator=self.generator()).to(self.device)
            output = self.vae.decode(posterior.mean + posterior.std * noise).sample.float()
        divergence = posterior.kl().mean() / pixels[0].numel()
        psnr = 10 * torch.log10(4 / (output.detach().clamp(-1, 1) - pixels).square().mean())
        self.log_dict({"psnr": psnr, "kl": divergence})
        loss: Tensor = reconstruction_loss(output, pixels) + self.config.kl_weight * posterior.kl().mean()
        return loss

    def sample_grid(self) -> npt.NDArray[np.uint8]:
        """Eight pictures over their reconstructions."""
        images = self.pool[0].images[:8]
        output = to_images(
            self.vae.decode(self.vae.encode(to_pixels(images).to(self.device)).latent_dist.mode()).sample
        )
        return np.vstack([np.hstack(list(images)), np.hstack(list(output))])


@torch.no_grad()
def unit_scale(vae: AutoencoderKL, images: npt.NDArray[np.uint8]) -> float:
    """The factor that gives these images' latents unit variance."""
    return float(1 / vae.encode(to_pixels(images)).latent_dist.mode().std())


def train_autoencoder(config: AutoencoderConfig) -> Path:
    """Train the autoencoder and export it in diffusers layout.

    Args:
        config: how to train it.

    Returns:
        The exported folder, `output/vae`, fp16 safetensors.
    """
    pool = read_pool(config)
    module = AutoencoderTraining(config, pool)
    fit(module)
    module.vae.cpu().eval()
    if not config.decoder_only:
        module.vae.register_to_config(scaling_factor=unit_scale(module.vae, pool[0].images[:256]))
    folder = config.output / "vae"
    module.vae.half().save_pretrained(folder)
    return folder
