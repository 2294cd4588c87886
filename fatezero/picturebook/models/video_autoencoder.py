"""Training of the video autoencoder: 17 frames of 128×128 to five latent frames of 16×16, sixteen channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from fatezero.errors import UserError
from fatezero.picturebook.models.autoencoder import reconstruction_loss
from fatezero.picturebook.models.clip_pool import FRAMES, ClipShard, stored_clips
from fatezero.picturebook.models.fitting import SharedModule, SharedTrainingConfig, fit
from fatezero.picturebook.world.scenes import SIZE

SPATIAL, TEMPORAL = 8, 4  # pixels and frames to a latent
CHANNELS = 16  # of a latent
CROP, EXCERPT = 64, 9  # side and frames of a crop


@dataclass(frozen=True, kw_only=True)
class VideoAutoencoderConfig(SharedTrainingConfig):
    """How the video autoencoder is trained.

    A CPU trains in float32 alone: bfloat16 gradients of 3-D convolutions are not numbers, or written beyond their
    memory, on CPUs with AMX (oneDNN as of torch 2.14; 32 output channels, frames 60 or more wide).

    Attributes:
        batch: crops of CROP pixels and EXCERPT frames in most steps; every `whole_every`-th step sees whole clips
            instead, about as many pixels, so that the model knows what lies further apart.
        whole_every: which steps see whole clips.
        kl_weight: weight of the latents' mean divergence from a unit normal.
        decoder_only: keep the encoder as it is, so that latents encoded earlier stay valid.
    """

    batch: int = 4
    weight_decay: float = 0.0
    whole_every: int = 4
    kl_weight: float = 1e-3
    decoder_only: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that no step fits, and bfloat16 on a CPU."""
        super().__post_init__()
        if self.bf16 and self.accelerator != "gpu":
            raise UserError(
                "bf16: a CPU trains the video autoencoder in float32 alone; leave this out, or name accelerator gpu."
            )
        if self.whole_every < 1:
            raise UserError(f"whole_every is {self.whole_every}: it is at least 1.")


def new_video_autoencoder() -> AutoencoderKLWan:
    """A small AutoencoderKLWan with random weights, its latents almost without noise at first.

    Like Wan 2.2's it takes pixels in patches of 2×2 and adds averages past its blocks (Chen et al., "Deep compression
    autoencoder", ICLR 2025): nothing works at full resolution, and it learns fast.
    """
    vae = AutoencoderKLWan(
        base_dim=32,
        z_dim=CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        is_residual=True,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        scale_factor_spatial=SPATIAL,
        scale_factor_temporal=TEMPORAL,
    )
    nn.init.constant_(vae.quant_conv.bias[CHANNELS:], -5.0)
    return vae


def channels_last(vae: AutoencoderKLWan) -> None:
    """Store convolutions' weights channels last: a third faster on a CPU."""
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def decode_unclamped(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """What `vae.decode` clamps to -1..1: a clamped pixel has no gradient, and could stay wrong for ever."""
    hidden = vae.post_quant_conv(latents)
    cache: list[Tensor | None] = [None] * sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
    chunks = [
        vae.decoder(hidden[:, :, frame : frame + 1], feat_cache=cache, feat_idx=[0], first_chunk=frame == 0)
        for frame in range(hidden.shape[2])
    ]
    pixels: Tensor = unpatchify(torch.cat(chunks, dim=2), vae.config.patch_size)
    return pixels


class VideoAutoencoderTraining(SharedModule):
    """Trains an AutoencoderKLWan on random crops and on whole clips of the pool."""

    config: VideoAutoencoderConfig

    def __init__(self, config: VideoAutoencoderConfig, pool: Sequence[ClipShard]) -> None:
        super().__init__(config)
        self.pool = pool
        self.vae = AutoencoderKLWan.from_pretrained(config.init_from) if config.init_from else new_video_autoencoder()
        channels_last(self.vae)
        if config.decoder_only:
            self.vae.encoder.requires_grad_(False)
            self.vae.quant_conv.requires_grad_(False)

    def autocast(self) -> torch.autocast:
        """What the autoencoder works in while it is entered: on a CPU float32."""
        return torch.autocast("cpu", enabled=False) if self.device.type == "cpu" else super().autocast()

    def draw(self) -> npt.NDArray[np.uint8]:
        """This process's share of the step's excerpts: uint8 N,F,side,side,3."""
        rng, whole = self.rng(), self.global_step % self.config.whole_every == 0
        side, length = (SIZE, FRAMES) if whole else (CROP, EXCERPT)
        count = max(self.config.processes, self.config.batch // 4) if whole else self.config.batch
        crops = np.empty((count, length, side, side, 3), np.uint8)
        for crop in crops:
            frames = self.pool[int(rng.integers(len(self.pool)))].frames
            top, left = rng.integers(0, SIZE - side + 1, 2)
            start = int(rng.integers(0, FRAMES - length + 1))
            clip = frames[rng.integers(len(frames))]
            crop[:] = clip[start : start + length, top : top + side, left : left + side]
        return crops[self.share]

    def training_step(self, _: Tensor) -> Tensor:
        """One step on fresh excerpts."""
        pixels = to_clips(self.draw()).to(self.device)
        with self.autocast():
            posterior = DiagonalGaussianDistribution(self.vae.encode(pixels).latent_dist.parameters.float())
            count, *shape = posterior.mean.shape
            noise = torch.randn((count * self.config.processes, *shape), generator=self.generator())[self.share]
            output = decode_unclamped(self.vae, posterior.mean + posterior.std * noise.to(self.device)).float()
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        psnr = 10 * torch.log10(4 / (output.detach().clamp(-1, 1) - pixels).square().mean())
        name = "psnr_whole" if pixels.shape[2] == FRAMES else "psnr"
        self.log_dict({name: psnr, "kl": divergence, "noise": posterior.std.detach().mean()})
        loss: Tensor = reconstruction_loss(output, pixels) + self.config.kl_weight * divergence
        return loss

    def sample_grid(self) -> npt.NDArray[np.uint8]:
        """Every fourth frame of two clips over their reconstructions."""
        clips = self.pool[0].frames[:2]
        output = from_clips(self.vae.decode(self.vae.encode(to_clips(clips).to(self.device)).latent_dist.mode()).sample)
        return np.vstack([np.hstack(list(clip[::4])) for pair in zip(clips, output, strict=True) for clip in pair])


def to_clips(frames: npt.NDArray[np.uint8]) -> Tensor:
    """Uint8 N,F,H,W,3 to float N,3,F,H,W in -1..1, channels last in memory."""
    return torch.from_numpy(np.array(frames)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def from_clips(pixels: Tensor) -> npt.NDArray[np.uint8]:
    """Float N,3,F,H,W in -1..1 to uint8 N,F,H,W,3."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).cpu().numpy()


@torch.no_grad()
def latent_statistics(vae: AutoencoderKLWan, clips: npt.NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over these clips."""
    latents = torch.cat([vae.encode(to_clips(clip[None])).latent_dist.mode() for clip in clips])
    return latents.mean((0, 2, 3, 4)).tolist(), latents.std((0, 2, 3, 4)).tolist()


def train_video_autoencoder(config: VideoAutoencoderConfig) -> Path:
    """Train the video autoencoder and export it in diffusers layout.

    Args:
        config: how to train it.

    Returns:
        The exported folder, `output/vae`, fp16 safetensors.
    """
    pool = [stored_clips(config.pool, config.series, number) for number in range(config.shards)]
    module = VideoAutoencoderTraining(config, pool)
    fit(module, config.processes)
    vae = module.vae.cpu().eval()
    if not config.decoder_only:
        mean, std = latent_statistics(vae, pool[0].frames)
        vae.register_to_config(latents_mean=mean, latents_std=std)
    folder = config.output / "vae"
    vae.half().save_pretrained(folder)
    return folder
