"""LTX-Video (HaCohen et al. 2024): self-attention over all places, and cross-attention to the prompt's own tokens.

Latents are of 32 x 32 pixels and 8 frames, and each is a place of the transformer. It is told how far apart places lie
in seconds and pixels; frames count as `FRAME_RATE` a second, as where LTXPipeline is told nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fatezero.attention.prompts import Prompt, read_unmarked_prompt
from fatezero.diffusion.flow_matching import FlowStep, even_levels, placed_steps, shift_of_size
from fatezero.diffusion.model_families.cross_networks import CrossNetworks
from fatezero.diffusion.model_families.pipeline_networks import padded_tokens
from fatezero.diffusion.texts import TextConditioning

TEXT_TOKENS = 128  # that the text encoder reads, with padding
FRAME_RATE = 25  # frames a second
DECODED_AT = 0.0  # the timestep that a decoder is told, where it takes one: of clean latents, with no noise added


class LTXNetworks(CrossNetworks):
    """The parts of an LTXPipeline."""

    blocks = "transformer_blocks"
    patch = 1

    def read_prompt(self, text: str) -> Prompt:
        """Tokenise a prompt. Raises UserError if it is too long."""
        return read_unmarked_prompt(self.pipe.tokenizer, text, TEXT_TOKENS, attends_to_padding=False)

    def embed(self, text: str) -> TextConditioning:
        """The text encoder's last state of the prompt's own tokens, which it reads beside padding, as LTXPipeline."""
        encoder = self.pipe.text_encoder
        padded = padded_tokens(self.pipe.tokenizer, text, TEXT_TOKENS, encoder.device)
        return TextConditioning(encoder(padded).last_hidden_state[:, : len(self.read_prompt(text).ids)])

    def decode_unscaled(self, latents: Tensor) -> Tensor:
        """As of other autoencoders; decoders that add noise of their own draw it from the same seed each time."""
        vae = self.pipe.vae
        told = torch.tensor([DECODED_AT]).to(latents) if vae.config.timestep_conditioning else None
        with torch.random.fork_rng([latents.device] if latents.is_cuda else []):
            torch.manual_seed(0)
            clip: Tensor = vae.decode(latents, told).sample
        return clip

    def statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale of the autoencoder's latents, C,1,1,1."""
        vae = self.pipe.vae
        mean, std = (part[:, None, None, None].to(like) for part in (vae.latents_mean, vae.latents_std))
        return mean, std / float(vae.config.scaling_factor)

    def schedule(self, steps: int, latent_shape: tuple[int, int, int, int]) -> tuple[FlowStep, ...]:
        """The levels of the checkpoint's scheduler, noisier for more places."""
        frames, _, rows, columns = latent_shape
        scheduler = self.pipe.scheduler
        return placed_steps(scheduler, sigmas=even_levels(steps), **shift_of_size(scheduler, frames * rows * columns))

    def predict(
        self,
        latents: Tensor,
        timestep: float,
        texts: Sequence[TextConditioning],
        guidance: Sequence[float],  # noqa: ARG002
    ) -> Tensor:
        """The velocity for latents branches,C,F,h,w. Each branch attends to the places of its own text alone."""
        frames, rows, columns = latents.shape[2:]
        pixels = self.pixels_per_latent
        velocity: Tensor = self.pipe.transformer(
            latents.flatten(2).transpose(1, 2),
            pad_sequence([text.hidden[0] for text in texts], batch_first=True).to(latents),
            torch.full((len(latents),), timestep, dtype=torch.float32, device=latents.device),
            None,
            num_frames=frames,
            height=rows,
            width=columns,
            rope_interpolation_scale=(self.frames_per_latent / FRAME_RATE, pixels, pixels),
            return_dict=False,
        )[0]
        clip: Tensor = velocity.transpose(1, 2).unflatten(2, (frames, rows, columns))
        return clip
