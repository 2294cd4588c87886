"""Wan (Wan et al. 2025): video transformers with self-attention over all places and cross-attention to the prompt.

Wan 2.1; Wan 2.2 A14B, where a second transformer denoises below a share of the noise levels; and Wan 2.2 TI2V, which is
told a timestep for each place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fatezero.attention.prompts import Prompt, read_unmarked_prompt
from fatezero.diffusion.flow_matching import FlowStep, placed_steps
from fatezero.diffusion.model_families.cross_networks import CrossNetworks
from fatezero.diffusion.texts import TextConditioning

TEXT_TOKENS = 512  # that WanPipeline gives the transformer; those behind the prompt are zeros, and are attended to


class WanNetworks(CrossNetworks):
    """The parts of a WanPipeline."""

    blocks = "blocks"

    @cached_property
    def transformers(self) -> list[Any]:
        """The one of the noisier levels first."""
        return [part for part in (self.pipe.transformer, self.pipe.transformer_2) if part is not None]

    @property
    def patch(self) -> int:
        """Latents in height and width that make a place."""
        return int(self.config.patch_size[1])

    def stage(self, timestep: float) -> int:
        """1 below the boundary, where the second transformer denoises."""
        boundary, levels = self.pipe.config.boundary_ratio, self.pipe.scheduler.config.num_train_timesteps
        return 0 if boundary is None or timestep >= boundary * levels else 1

    def read_prompt(self, text: str) -> Prompt:
        """Tokenise a prompt. Raises UserError if it is too long."""
        return read_unmarked_prompt(self.pipe.tokenizer, text, TEXT_TOKENS, attends_to_padding=True)

    def embed(self, text: str) -> TextConditioning:
        """The text encoder's last state of the prompt's tokens, zeros behind them."""
        ids = torch.tensor([self.read_prompt(text).ids], device=self.transformers[0].device)
        hidden: Tensor = self.pipe.text_encoder(ids).last_hidden_state
        return TextConditioning(torch.nn.functional.pad(hidden, (0, 0, 0, TEXT_TOKENS - ids.shape[1])))

    def statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the autoencoder's latents, C,1,1,1."""
        config = self.pipe.vae.config
        mean, std = (torch.tensor(part)[:, None, None, None] for part in (config.latents_mean, config.latents_std))
        return mean.to(like), std.to(like)

    def schedule(self, steps: int, latent_shape: tuple[int, int, int, int]) -> tuple[FlowStep, ...]:  # noqa: ARG002
        """The levels of the checkpoint's scheduler, the same for all sizes."""
        return placed_steps(self.pipe.scheduler, num_inference_steps=steps)

    def predict(
        self,
        latents: Tensor,
        timestep: float,
        texts: Sequence[TextConditioning],
        guidance: Sequence[float],  # noqa: ARG002
    ) -> Tensor:
        """The velocity for latents branches,C,F,h,w."""
        transformer = self.transformers[self.stage(timestep)]
        told = torch.full((len(latents),), timestep, dtype=torch.float32, device=latents.device)
        if self.pipe.config.expand_timesteps:
            frames, rows, columns = latents.shape[2:]
            told = told[:, None].expand(-1, frames * (rows // self.patch) * (columns // self.patch))
        prompts = torch.cat([text.hidden for text in texts]).to(latents)
        velocity: Tensor = transformer(latents, told, prompts, return_dict=False)[0]
        return velocity
