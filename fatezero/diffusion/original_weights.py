"""Weights of a single file in its authors' layout, under the names that diffusers and transformers give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from fatezero.diffusion.original_layout import (
    CLIP_TEXT,
    FIRST_TEXT,
    OPEN_CLIP_TEXT,
    SECOND_TEXT,
    UNET,
    VAE,
    open_clip_layers,
)
from fatezero.errors import UserError
from fatezero.system.terminal import quoted

VAE_ALONE = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")  # beside them, what it was trained against
SPLIT = ("in_proj_weight", "in_proj_bias")  # of OpenCLIP: queries, keys and values in one
# In text encoders: of whole CLIP models, and made anew by every network.
LEFT_OUT = ("position_ids", "text_projection", "logit_scale", "attn_mask")


def original_weights(class_name: str, config: Any, file: Path) -> dict[str, Tensor]:
    """The weights of one network.

    Args:
        class_name: of diffusers or transformers.
        config: the network's configuration.
        file: a vetted safetensors file.

    Raises:
        UserError: naming a tensor of the network that has no place in it.
    """
    return _READERS[class_name](file, config)


def _read_unet(file: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint  # noqa: PLC0415  (slow to import)

    weights = _read(file, UNET)
    converted: dict[str, Tensor] = convert_ldm_unet_checkpoint(weights, config)
    return _all_of(converted, weights, file)


def _read_vae(file: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint  # noqa: PLC0415

    weights = _read(file, VAE) or {name: value for name, value in _read(file, "").items() if name.startswith(VAE_ALONE)}
    converted: dict[str, Tensor] = convert_ldm_vae_checkpoint(weights, config)
    return _all_of(converted, weights, file)


def _read_text_encoder(file: Path, config: Any) -> dict[str, Tensor]:
    for prefix in (FIRST_TEXT, CLIP_TEXT):
        plain = _read(file, prefix)
        if plain:
            return {name.removeprefix(prefix): value for name, value in plain.items() if not name.endswith(LEFT_OUT)}
    weights = _read(file, OPEN_CLIP_TEXT)
    layers = open_clip_layers({name.removeprefix(OPEN_CLIP_TEXT) for name in weights})
    beyond = f"{OPEN_CLIP_TEXT}transformer.resblocks.{layers}."
    used = {name: value for name, value in weights.items() if not name.startswith(beyond)}
    return _of_open_clip(used, OPEN_CLIP_TEXT, config, file)


def _read_second_text_encoder(file: Path, config: Any) -> dict[str, Tensor]:
    """With its projection, which OpenCLIP keeps as a matrix to the right of the states."""
    projection = f"{SECOND_TEXT}text_projection"
    weights = _read(file, SECOND_TEXT)
    converted = _of_open_clip(weights, SECOND_TEXT, config, file)
    return converted | {"text_projection.weight": weights[projection].T.contiguous()}


def _of_open_clip(weights: Mapping[str, Tensor], prefix: str, config: Any, file: Path) -> dict[str, Tensor]:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint  # noqa: PLC0415

    used = {name: value for name, value in weights.items() if not name.endswith(LEFT_OUT)}
    converted: dict[str, Tensor] = convert_open_clip_checkpoint(_Described(config), used, prefix=prefix)
    whole = {name: value for name, value in used.items() if not name.endswith(SPLIT)}
    return _all_of(converted, whole, file)


class _Described:
    """What diffusers' conversion asks a text encoder: its configuration."""

    def __init__(self, config: Any) -> None:
        self.config = config


def _read_motion(file: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:  # noqa: ARG001  (a reader like the others)
    from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers  # noqa: PLC0415

    weights = {name: value for name, value in _read(file, "").items() if "pos_encoder" not in name}
    converted: dict[str, Tensor] = convert_animatediff_checkpoint_to_diffusers(weights)
    return _all_of(converted, weights, file)


def _read(file: Path, prefix: str) -> dict[str, Tensor]:
    with safe_open(file, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys() if name.startswith(prefix)}  # noqa: SIM118


def _all_of(converted: dict[str, Tensor], weights: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The converted weights, if none was passed over: diffusers' conversions leave out what they do not know."""
    places = {value.data_ptr() for value in converted.values()}
    for name, value in weights.items():
        if value.data_ptr() not in places:
            raise UserError(
                f"{file.resolve()} has a weight {quoted(name)} that networks of this layout have no layer for: give "
                "the checkpoint as a folder in diffusers' layout."
            )
    return converted


_READERS: Mapping[str, Callable[[Path, Any], dict[str, Tensor]]] = {
    "UNet2DConditionModel": _read_unet,
    "AutoencoderKL": _read_vae,
    "CLIPTextModel": _read_text_encoder,
    "CLIPTextModelWithProjection": _read_second_text_encoder,
    "MotionAdapter": _read_motion,
}
