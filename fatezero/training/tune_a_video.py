"""Tune-A-Video as a training: one clip, one prompt, and only what the original trains."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from torch.nn.functional import mse_loss

from fatezero.attention.install import video_attention
from fatezero.attention.key_frames import cut_into_chunks, key_positions
from fatezero.attention.processor import Call
from fatezero.config import MethodConfig
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.texts import TextConditioning
from fatezero.training.clip_tuning import ClipTuning
from fatezero.training.tuning_config import TuningConfig
from fatezero.types import Frames

TRAINED = (".to_q", "attn_temporal")  # module names end so: queries everywhere, and all of temporal attention
CONVOLUTIONS = "conv_temporal"


def train_what_the_original_trains(unet: torch.nn.Module, *, convolutions: bool) -> None:
    """Freeze a UNet but for its queries and temporal layers (FateZero, train_tune_a_video.py)."""
    unet.requires_grad_(requires_grad=False)
    ends = (*TRAINED, CONVOLUTIONS) if convolutions else TRAINED
    for name, module in unet.named_modules():
        if name.endswith(ends):
            module.requires_grad_(requires_grad=True)


class Tuning(ClipTuning):
    """Predicts the noise of one clip, its frames at one noise level (Wu et al. 2023, section 3.2)."""

    backbone: UNetBackbone

    def __init__(
        self,
        options: TuningConfig,
        backbone: UNetBackbone,
        method: MethodConfig,
        frames: Frames,
        latents: Tensor,
        images: Tensor | None,
    ) -> None:
        """As `ClipTuning`: the backbone's UNet is inflated, and tuned under the method's key frames and norms."""
        super().__init__(options, backbone, method, frames, latents, images)
        self.unet = backbone.unet
        self._scheduler = DDIMScheduler.from_config(backbone.scheduler_config)
        self._video = ExitStack()
        train_what_the_original_trains(self.unet, convolutions=options.convolutions)
        if options.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

    def on_fit_start(self) -> None:
        """Let the UNet see its batch as a clip, also while gradients are recomputed."""
        self._state = self._video.enter_context(video_attention(self.unet, self.backbone.sites, self.method.norm_scope))

    def on_fit_end(self) -> None:
        """Put the UNet back."""
        self._video.close()

    def error(self, latents: Tensor, text: TextConditioning, generator: torch.Generator, *, images: bool) -> Tensor:
        """In the noise of a clip, or of images: see `ClipTuning`."""
        count, frames = (len(latents), 1) if images else (1, len(latents))
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        level = torch.randint(self._scheduler.config.num_train_timesteps, (count,), generator=generator)
        levels = level.repeat_interleave(frames).to(latents.device)
        noisy = self._scheduler.add_noise(latents, noise, levels)
        self._state.call = Call(
            branches=count,
            frames=frames,
            latent_size=(latents.shape[-2], latents.shape[-1]),
            key_positions=self._positions(frames),
            key_frames_min_width=self.method.key_frames_min_width,
            images=images,
        )
        told = self.backbone.conditioning([text], len(latents), (latents.shape[-2], latents.shape[-1]))
        predicted = self.unet(noisy, levels, **told).sample
        velocity = self.backbone.prediction_type == "v_prediction"
        target = self._scheduler.get_velocity(latents, noise, levels) if velocity else noise
        return mse_loss(predicted.float(), target.float())

    def _positions(self, frames: int) -> Tensor | None:
        whole = cut_into_chunks(frames, (), "clip", None)[0]
        return key_positions(self.method.key_frames, whole, frames)
