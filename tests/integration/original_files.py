"""Single files in the layout of Stable Diffusion's authors, written from networks of diffusers and transformers.

The names follow the authors' code (CompVis, Stability AI): blocks are numbered from one end of the UNet to the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from fatezero.diffusion.noise_schedule import STABLE_DIFFUSION

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
ENDS = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0", "conv_out": "out.2", "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
VAE = {
    "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2", "mid_block.attentions.0": "mid.attn_1",
    "downsamplers.0": "downsample", "upsamplers.0": "upsample", "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
}  # fmt: skip
OPEN_CLIP = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip

SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (32, 64, 128),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 1, 2),
    "cross_attention_dim": 32 + 64,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 48 + 6 * 256,
}


def tiny_networks(vocabulary: Path, *, second: bool = False) -> Any:
    """A pipeline of Stable Diffusion 1.x's build, or of 2.x's, as small as its normalisations let it be."""
    torch.manual_seed(3)
    width = 64
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(64, 64, 64, 128) if second else (32, 32, 64, 64), cross_attention_dim=width,
        attention_head_dim=(1, 1, 1, 2) if second else 8, use_linear_projection=second,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 64), layers_per_block=2, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2, num_attention_heads=1,
        hidden_act="gelu" if second else "quick_gelu", bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    scheduler = DDIMScheduler(**STABLE_DIFFUSION, prediction_type="v_prediction" if second else "epsilon")
    return StableDiffusionPipeline(
        unet=unet, vae=vae, text_encoder=CLIPTextModel(text), tokenizer=CLIPTokenizer.from_pretrained(vocabulary),
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def tiny_sdxl_networks(first: Path, second: Path) -> Any:
    """A pipeline of SDXL's build: of its own head width, and of encoders and levels that differ in width and depth.

    Args:
        first: folder of the first encoder's tokenizer.
        second: of the second's.
    """
    torch.manual_seed(3)
    with torch.random.fork_rng():
        unet = UNet2DConditionModel(**SDXL_UNET)
        vae = AutoencoderKL(
            block_out_channels=(32, 32, 32, 64), layers_per_block=1, norm_num_groups=32, scaling_factor=0.13025,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        ends = {"vocab_size": 49408, "bos_token_id": 0, "eos_token_id": 2, "projection_dim": 48}
        texts = [
            CLIPTextModel(
                CLIPTextConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=1, **ends)
            ),
            CLIPTextModelWithProjection(
                CLIPTextConfig(
                    hidden_size=64,
                    intermediate_size=128,
                    num_hidden_layers=2,
                    num_attention_heads=1,
                    hidden_act="gelu",
                    **ends,
                )
            ),
        ]
    for encoder in texts:  # the library's first weights hardly tell prompts apart
        for name, value in encoder.named_parameters():
            if "embedding" in name:
                torch.nn.init.normal_(value)
    return StableDiffusionXLPipeline(
        unet=unet, vae=vae, text_encoder=texts[0], text_encoder_2=texts[1], scheduler=DDIMScheduler(**STABLE_DIFFUSION),
        tokenizer=CLIPTokenizer.from_pretrained(first), tokenizer_2=CLIPTokenizer.from_pretrained(second),
        add_watermarker=False,
    )  # fmt: skip


def sdxl_names(pipe: Any) -> dict[str, Tensor]:
    """The weights of a whole SDXL checkpoint in one file."""
    weights = {
        **prefixed("model.diffusion_model.", unet_names(pipe.unet)),
        **prefixed("first_stage_model.", vae_names(pipe.vae)),
        **prefixed("conditioner.embedders.0.", clip_names(pipe.text_encoder)),
        **prefixed("conditioner.embedders.1.", projecting_open_clip_names(pipe.text_encoder_2)),
    }
    return {name: value.contiguous().clone() for name, value in weights.items()}


def save_original(pipe: Any, file: Path, *, second: bool = False, metadata: dict[str, str] | None = None) -> Path:
    """Write a whole checkpoint into one file; with the buffers that trainers leave in it."""
    text = open_clip_names if second else clip_names
    weights = {
        **prefixed("model.diffusion_model.", unet_names(pipe.unet)),
        **prefixed("first_stage_model.", vae_names(pipe.vae)),
        **prefixed("cond_stage_model.", text(pipe.text_encoder)),
        "alphas_cumprod": pipe.scheduler.alphas_cumprod.clone(),
        "model_ema.num_updates": torch.tensor(7),
    }
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, file, metadata)
    return file


def prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


def unet_names(unet: Any) -> dict[str, Tensor]:
    count = unet.config.layers_per_block + 1
    return {_unet_name(name, count, unet): value for name, value in unet.state_dict().items()}


def _unet_name(name: str, count: int, unet: Any) -> str:
    for theirs, ours in ENDS.items():
        if name.startswith(f"{theirs}."):
            named = ours + name.removeprefix(theirs)
            return _resnet(named) if "resnets" in name else named
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
    assert match, name
    side, level, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if kind == "downsamplers":
        return f"input_blocks.{(level + 1) * count}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        place = 2 if "CrossAttn" in unet.config.up_block_types[level] else 1
        return f"output_blocks.{level * count + count - 1}.{place}.{rest}"
    block = level * count + layer
    block_name = f"input_blocks.{block + 1}" if side == "down" else f"output_blocks.{block}"
    return _resnet(f"{block_name}.0.{rest}") if kind == "resnets" else f"{block_name}.1.{rest}"


def _resnet(name: str) -> str:
    for theirs, ours in RESNET.items():
        name = name.replace(f".{theirs}.", f".{ours}.")
    return name


def vae_names(vae: Any) -> dict[str, Tensor]:
    levels, weights = len(vae.config.block_out_channels), {}
    for name, value in vae.state_dict().items():
        ours = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
        ours = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{levels - 1 - int(m[1])}.block.", ours)
        ours = re.sub(r"down_blocks\.(\d)\.", r"down.\1.", ours)
        ours = re.sub(r"up_blocks\.(\d)\.", lambda m: f"up.{levels - 1 - int(m[1])}.", ours)
        for theirs, own in VAE.items():
            ours = ours.replace(f".{theirs}.", f".{own}.")
        image = ".attn_1." in ours and value.ndim == 2
        weights[ours] = value[:, :, None, None] if image else value
    return weights


def clip_names(text_encoder: Any) -> dict[str, Tensor]:
    weights = {name.removeprefix("text_model."): value for name, value in text_encoder.state_dict().items()}
    named = prefixed("transformer.text_model.", weights)
    return named | {"transformer.text_model.embeddings.position_ids": torch.arange(77)[None]}


def open_clip_names(text_encoder: Any) -> dict[str, Tensor]:
    """With the layer behind the last that is read, and the projection, as OpenCLIP's own file has them."""
    width, layers = text_encoder.config.hidden_size, text_encoder.config.num_hidden_layers
    return {
        **_open_clip_layers(text_encoder, [*range(layers), layers - 1]),
        "model.text_projection": torch.zeros(width, width),
    }


def projecting_open_clip_names(text_encoder: Any) -> dict[str, Tensor]:
    """Of SDXL's second text encoder."""
    projection = text_encoder.text_projection.weight.detach()
    layers = range(text_encoder.config.num_hidden_layers)
    return {**_open_clip_layers(text_encoder, layers), "model.text_projection": projection.T}


def _open_clip_layers(text_encoder: Any, layers: Iterable[int]) -> dict[str, Tensor]:
    own = {name.removeprefix("text_model."): value for name, value in text_encoder.state_dict().items()}
    weights = {
        "model.token_embedding.weight": own["embeddings.token_embedding.weight"],
        "model.positional_embedding": own["embeddings.position_embedding.weight"],
        "model.ln_final.weight": own["final_layer_norm.weight"],
        "model.ln_final.bias": own["final_layer_norm.bias"],
        "model.logit_scale": torch.ones(1),
    }
    for place, layer in enumerate(layers):
        source, block = f"encoder.layers.{layer}.", f"model.transformer.resblocks.{place}."
        for kind in ("weight", "bias"):
            split = [own[f"{source}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            weights[f"{block}attn.in_proj_{kind}"] = torch.cat(split)
            for theirs, ours in OPEN_CLIP.items():
                weights[f"{block}{ours}.{kind}"] = own[f"{source}{theirs}.{kind}"]
    return weights


def motion_names(adapter: Any) -> dict[str, Tensor]:
    """AnimateDiff's names of a MotionAdapter's tensors."""
    weights = {}
    for name, value in adapter.state_dict().items():
        if name.endswith("pos_embed.pe"):
            ours = name.replace("pos_embed.pe", "attention_blocks.0.pos_encoder.pe")
        else:
            ours = re.sub(r"\.attn([12])\.", lambda m: f".attention_blocks.{int(m[1]) - 1}.", name)
            ours = re.sub(r"\.norm([12])\.", lambda m: f".norms.{int(m[1]) - 1}.", ours).replace(".norm3.", ".ff_norm.")
        weights[re.sub(r"(motion_modules\.\d+\.)", r"\1temporal_transformer.", ours)] = value
    return weights
