"""CogVideoX (Yang et al. 2025): video transformers whose places attend jointly with the prompt, before them.

They predict v at the levels of a DDPM, which DDIM's moves lead along in both directions. T5 reads a prompt with its
padding, to which places attend as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from fatezero.attention.prompts import Prompt, read_unmarked_prompt
from fatezero.attention.sites import Site
from fatezero.diffusion.ddim import DDIMSolver, DDIMStep, placed_ddim_steps
from fatezero.diffusion.model_families.joint_networks import JointNetworks
from fatezero.diffusion.model_families.latents import decode_video, encode_video
from fatezero.diffusion.model_families.pipeline_networks import padded_tokens
from fatezero.diffusion.texts import TextConditioning
from fatezero.errors import UserError


class CogVideoXNetworks(JointNetworks):
    """The parts of a CogVideoXPipeline.

    Raises:
        UserError: for version 1.5, whose patches span time, and for schedulers of which DDIM's moves are no solution.
    """

    embeds_guidance = False
    predicts_velocity = False
    sees_single_frames = False

    def __init__(self, name: str, pipe: Any) -> None:
        super().__init__(name, pipe)
        scheduler = pipe.scheduler.config
        if self.config.patch_size_t is not None:
            raise UserError(
                f"{name} is CogVideoX 1.5, whose patches span several latents in time: use CogVideoX-2b or -5b."
            )
        if scheduler.prediction_type != "v_prediction" or scheduler.get("clip_sample"):
            raise UserError(
                f"{name}: its scheduler has prediction_type {scheduler.prediction_type!r} and clip_sample "
                f"{bool(scheduler.get('clip_sample'))}: CogVideoX predicts v_prediction and clips nothing; mend "
                "scheduler_config.json."
            )

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Joint attention of each block."""
        blocks = range(int(self.config.num_layers))
        return tuple(self.joint_site(f"transformer_blocks.{number}.attn1", number) for number in blocks)

    @property
    def length_unit(self) -> int:
        """Of two latents: the autoencoder decodes an odd number of them alone to the frames that they stand for."""
        return 2 * self.frames_per_latent

    @property
    def text_tokens(self) -> int:
        """Of T5, with padding."""
        return int(self.config.max_text_seq_length)

    def read_prompt(self, text: str) -> Prompt:
        """Tokenise a prompt. Raises UserError if it is too long."""
        return read_unmarked_prompt(self.pipe.tokenizer, text, self.text_tokens, attends_to_padding=True)

    def embed(self, text: str) -> TextConditioning:
        """T5's last states of the prompt and its padding."""
        encoder = self.pipe.text_encoder
        return TextConditioning(encoder(padded_tokens(self.pipe.tokenizer, text, self.text_tokens, encoder.device))[0])

    def encode(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Latents F,C,h,w of a clip 1,3,F,H,W in [-1, 1], of unit variance; a generator samples them."""
        return encode_video(self.pipe.vae, pixels, generator)

    def decode(self, latents: Tensor) -> Tensor:
        """A clip 1,3,F,H,W in [-1, 1] of latents F,C,h,w."""
        return decode_video(self.pipe.vae, latents)

    def schedule(self, steps: int, latent_shape: tuple[int, int, int, int]) -> tuple[DDIMStep, ...]:  # noqa: ARG002
        """The levels of the checkpoint's scheduler, the same for all sizes."""
        return placed_ddim_steps(self.pipe.scheduler, steps)

    def solver(self, order: Literal[1, 2]) -> DDIMSolver:
        """DDIM's moves of a predicted v."""
        return DDIMSolver(order, "v_prediction")

    def predict(
        self,
        latents: Tensor,
        timestep: float,
        texts: Sequence[TextConditioning],
        guidance: Sequence[float],  # noqa: ARG002
    ) -> Tensor:
        """The predicted v for latents branches,C,F,h,w."""
        prompts = torch.cat([text.hidden for text in texts]).to(latents)
        predicted: Tensor = self.pipe.transformer(
            latents.transpose(1, 2),
            prompts,
            torch.full((len(latents),), int(timestep), device=latents.device),
            image_rotary_emb=self._rotations(latents),
            return_dict=False,
        )[0]
        return predicted.transpose(1, 2)

    def _rotations(self, latents: Tensor) -> tuple[Tensor, Tensor] | None:
        """Of all places, as CogVideoXPipeline has them; None where positions are added to places before."""
        if not self.config.use_rotary_positional_embeddings:
            return None
        height, width = (side * self.pixels_per_latent for side in latents.shape[-2:])
        rotations: tuple[Tensor, Tensor] = self.pipe._prepare_rotary_positional_embeddings(
            height, width, latents.shape[2], latents.device
        )
        return rotations
