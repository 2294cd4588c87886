"""What the families share whose places attend to each other and then, in a layer of its own, to the prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from fatezero.attention.processor import AttentionState
from fatezero.attention.sites import Kind, Site
from fatezero.attention.transformer_attention import PlaceAttention
from fatezero.diffusion.model_families.pipeline_networks import PipelineNetworks
from fatezero.diffusion.posterior import latents_of

LAYERS: tuple[tuple[str, Kind], ...] = (("attn1", "self"), ("attn2", "cross"))


class CrossNetworks(PipelineNetworks, ABC):
    """The parts of such a pipeline, of a video model."""

    embeds_guidance = False
    sees_single_frames = False
    blocks: ClassVar[str]  # the transformer's name for them

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Self-attention and cross-attention of each block."""
        return tuple(
            self.site(f"{self.blocks}.{block}.{layer}", block, kind)
            for block in range(int(self.config.num_layers))
            for layer, kind in LAYERS
        )

    def processor(self, site: Site, state: AttentionState) -> PlaceAttention:
        """Of a layer of either kind."""
        return PlaceAttention(site, state)

    @abstractmethod
    def statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale of the autoencoder's latents, C,1,1,1, in the format of others and on their device."""

    def encode(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Latents F,C,h,w of a clip 1,3,F,H,W in [-1, 1], of unit variance; a generator samples them."""
        vae = self.pipe.vae
        latents = latents_of(vae.encode(pixels.to(vae.dtype)).latent_dist, pixels.dtype, generator)
        mean, scale = self.statistics(latents)
        scaled: Tensor = (latents - mean) / scale
        return scaled[0].transpose(0, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """A clip 1,3,F,H,W in [-1, 1] of latents F,C,h,w."""
        mean, scale = self.statistics(latents)
        return self.decode_unscaled((latents.transpose(0, 1)[None] * scale + mean).to(self.pipe.vae.dtype))

    def decode_unscaled(self, latents: Tensor) -> Tensor:
        """A clip 1,3,F,H,W of latents 1,C,F,h,w as the autoencoder has them."""
        clip: Tensor = self.pipe.vae.decode(latents).sample
        return clip
