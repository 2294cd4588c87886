"""Networks in their authors' layout, described by the names and shapes in a file's header. Needs no torch.

Stable Diffusion's trainers and most tools keep a whole checkpoint in one file. Its header says how wide and deep the
networks are; what it does not say (heads, activation, scale of the latents) belongs to the family. Configurations made
here are diffusers' and transformers', in which the same networks are published as folders.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fatezero.errors import UserError
from fatezero.system.terminal import quoted

Shapes = Mapping[str, tuple[int, ...]]
Family = Literal["Stable Diffusion 1.x", "Stable Diffusion 2.x", "SDXL"]

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP_TEXT, OPEN_CLIP_TEXT = "cond_stage_model.transformer.", "cond_stage_model.model."
FIRST_TEXT, SECOND_TEXT = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."  # of SDXL
# Where the text encoders of a family are, in the order of the questions.
TEXTS: Mapping[Family, tuple[str, ...]] = {
    "SDXL": (FIRST_TEXT, SECOND_TEXT),
    "Stable Diffusion 2.x": (OPEN_CLIP_TEXT,),
    "Stable Diffusion 1.x": (CLIP_TEXT,),
}
RESBLOCK = r"transformer\.resblocks\.(\d{1,3})\."  # of OpenCLIP's text encoders
WIDTH_OF_HEAD = 64  # of CLIP's text encoders, and of UNets since Stable Diffusion 2
WHOLE_OPEN_CLIP_LAYERS = 24  # of ViT-H, the last of which Stable Diffusion 2 leaves out
SCALE = 0.18215  # of Stable Diffusion's latents
SIZE_WIDTH = 256  # of the embedding of each size that SDXL's UNet is told
GROUPS = 32  # of the normalisations in all of these networks
# What a file is by a key that only its kind has, in the order of the questions.
FOREIGN = (
    (r"\.lora_(up|down|A|B)\.|\.lora\.|_lora\.", "a LoRA, not a checkpoint: give it with --lora, beside a --model"),
    (r"^control_model\.|^controlnet_", "a ControlNet, which edits have no use for: give a text-to-image checkpoint"),
    (r"^emb_params$|^clip_[lg]$|^string_to_param", "a textual inversion, not a checkpoint: give it with --embedding"),
    (r"joint_blocks\.|joint_transformer_blocks", "of Stable Diffusion 3, whose joint attention is not supported"),
    (r"double_blocks\.|single_transformer_blocks", "of Flux, whose joint attention is not supported"),
    (r"\.time_stack\.", "a video model that is told an image and no text: give a text-to-image checkpoint"),
    (
        r"^conditioner\.embedders\.0\.model\.",
        "the refiner of SDXL, which starts from another model's latents: give the base model",
    ),
    (
        r"^edm_(mean|std|vpred)",
        "a checkpoint of EDM's continuous noise levels (Playground v2.5, CosXL), which DDIM does not walk: give one "
        "that predicts epsilon or v",
    ),
    (
        r"\.time_embed\.cond_proj\.",
        "a latent consistency model (LCM) with a guidance embedding (time_embed.cond_proj), which this layout has no "
        "agreed form of: give its folder in diffusers' layout",
    ),
)
UNEVEN = "a checkpoint whose UNet has levels of different depths: give a folder in diffusers' layout"
UNET_ALONE = "a UNet alone: give a whole checkpoint, with its text encoder and autoencoder"


@dataclass(frozen=True)
class OriginalFile:
    """The header of a single file.

    Attributes:
        path: of the file.
        shapes: of its tensors, by name.
        metadata: what its writer noted.
    """

    path: Path
    shapes: Shapes
    metadata: Mapping[str, str]

    def under(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors whose names begin so, by the rest of the names."""
        return {name.removeprefix(prefix): shape for name, shape in self.shapes.items() if name.startswith(prefix)}

    def refused(self, what: str) -> UserError:
        """The sentence that says what the file is instead."""
        return UserError(f"{self.path} is {what}.")


def family_of(file: OriginalFile) -> Family:
    """Which family of checkpoints a file belongs to.

    Raises:
        UserError: saying what the file is, if it is no whole checkpoint of a family.
    """
    names = file.shapes.keys()
    for pattern, what in FOREIGN:
        if any(re.search(pattern, name) for name in names):
            raise file.refused(what)
    if any("motion_modules." in name for name in names):
        raise file.refused("a motion module: give it with --motion-adapter, beside a --model")
    if any(name.startswith(("encoder.down.", "encoder.down_blocks.")) for name in names):
        raise file.refused("an autoencoder alone: give it with --vae, beside a --model")
    if "conv_in.weight" in names and any(name.startswith("down_blocks.") for name in names):
        raise file.refused(UNET_ALONE)
    if not file.under(UNET):
        raise file.refused(
            "no Stable Diffusion checkpoint in a layout that is known: give a folder in diffusers' layout"
        )
    family = next((one for one, prefixes in TEXTS.items() if any(map(file.under, prefixes))), None)
    if family is None and not file.under(VAE):
        raise file.refused(UNET_ALONE)
    if family is None or not all(map(file.under, TEXTS[family])):
        raise file.refused("a checkpoint without its text encoder, or one of its two: give a whole one")
    if not file.under(VAE):
        raise file.refused("a checkpoint without its autoencoder: give a whole one")
    return family


def unet_config(file: OriginalFile, family: Family, sample_size: int) -> dict[str, Any]:
    """The configuration of diffusers' UNet2DConditionModel.

    Raises:
        UserError: if the file's UNet is of another build.
    """
    own = file.under(UNET)
    levels = _levels(file)
    widths = [_shape(file, f"{UNET}input_blocks.{blocks[0]}.0.out_layers.3.weight", 4)[0] for blocks in levels]
    deep = _depths(file, levels)
    keys = [shape for name, shape in sorted(own.items()) if name.endswith("attn2.to_k.weight")]
    projections = [shape for name, shape in sorted(own.items()) if name.endswith(".proj_in.weight")]
    if not keys or not projections:
        raise file.refused("a checkpoint whose UNet attends to no text")
    first = family == "Stable Diffusion 1.x"
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": sample_size,
        "in_channels": _shape(file, f"{UNET}input_blocks.0.0.weight", 4)[1],
        "out_channels": _shape(file, f"{UNET}out.2.weight", 4)[0],
        "block_out_channels": widths,
        "layers_per_block": len(levels[0]),
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in deep],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(deep)],
        "transformer_layers_per_block": [depth or 1 for depth in deep] if max(deep) > 1 else 1,
        "cross_attention_dim": keys[0][1],
        "attention_head_dim": 8 if first else [max(width // WIDTH_OF_HEAD, 1) for width in widths],
        "use_linear_projection": len(projections[0]) == 2,
        "norm_num_groups": GROUPS,
        **(_told_beside_text(file) if family == "SDXL" else {}),
    }


def _levels(file: OriginalFile) -> list[list[int]]:
    """Numbers of the UNet's input blocks, those of each level from the finest."""
    own = file.under(UNET)
    levels: list[list[int]] = [[]]
    for block in range(1, _count(own, r"input_blocks\.(\d{1,3})\.")):
        if f"input_blocks.{block}.0.op.weight" in own:
            levels.append([])
        else:
            levels[-1].append(block)
    if len({len(blocks) for blocks in levels}) != 1 or not levels[0]:
        raise file.refused(UNEVEN)
    return levels


def _depths(file: OriginalFile, levels: list[list[int]]) -> list[int]:
    """Transformer blocks behind each residual block of a level, as many in all of them; 0 where there is no attention.

    Distilled networks, as Segmind's SSD-1B, have other numbers in some.
    """
    own = file.under(UNET)

    def depth(block: str) -> int:
        return _count(own, rf"^{block}\.1\.transformer_blocks\.(\d{{1,3}})\.")

    deep = [depth(f"input_blocks.{blocks[0]}") for blocks in levels]
    layers = len(levels[0]) + 1  # of a level on the way up
    down = all(depth(f"input_blocks.{block}") == deep[level] for level, blocks in enumerate(levels) for block in blocks)
    up = all(depth(f"output_blocks.{block}") == deep[-1 - block // layers] for block in range(layers * len(levels)))
    if not down or not up or depth("middle_block") != (deep[-1] or 1):
        raise file.refused(UNEVEN)
    return deep


def _told_beside_text(file: OriginalFile) -> dict[str, Any]:
    """Of SDXL's UNet: pooled text and sizes, whose common width the header says."""
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": SIZE_WIDTH,
        "projection_class_embeddings_input_dim": _shape(file, f"{UNET}label_emb.0.0.weight", 2)[1],
    }


def vae_config(file: OriginalFile, prefix: str, scale: float) -> dict[str, Any]:
    """The configuration of diffusers' AutoencoderKL.

    Args:
        file: holds it.
        prefix: of its tensors' names; "" where it is alone.
        scale: scaling factor of the latents, which no file says.

    Raises:
        UserError: if it is of another build.
    """
    own = file.under(prefix)
    levels = _count(own, r"encoder\.down\.(\d{1,3})\.")
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": _shape(file, f"{prefix}encoder.conv_in.weight", 4)[1],
        "out_channels": _shape(file, f"{prefix}decoder.conv_out.weight", 4)[0],
        "latent_channels": _shape(file, f"{prefix}decoder.conv_in.weight", 4)[1],
        "block_out_channels": [
            _shape(file, f"{prefix}encoder.down.{level}.block.0.conv1.weight", 4)[0] for level in range(levels)
        ],
        "layers_per_block": _count(own, r"encoder\.down\.0\.block\.(\d{1,3})\."),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "norm_num_groups": GROUPS,
        "use_quant_conv": "quant_conv.weight" in own,
        "use_post_quant_conv": "post_quant_conv.weight" in own,
        "scaling_factor": scale,
        "force_upcast": True,  # no file says that it may be trusted with float16
    }


def text_configs(file: OriginalFile, family: Family) -> dict[str, dict[str, Any]]:
    """The configurations of transformers' CLIP text encoders, by their part of a checkpoint.

    Raises:
        UserError: if one of the file's text encoders is of another build.
    """
    if family == "Stable Diffusion 1.x":
        return {"text_encoder": _clip_config(file, CLIP_TEXT)}
    if family == "Stable Diffusion 2.x":
        return {"text_encoder": _open_clip_config(file, OPEN_CLIP_TEXT, open_clip_layers(file.under(OPEN_CLIP_TEXT)))}
    own = file.under(SECOND_TEXT)
    second = _open_clip_config(file, SECOND_TEXT, _count(own, RESBLOCK))
    pooled = _shape(file, f"{SECOND_TEXT}text_projection", 2)[1]
    projected = {"architectures": ["CLIPTextModelWithProjection"], "projection_dim": pooled}
    return {"text_encoder": _clip_config(file, FIRST_TEXT), "text_encoder_2": second | projected}


def _clip_config(file: OriginalFile, prefix: str) -> dict[str, Any]:
    inner = prefix + ("text_model." if any(name.startswith("text_model.") for name in file.under(prefix)) else "")
    vocabulary, width = _shape(file, f"{inner}embeddings.token_embedding.weight", 2)
    return {
        **_text_fields(vocabulary, width, _shape(file, f"{inner}embeddings.position_embedding.weight", 2)[0]),
        "intermediate_size": _shape(file, f"{inner}encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": _count(file.under(inner), r"encoder\.layers\.(\d{1,3})\."),
        "hidden_act": "quick_gelu",
    }


def _open_clip_config(file: OriginalFile, prefix: str, layers: int) -> dict[str, Any]:
    vocabulary, width = _shape(file, f"{prefix}token_embedding.weight", 2)
    return {
        **_text_fields(vocabulary, width, _shape(file, f"{prefix}positional_embedding", 2)[0]),
        "intermediate_size": _shape(file, f"{prefix}transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        "num_hidden_layers": layers,
        "hidden_act": "gelu",
    }


def open_clip_layers(names: Collection[str]) -> int:
    """Layers of an OpenCLIP text encoder that Stable Diffusion 2 reads: all but the last of a whole one.

    A file made of diffusers' layout has neither the last layer nor OpenCLIP's projection.

    Args:
        names: of its tensors.
    """
    layers = _count(names, RESBLOCK)
    return layers - 1 if "text_projection" in names or layers == WHOLE_OPEN_CLIP_LAYERS else layers


def _text_fields(vocabulary: int, width: int, positions: int) -> dict[str, Any]:
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "projection_dim": width,
        "num_attention_heads": max(width // WIDTH_OF_HEAD, 1),
        "max_position_embeddings": positions,
        "bos_token_id": 0,
        "eos_token_id": 2,  # as published with both families: the end is then found as the largest token
        "pad_token_id": 1,
    }


def motion_config(file: OriginalFile) -> dict[str, Any]:
    """The configuration of diffusers' MotionAdapter for AnimateDiff's own file.

    Raises:
        UserError: if the file holds no motion module.
    """
    own = file.shapes
    levels = _count(own, r"^down_blocks\.(\d{1,3})\.motion_modules\.")
    if levels == 0:
        raise file.refused("no motion module of AnimateDiff: give its file, or a folder of diffusers' MotionAdapter")
    first = "down_blocks.{}.motion_modules.0.temporal_transformer."
    inner = first.format(0) + "transformer_blocks.0."
    frames = _shape(file, f"{inner}attention_blocks.0.pos_encoder.pe", 3)[1]
    return {
        "_class_name": "MotionAdapter",
        "block_out_channels": [_shape(file, f"{first.format(level)}norm.weight", 1)[0] for level in range(levels)],
        "motion_layers_per_block": _count(own, r"^down_blocks\.0\.motion_modules\.(\d{1,3})\."),
        "motion_num_attention_heads": 8,
        "motion_norm_num_groups": GROUPS,
        "motion_max_seq_length": frames,
        "use_motion_mid_block": any(name.startswith("mid_block.motion_modules.") for name in own),
        "conv_in_channels": None,
    }


def _shape(file: OriginalFile, name: str, axes: int) -> tuple[int, ...]:
    shape = file.shapes.get(name, ())
    if len(shape) != axes:
        raise UserError(
            f"{file.path} has no weight {quoted(name)} of {axes} axes, as files of this layout do: get it again."
        )
    return shape


def _count(names: Iterable[str], pattern: str) -> int:
    """One more than the largest number that stands in the names at a place."""
    found = (re.search(pattern, name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)
