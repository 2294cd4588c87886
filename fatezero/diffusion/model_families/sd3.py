"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): image transformers, whose places attend jointly with the prompt.

Each frame of a clip is an image of its own, which sees no other. The prompt's tokens are CLIP's and, behind them, T5's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from fatezero.attention.prompts import Prompt, joined_prompts, read_prompt, read_unmarked_prompt
from fatezero.attention.sites import Site
from fatezero.diffusion.flow_matching import FlowStep, placed_steps, shift_of_size
from fatezero.diffusion.model_families.joint_networks import JointNetworks, by_branch, told
from fatezero.diffusion.model_families.latents import decode_images, encode_images
from fatezero.diffusion.model_families.pipeline_networks import padded_tokens
from fatezero.diffusion.texts import TextConditioning, check_same_places

T5_TOKENS = 256  # that StableDiffusion3Pipeline has behind CLIP's; zeros where there is no T5


class StableDiffusion3Networks(JointNetworks):
    """The parts of a StableDiffusion3Pipeline."""

    embeds_guidance = False
    sees_single_frames = True

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Joint attention of each block, and the self-attention of places that some blocks of 3.5 have beside it."""
        blocks = list(enumerate(self.pipe.transformer.transformer_blocks))
        joint = [self.joint_site(f"transformer_blocks.{number}.attn", number) for number, _ in blocks]
        beside = [number for number, block in blocks if block.attn2 is not None]
        return (*joint, *(self.site(f"transformer_blocks.{number}.attn2", number, "self") for number in beside))

    @property
    def longest_side(self) -> int:
        """Latents in height or width for which the transformer knows places."""
        return int(self.config.pos_embed_max_size) * self.patch

    def read_prompt(self, text: str) -> Prompt:
        """Tokenise a prompt. Raises UserError if it is too long for CLIP or T5, or the CLIPs read it unlike."""
        clip, t5 = read_prompt(self.pipe.tokenizer, text, most=1), self.pipe.tokenizer_3
        check_same_places((self.pipe.tokenizer, self.pipe.tokenizer_2), text)
        if t5 is None:
            return clip
        return joined_prompts(
            clip, read_unmarked_prompt(t5, text, T5_TOKENS, attends_to_padding=True), self.pipe.tokenizer.pad_token_id
        )

    def embed(self, text: str) -> TextConditioning:
        """Last but one states of both CLIPs side by side, T5's last ones behind them; and the CLIPs' pooled texts."""
        pipe = self.pipe
        clips = [
            self._clip(tokenizer, encoder, text)
            for tokenizer, encoder in ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2))
        ]
        hidden = torch.cat([clip.hidden_states[-2] for clip in clips], dim=-1)
        hidden = pad(hidden, (0, int(self.config.joint_attention_dim) - hidden.shape[-1]))
        pooled = torch.cat([clip.text_embeds for clip in clips], dim=-1)
        return TextConditioning(torch.cat([hidden, self._t5(text, hidden)], dim=1), pooled)

    def _clip(self, tokenizer: Any, encoder: Any, text: str) -> Any:
        ids = padded_tokens(tokenizer, text, int(tokenizer.model_max_length), encoder.device)
        return encoder(ids, output_hidden_states=True)

    def _t5(self, text: str, like: Tensor) -> Tensor:
        encoder = self.pipe.text_encoder_3
        if encoder is None:
            return like.new_zeros(1, T5_TOKENS, like.shape[-1])
        states: Tensor = encoder(padded_tokens(self.pipe.tokenizer_3, text, T5_TOKENS, encoder.device))[0]
        return states.to(like)

    def encode(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Latents F,C,h,w of a clip 1,3,F,H,W in [-1, 1], of unit variance; a generator samples them."""
        return encode_images(self.pipe.vae, pixels, generator)

    def decode(self, latents: Tensor) -> Tensor:
        """A clip 1,3,F,H,W in [-1, 1] of latents F,C,h,w."""
        return decode_images(self.pipe.vae, latents)

    def schedule(self, steps: int, latent_shape: tuple[int, int, int, int]) -> tuple[FlowStep, ...]:
        """The levels of the checkpoint's scheduler, which may be noisier for larger images."""
        places = (latent_shape[-2] // self.patch) * (latent_shape[-1] // self.patch)
        return placed_steps(
            self.pipe.scheduler, num_inference_steps=steps, **shift_of_size(self.pipe.scheduler, places)
        )

    def predict(
        self,
        latents: Tensor,
        timestep: float,
        texts: Sequence[TextConditioning],
        guidance: Sequence[float],  # noqa: ARG002
    ) -> Tensor:
        """The velocity for latents branches,C,F,h,w, each frame by itself."""
        frames = latents.shape[2]
        images = latents.transpose(1, 2).flatten(0, 1)
        prompts, pooled = told(texts, frames, latents)
        timesteps = torch.full((len(images),), timestep, dtype=torch.float32, device=latents.device)
        velocity: Tensor = self.pipe.transformer(images, prompts, pooled, timesteps, return_dict=False)[0]
        return by_branch(velocity, frames)
