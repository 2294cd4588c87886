"""SDXL checkpoints with random weights, by diffusers' own classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

POOLED, SIZES = 16, 6 * 8
UNET: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (8, 16, 32),
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 2, 4),
    "cross_attention_dim": 32 + 24,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": POOLED + SIZES,
}
SDXL_UNET: dict[str, Any] = {  # stabilityai/stable-diffusion-xl-base-1.0, unet/config.json
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": UNET["down_block_types"],
    "up_block_types": UNET["up_block_types"],
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE: dict[str, Any] = {
    "block_out_channels": (8, 8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "latent_channels": 4,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}


def text_config(tokenizer: Any, width: int, **more: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=77, projection_dim=POOLED, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, **more,
    )  # fmt: skip


def tiny_sdxl(golden_folder: Path, **parts: Any) -> Any:
    """A StableDiffusionXLPipeline: two encoders of widths 32 and 24, attention at downsampling 2 and 4.

    Args:
        golden_folder: its model lends tokenizer and schedule.
        parts: in place of its own.
    """
    model = golden_folder / "model"
    tokenizer = CLIPTokenizer.from_pretrained(model / "tokenizer")
    padding = CLIPTokenizer.from_pretrained(model / "tokenizer", pad_token="!")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "unet": UNet2DConditionModel(**UNET),
            "vae": AutoencoderKL(**VAE),
            "text_encoder": CLIPTextModel(text_config(tokenizer, 32)),
            "text_encoder_2": CLIPTextModelWithProjection(text_config(tokenizer, 24, hidden_act="gelu")),
        }
        for part in ("text_encoder", "text_encoder_2"):  # the library's first weights hardly tell prompts apart
            for name, value in made[part].named_parameters():
                if "embedding" in name:
                    torch.nn.init.normal_(value)
        for name, value in made["unet"].named_parameters():  # nor words, nor places
            if name.endswith("attn2.to_q.weight"):
                value.data *= 8
    return StableDiffusionXLPipeline(
        **(made | {"tokenizer": tokenizer, "tokenizer_2": padding} | parts),
        scheduler=DDIMScheduler.from_pretrained(model / "scheduler"),
        add_watermarker=False,
    )


def motion_adapter(folder: Path, *, trained: bool) -> Path:
    """Modules for the tiny UNet, for at most six frames; untrained they change nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = MotionAdapter(
            block_out_channels=UNET["block_out_channels"], motion_norm_num_groups=8, motion_max_seq_length=6,
            motion_num_attention_heads=4, use_motion_mid_block=False,
        )  # fmt: skip
    for name, value in made.named_parameters():
        if "proj_out" in name and not trained:
            torch.nn.init.zeros_(value)
    made.save_pretrained(folder)
    return folder


def whole_sdxl(golden_folder: Path, dtype: torch.dtype) -> Any:
    """Of SDXL's exact shape but for the small autoencoder and vocabulary: 3.3 billion random numbers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # a float32 copy need not fit
    tokenizer = CLIPTokenizer.from_pretrained(golden_folder / "model" / "tokenizer")
    layers = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 953, "eos_token_id": 954}
    try:
        with torch.random.fork_rng(), torch.device("cpu"):
            torch.manual_seed(0)
            parts = {
                "unet": UNet2DConditionModel(**SDXL_UNET),
                "text_encoder": CLIPTextModel(
                    CLIPTextConfig(
                        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, **layers
                    )
                ),
                "text_encoder_2": CLIPTextModelWithProjection(
                    CLIPTextConfig(
                        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
                        projection_dim=1280, hidden_act="gelu", **layers,
                    )
                ),
            }  # fmt: skip
    finally:
        torch.set_default_dtype(before)
    return tiny_sdxl(golden_folder, **parts, tokenizer=tokenizer)


def change(file: Path, **values: Any) -> None:
    """Change some fields of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")
