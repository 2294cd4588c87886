"""Flux (Black Forest Labs 2024): image transformers whose places attend jointly with the prompt, before them.

Each frame of a clip is an image of its own, which sees no other. T5 reads the prompt with its padding, to which places
attend as well; CLIP's pooled state is added to the timestep's. Blocks that treat both alike follow those with weights
of the text's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from fatezero.attention.prompts import Prompt, read_unmarked_prompt
from fatezero.attention.sites import Site
from fatezero.diffusion.flow_matching import FlowStep, even_levels, placed_steps, shift_of_size
from fatezero.diffusion.model_families.joint_networks import JointNetworks, by_branch, pooled_by_clip, told
from fatezero.diffusion.model_families.latents import decode_images, encode_images
from fatezero.diffusion.model_families.pipeline_networks import padded_tokens
from fatezero.diffusion.texts import TextConditioning

T5_TOKENS = 512  # of FluxPipeline
PACKED = 2  # latents in height and width of one place
TIMESTEPS = 1000.0  # the transformer is told shares of them


class FluxNetworks(JointNetworks):
    """The parts of a FluxPipeline."""

    sees_single_frames = True
    patch = PACKED

    @property
    def embeds_guidance(self) -> bool:
        """Whether the transformer is told the guidance scale, as Flux dev is."""
        return bool(self.config.guidance_embeds)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Joint attention of each block."""
        return self.double_and_single_sites()

    def read_prompt(self, text: str) -> Prompt:
        """Tokenise a prompt. Raises UserError if it is too long for T5."""
        return read_unmarked_prompt(self.pipe.tokenizer_2, text, T5_TOKENS, attends_to_padding=True)

    def embed(self, text: str) -> TextConditioning:
        """T5's last states of the prompt and its padding, and CLIP's pooled state."""
        pipe = self.pipe
        ids = padded_tokens(pipe.tokenizer_2, text, T5_TOKENS, pipe.text_encoder_2.device)
        pooled = pooled_by_clip(pipe.tokenizer, pipe.text_encoder, text)
        return TextConditioning(pipe.text_encoder_2(ids)[0], pooled)

    def encode(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Latents F,C,h,w of a clip 1,3,F,H,W in [-1, 1], of unit variance; a generator samples them."""
        return encode_images(self.pipe.vae, pixels, generator)

    def decode(self, latents: Tensor) -> Tensor:
        """A clip 1,3,F,H,W in [-1, 1] of latents F,C,h,w."""
        return decode_images(self.pipe.vae, latents)

    def schedule(self, steps: int, latent_shape: tuple[int, int, int, int]) -> tuple[FlowStep, ...]:
        """The levels that FluxPipeline gives the checkpoint's scheduler, which may be noisier for larger images."""
        places = (latent_shape[-2] // PACKED) * (latent_shape[-1] // PACKED)
        scheduler = self.pipe.scheduler
        return placed_steps(scheduler, sigmas=even_levels(steps), **shift_of_size(scheduler, places))

    def predict(
        self, latents: Tensor, timestep: float, texts: Sequence[TextConditioning], guidance: Sequence[float]
    ) -> Tensor:
        """The velocity for latents branches,C,F,h,w, each frame by itself."""
        frames, rows, columns = latents.shape[2:]
        prompts, pooled = told(texts, frames, latents)
        images = packed(latents.transpose(1, 2).flatten(0, 1))
        scales = torch.tensor(guidance, dtype=torch.float32).to(latents.device).repeat_interleave(frames)
        velocity: Tensor = self.pipe.transformer(
            images,
            encoder_hidden_states=prompts,
            pooled_projections=pooled,
            timestep=torch.full((len(images),), timestep / TIMESTEPS).to(latents),
            img_ids=_positions(rows // PACKED, columns // PACKED).to(latents.device),
            txt_ids=latents.new_zeros(prompts.shape[1], 3),
            guidance=scales if self.embeds_guidance else None,
            return_dict=False,
        )[0]
        return by_branch(unpacked(velocity, rows // PACKED), frames)


def packed(images: Tensor) -> Tensor:
    """Latents N,C,h,w as places N,P,(C * 4)."""
    by_patch: Tensor = images.unflatten(3, (-1, PACKED)).unflatten(2, (-1, PACKED))  # N,C,rows,2,columns,2
    return by_patch.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(places: Tensor, rows: int) -> Tensor:
    """Places N,P,(C * 4) of so many rows as latents N,C,h,w."""
    by_patch: Tensor = places.unflatten(2, (-1, PACKED, PACKED)).unflatten(1, (rows, -1))  # N,rows,columns,C,2,2
    return by_patch.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def _positions(rows: int, columns: int) -> Tensor:
    """Row and column of each place, P,3, behind a zero that all share; float32, as bfloat16 rounds those above 256."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1).float()
