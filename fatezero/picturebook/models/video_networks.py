"""Picturebook-Video's networks, with random weights: Wan's transformer and its text encoder, both small."""

from __future__ import annotations

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttention
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from fatezero.picturebook.models.video_autoencoder import CHANNELS

TEXT_WIDTH = 128  # of the text encoder
PATCH = 2  # latent positions to a token, each way


def new_transformer() -> WanTransformer3DModel:
    """A WanTransformer3DModel of seven million parameters, random weights.

    Weights are drawn as DiT's (Peebles and Xie, ICCV 2023): the blocks' modulation starts small, the output at zero.
    """
    transformer = WanTransformer3DModel(
        patch_size=(1, PATCH, PATCH),
        num_attention_heads=4,
        attention_head_dim=64,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=256,
        ffn_dim=1024,
        num_layers=6,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    )
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.normal_(transformer.condition_embedder.time_proj.weight, std=0.02)
    nn.init.zeros_(transformer.proj_out.weight)
    for block in transformer.blocks:
        look_past_padding(block.attn2)
    return transformer


@torch.no_grad()
def look_past_padding(attn: WanAttention) -> None:
    """Let queries start away from the padding's key, so that a dozen words are not lost among 500 pads.

    The padding's embedding is zero at first, so its key is the bias alone, which normalisation makes as long as any.
    """
    direction = torch.randint(0, 2, attn.to_k.bias.shape) * 2.0 - 1
    attn.to_k.bias.copy_(0.01 * direction)
    attn.to_q.bias.copy_(-0.7 * direction)


def new_umt5_encoder(vocabulary: int) -> UMT5EncoderModel:
    """A three-layer UMT5EncoderModel with random weights."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocabulary,
            d_model=TEXT_WIDTH,
            d_kv=32,
            d_ff=256,
            num_layers=3,
            num_heads=4,
            dropout_rate=0.0,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=32,
        )
    )


def read_captions(text_encoder: UMT5EncoderModel, tokens: Tensor) -> Tensor:
    """What Wan's pipeline makes of captions, N,T,TEXT_WIDTH: embeddings, and zeros for padding."""
    words = tokens != text_encoder.config.pad_token_id
    hidden: Tensor = text_encoder(tokens, words).last_hidden_state * words[..., None]
    return hidden
