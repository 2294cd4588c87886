"""Seeded random checkpoints in Stable Diffusion's layout: for benchmarks and tests, where only shapes matter."""

from __future__ import annotations

from typing import Any, Literal

import torch

# Stable Diffusion 1.x's own configuration (CompVis/stable-diffusion-v1-4, unet/config.json), and a network of its
# shape with 35 million weights.
WIDTHS = {"medium": (64, 128, 256, 256), "sd1": (320, 640, 1280, 1280)}
TEXT_WIDTH = {"medium": 256, "sd1": 768}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,'-"


def random_pipeline(size: Literal["medium", "sd1"], dtype: torch.dtype, seed: int = 0) -> Any:
    """A StableDiffusionPipeline with random weights; its tokenizer spells words letter by letter.

    Args:
        size: of the UNet.
        dtype: of the weights.
        seed: of the weights.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel  # noqa: PLC0415
    from transformers import CLIPTextConfig, CLIPTextModel  # noqa: PLC0415

    text_width = TEXT_WIDTH[size]
    with torch.random.fork_rng(), _default_dtype(dtype):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=WIDTHS[size],
            attention_head_dim=8,
            cross_attention_dim=text_width,
        )
        vae = AutoencoderKL(
            block_out_channels=(16, 16, 32, 32),
            norm_num_groups=8,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            layers_per_block=1,
            sample_size=512,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=text_width,
                intermediate_size=text_width * 2,
                num_hidden_layers=2,
                num_attention_heads=4,
                vocab_size=2 * len(LETTERS) + 2,
                max_position_embeddings=77,
                bos_token_id=2 * len(LETTERS),
                eos_token_id=2 * len(LETTERS) + 1,
                pad_token_id=2 * len(LETTERS) + 1,
            )
        )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=_spelling_tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def random_motion(unet: Any, seed: int = 0) -> Any:
    """A UNetMotionModel of a UNet2DConditionModel, with random motion modules for up to 32 frames.

    Args:
        unet: whose weights are copied.
        seed: of the modules' weights.
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


class _default_dtype:  # noqa: N801  (a context manager, used like a function)
    """Weights are made in their final dtype: a float32 copy of a large network need not fit."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def __enter__(self) -> None:
        self._before = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self._before)
