"""HunyuanVideo (Kong et al. 2024): video transformers whose places attend jointly with the prompt, behind them.

A language model reads the prompt within a template, of which only the prompt's own states are kept; CLIP's pooled state
is added to the timestep's. Blocks that treat both alike follow those with weights of the text's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from fatezero.attention.prompts import Prompt, read_framed_prompt
from fatezero.attention.sites import Site
from fatezero.diffusion.flow_matching import FlowStep, even_levels, placed_steps
from fatezero.diffusion.model_families.joint_networks import JointNetworks, pooled_by_clip, told
from fatezero.diffusion.model_families.latents import decode_video, encode_video
from fatezero.diffusion.texts import TextConditioning

TEXT_TOKENS = 256  # that HunyuanVideoPipeline keeps of a prompt, with the mark behind it
LAYERS_SKIPPED = 2  # of the language model, at its end
GUIDANCE_TIMES = 1000.0


class HunyuanVideoNetworks(JointNetworks):
    """The parts of a HunyuanVideoPipeline."""

    sees_single_frames = False

    @property
    def embeds_guidance(self) -> bool:
        """Whether the transformer is told the guidance scale."""
        return bool(self.config.guidance_embeds)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Joint attention of each block."""
        return self.double_and_single_sites()

    def read_prompt(self, text: str) -> Prompt:
        """Tokenise a prompt. Raises UserError if it is too long."""
        template, cropped = _template()
        return read_framed_prompt(self.pipe.tokenizer, text, TEXT_TOKENS, template, cropped)

    def embed(self, text: str) -> TextConditioning:
        """An earlier state of the language model of the prompt's own tokens, and CLIP's pooled state."""
        pipe, (template, cropped) = self.pipe, _template()
        ids = pipe.tokenizer(template.format(text), return_tensors="pt").input_ids.to(pipe.text_encoder.device)
        states = pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-(LAYERS_SKIPPED + 1)]
        pooled = pooled_by_clip(pipe.tokenizer_2, pipe.text_encoder_2, text)
        return TextConditioning(states[:, cropped:], pooled)

    def encode(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Latents F,C,h,w of a clip 1,3,F,H,W in [-1, 1], of unit variance; a generator samples them."""
        return encode_video(self.pipe.vae, pixels, generator)

    def decode(self, latents: Tensor) -> Tensor:
        """A clip 1,3,F,H,W in [-1, 1] of latents F,C,h,w."""
        return decode_video(self.pipe.vae, latents)

    def schedule(self, steps: int, latent_shape: tuple[int, int, int, int]) -> tuple[FlowStep, ...]:  # noqa: ARG002
        """The levels that HunyuanVideoPipeline gives the checkpoint's scheduler, the same for all sizes."""
        return placed_steps(self.pipe.scheduler, sigmas=even_levels(steps))

    def predict(
        self, latents: Tensor, timestep: float, texts: Sequence[TextConditioning], guidance: Sequence[float]
    ) -> Tensor:
        """The velocity for latents branches,C,F,h,w."""
        prompts, pooled = told(texts, 1, latents)
        lengths = torch.tensor([text.hidden.shape[1] for text in texts], device=latents.device)
        own = torch.arange(prompts.shape[1], device=latents.device)[None] < lengths[:, None]
        velocity: Tensor = self.pipe.transformer(
            latents,
            torch.full((len(latents),), timestep, dtype=torch.float32, device=latents.device),
            prompts,
            own.to(latents.dtype),
            pooled,
            guidance=torch.tensor(guidance).to(latents) * GUIDANCE_TIMES if self.embeds_guidance else None,
            return_dict=False,
        )[0]
        return velocity


def _template() -> tuple[str, int]:
    """What the language model reads around a prompt, and how many tokens of it come before."""
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import (  # noqa: PLC0415  (seconds to import)
        DEFAULT_PROMPT_TEMPLATE,
    )

    return str(DEFAULT_PROMPT_TEMPLATE["template"]), int(DEFAULT_PROMPT_TEMPLATE["crop_start"])
