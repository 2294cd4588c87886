"""Seeded random checkpoints in Stable Diffusion's layout: for benchmarks and tests, where only shapes matter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from fatezero.diffusion.noise_schedule import STABLE_DIFFUSION

# Stable Diffusion 1.x's own configuration (CompVis/stable-diffusion-v1-4, unet/config.json), and a network of its
# shape with 35 million weights.
WIDTHS = {"medium": (64, 128, 256, 256), "sd1": (320, 640, 1280, 1280)}
TEXT_WIDTH = {"medium": 256, "sd1": 768}
AUTOENCODER_WIDTHS = {"medium": (16, 16, 32, 32), "sd1": (128, 256, 512, 512)}
AUTOENCODER_GROUPS = {"medium": 8, "sd1": 32}
AUTOENCODER_LAYERS = {"medium": 1, "sd1": 2}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,'-"


def random_pipeline(size: Literal["medium", "sd1"], dtype: torch.dtype, seed: int = 0) -> Any:
    """A StableDiffusionPipeline with random weights; its tokenizer spells words letter by letter.

    Args:
        size: size of the UNet; the autoencoder is small.
        dtype: dtype of the weights.
        seed: seed of the weights.
    """
    from diffusers import DDIMScheduler, StableDiffusionPipeline  # noqa: PLC0415

    with torch.random.fork_rng(), default_dtype(dtype):
        torch.manual_seed(seed)
        unet, vae, text_encoder = (
            _random_unet(size),
            _random_autoencoder("medium"),
            _random_text_encoder(TEXT_WIDTH[size]),
        )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=_spelling_tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(**STABLE_DIFFUSION),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _random_unet(size: Literal["medium", "sd1"]) -> Any:
    from diffusers import UNet2DConditionModel  # noqa: PLC0415

    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=WIDTHS[size],
        attention_head_dim=8,
        cross_attention_dim=TEXT_WIDTH[size],
    )


def random_autoencoder(size: Literal["medium", "sd1"], dtype: torch.dtype, seed: int = 0) -> Any:
    """An AutoencoderKL with random weights, on the device that is torch's default.

    Args:
        size: "sd1" has Stable Diffusion 1.x's own configuration, "medium" is small.
        dtype: dtype of the weights.
        seed: seed of the weights.
    """
    with torch.random.fork_rng(), default_dtype(dtype):
        torch.manual_seed(seed)
        made = _random_autoencoder(size)
    return made.requires_grad_(requires_grad=False).eval()


def _random_autoencoder(size: Literal["medium", "sd1"]) -> Any:
    from diffusers import AutoencoderKL  # noqa: PLC0415

    return AutoencoderKL(
        block_out_channels=AUTOENCODER_WIDTHS[size],
        norm_num_groups=AUTOENCODER_GROUPS[size],
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=AUTOENCODER_LAYERS[size],
        sample_size=512,
    )


def _random_text_encoder(width: int) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel  # noqa: PLC0415

    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=width * 2,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=2 * len(LETTERS) + 2,
            max_position_embeddings=77,
            bos_token_id=2 * len(LETTERS),
            eos_token_id=2 * len(LETTERS) + 1,
            pad_token_id=2 * len(LETTERS) + 1,
        )
    )


def random_motion(unet: Any, seed: int = 0) -> Any:
    """A UNetMotionModel of a UNet2DConditionModel, with random motion modules for up to 32 frames.

    Args:
        unet: the UNet whose weights are copied.
        seed: seed of the modules' weights.
    """
    from diffusers import MotionAdapter, UNetMotionModel  # noqa: PLC0415

    config = unet.config
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapter = MotionAdapter(
            block_out_channels=config.block_out_channels,
            motion_layers_per_block=config.layers_per_block,
            motion_norm_num_groups=config.norm_num_groups,
            motion_num_attention_heads=config.attention_head_dim,  # diffusers' historical name for their number
        )
    made = UNetMotionModel.from_unet2d(unet, torch.nn.Module.to(adapter, unet.dtype))
    return torch.nn.Module.to(made, unet.device, unet.dtype).requires_grad_(requires_grad=False).eval()


def _spelling_tokenizer() -> Any:
    from transformers import CLIPTokenizer  # noqa: PLC0415

    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=77)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Weights are made in their final dtype: a float32 copy of a large network need not fit."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
