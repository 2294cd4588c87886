"""What the families share whose places and prompt attend jointly: one transformer, of blocks of such layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fatezero.attention.joint_attention import JointAttention, RowAttention
from fatezero.attention.processor import AttentionState
from fatezero.attention.sites import Site
from fatezero.diffusion.model_families.pipeline_networks import PipelineNetworks
from fatezero.diffusion.texts import TextConditioning


class JointNetworks(PipelineNetworks):
    """The parts of such a pipeline."""

    def joint_site(self, name: str, block: int) -> Site:
        """A layer of joint attention."""
        return self.site(name, block, "joint")

    def double_and_single_sites(self) -> tuple[Site, ...]:
        """Of blocks with weights of the text's own, and of those behind them that treat text and places alike."""
        pipe, first = self.pipe.transformer, len(self.pipe.transformer.transformer_blocks)
        double = [self.joint_site(f"transformer_blocks.{number}.attn", number) for number in range(first)]
        behind = range(len(pipe.single_transformer_blocks))
        single = [self.joint_site(f"single_transformer_blocks.{number}.attn", first + number) for number in behind]
        return (*double, *single)

    def processor(self, site: Site, state: AttentionState) -> JointAttention | RowAttention:
        """Of a layer of either kind."""
        return JointAttention(site, state) if site.kind == "joint" else RowAttention(site, state)


def told(texts: Sequence[TextConditioning], rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and pooled text of each branch, as often as it has rows; zeros behind those of shorter prompts."""
    hidden = torch.nn.utils.rnn.pad_sequence([text.hidden[0] for text in texts], batch_first=True).to(like)
    pooled = torch.cat([text.pooled for text in texts if text.pooled is not None]).to(like)
    return hidden.repeat_interleave(rows, 0), pooled.repeat_interleave(rows, 0)


def by_branch(images: Tensor, frames: int) -> Tensor:
    """Images (branches * F),C,h,w as clips branches,C,F,h,w."""
    clips: Tensor = images.unflatten(0, (-1, frames)).transpose(1, 2)
    return clips


def pooled_by_clip(tokenizer: Any, encoder: Any, text: str) -> Tensor:
    """CLIP's pooled state 1,P of a prompt, which is beside the point of single words: it reads the first 75 tokens."""
    length = int(tokenizer.model_max_length)
    tokens = tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    pooled: Tensor = encoder(tokens.input_ids.to(encoder.device)).pooler_output
    return pooled
