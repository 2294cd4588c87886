"""Seeded random Wan pipelines of exact shapes: for benchmarks and tests, where only shapes matter."""

from __future__ import annotations

import string
from types import SimpleNamespace
from typing import Any, Literal

import torch

from fatezero.attention.sites import Site
from fatezero.benchmarking.random_checkpoint import default_dtype
from fatezero.diffusion.model_families.wan import WanNetworks

WanSize = Literal["wan-1.3b", "wan-1.3b-block", "wan-small"]
WAN_FRAMES = 81  # that published ones were trained on
CHANNELS = 16  # of the latents
# Wan 2.1 T2V 1.3B's own configuration (Wan-AI/Wan2.1-T2V-1.3B-Diffusers, transformer/config.json); one of its blocks;
# and a transformer of 13 million weights.
_LARGE = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "text_dim": 4096, "freq_dim": 256}
WAN_SHAPES: dict[str, dict[str, int]] = {
    "wan-1.3b": {**_LARGE, "num_layers": 30},
    "wan-1.3b-block": {**_LARGE, "num_layers": 1},
    "wan-small": {
        **{"num_attention_heads": 4, "attention_head_dim": 64, "ffn_dim": 1024, "text_dim": 256, "freq_dim": 128},
        "num_layers": 8,
    },
}


def random_wan(size: WanSize, dtype: torch.dtype, seed: int = 0) -> Any:
    """A WanPipeline with random weights, on the device that is torch's default.

    Args:
        size: of the transformer, which is shaped exactly so; autoencoder and text encoder are small, the latter as wide
            as the transformer expects, and its tokenizer spells words letter by letter.
        dtype: dtype of the weights.
        seed: seed of the weights.
    """
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline  # noqa: PLC0415

    tokenizer = _spelling_tokenizer()
    with torch.random.fork_rng(), default_dtype(dtype):
        torch.manual_seed(seed)
        return WanPipeline(
            tokenizer=tokenizer,
            text_encoder=_random_umt5(WAN_SHAPES[size]["text_dim"], len(tokenizer)),
            transformer=_random_transformer(size),
            vae=AutoencoderKLWan(base_dim=8, z_dim=CHANNELS, dim_mult=[1, 1, 2, 2], num_res_blocks=1),
            scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        )


def wan_sites(size: WanSize) -> tuple[Site, ...]:
    """The attention layers of a transformer, without building it."""
    with torch.device("meta"):
        transformer = _random_transformer(size)
    return WanNetworks(size, SimpleNamespace(transformer=transformer, transformer_2=None)).sites


def _random_transformer(size: WanSize) -> Any:
    from diffusers import WanTransformer3DModel  # noqa: PLC0415

    return WanTransformer3DModel(in_channels=CHANNELS, out_channels=CHANNELS, **WAN_SHAPES[size])


def _random_umt5(width: int, tokens: int) -> Any:
    from transformers import UMT5Config, UMT5EncoderModel  # noqa: PLC0415

    shape = {"d_model": width, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": tokens}
    return UMT5EncoderModel(UMT5Config(**shape, feed_forward_proj="gated-gelu"))


def _spelling_tokenizer() -> Any:
    from transformers import T5Tokenizer  # noqa: PLC0415

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    pieces += [(character, -2.0) for character in string.ascii_letters + string.digits + string.punctuation]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
