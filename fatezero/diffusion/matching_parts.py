"""Whether the networks of a transformer's checkpoint belong together. No weights are needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from fatezero.diffusion.checkpoint import latent_channels
from fatezero.diffusion.layouts import (
    COGVIDEOX,
    FLUX,
    HUNYUAN_VIDEO,
    LTX,
    STABLE_DIFFUSION_3,
    WAN,
    Family,
)
from fatezero.errors import UserError
from fatezero.system.terminal import quoted

# Fields of a transformer that is given an image, a mask or another video beside the text.
CONDITIONED_BY = ("image_dim", "added_kv_proj_dim", "ofs_embed_dim", "image_condition_type")
MAX_SCALE = 1e4  # of latents and of their means


@dataclass(frozen=True)
class Told:
    """How a transformer's configuration names what it is given.

    Attributes:
        text: width of a token's state.
        encoder: the part that makes these states.
        pooled: width of the pooled text; None without one.
        packed: latents in a token of its input.
    """

    text: str
    encoder: str = "text_encoder"
    pooled: str | None = None
    packed: int = 1


TOLD = {
    WAN: Told("text_dim"),
    LTX: Told("caption_channels"),
    COGVIDEOX: Told("text_embed_dim"),
    HUNYUAN_VIDEO: Told("text_embed_dim", pooled="pooled_projection_dim"),
    STABLE_DIFFUSION_3: Told("joint_attention_dim", "text_encoder_3", "pooled_projection_dim"),
    FLUX: Told("joint_attention_dim", "text_encoder_2", "pooled_projection_dim", packed=4),
}


def check_transformer_parts(family: Family, parts: Mapping[str, Any], name: str) -> None:
    """Refuse networks that do not belong together, or that are given more than a text.

    Args:
        family: of the checkpoint.
        parts: its networks by part, each with a `config`; a part that it lacks may be None.
        name: the checkpoint's in errors.

    Raises:
        UserError: saying which.
    """
    told, vae = TOLD[family], parts["vae"].config
    for part in ("transformer", "transformer_2"):
        if parts.get(part) is not None:
            _check_latents(parts[part].config, latent_channels(vae) * told.packed, name)
            _check_text(parts[part].config, told, family, parts, name)
    if parts.get("transformer_2") is not None:
        _check_equal(parts["transformer"].config, parts["transformer_2"].config, name)
    _check_scale(vae, name)


def _check_equal(first: Mapping[str, Any], second: Mapping[str, Any], name: str) -> None:
    """Both stages are one method's networks: what is recorded of one's layers is fused in the other's."""
    fields = sorted({*first, *second} - {field for field in (*first, *second) if field.startswith("_")})
    differing = [field for field in fields if first.get(field) != second.get(field)]
    if differing:
        raise UserError(
            f"{name} has a transformer and a transformer_2 that differ in {', '.join(differing)}: both stages need the "
            "same layers, take both from one checkpoint."
        )


def _check_latents(config: Any, channels: int, name: str) -> None:
    given = next((field for field in CONDITIONED_BY if config.get(field) is not None), None)
    if given is not None:
        raise UserError(
            f"{name} has a transformer with {given} {quoted(config[given])}, which is given an image beside the text: "
            "use a text-to-video checkpoint."
        )
    made = config.get("out_channels") or config["in_channels"]
    if config["in_channels"] != channels or made != channels:
        raise UserError(
            f"{name} has a transformer from {config['in_channels']} channels to {made} and latents of {channels}: "
            "image-to-video and other conditioned checkpoints are not supported, use a text-to-video one."
        )


def _check_text(config: Any, told: Told, family: Family, parts: Mapping[str, Any], name: str) -> None:
    clips = [parts[part].config for part in ("text_encoder", "text_encoder_2")] if family is STABLE_DIFFUSION_3 else []
    encoder = parts.get(told.encoder)
    width = sum(one.hidden_size for one in clips) if encoder is None else encoder.config.hidden_size
    # Stable Diffusion 3 fills up what CLIP's encoders make to the width of T5's.
    fits = width <= config[told.text] if encoder is None else width == config[told.text]
    if not fits or (clips and sum(one.hidden_size for one in clips) > config[told.text]):
        raise UserError(
            f"{name} has a text encoder of width {width} and a transformer for {quoted(config[told.text])}: they do "
            "not belong together; get the checkpoint again."
        )
    if told.pooled is None:
        return
    if clips:
        pooled = sum(one.projection_dim for one in clips)
    else:
        pooled = parts["text_encoder_2" if family is HUNYUAN_VIDEO else "text_encoder"].config.hidden_size
    if pooled != config[told.pooled]:
        raise UserError(
            f"{name} has a transformer that is told a pooled text of {quoted(config[told.pooled])} numbers, its text "
            f"encoders make {pooled}: they do not belong together; get the checkpoint again."
        )


def _check_scale(vae: Any, name: str) -> None:
    """Of the autoencoder's latents, whose numbers have to be so for the transformer to see them right."""
    for field in ("scaling_factor", "shift_factor"):
        value = vae.get(field)
        least = 0.0 if field == "scaling_factor" else -MAX_SCALE
        if value is not None and not _is_number(value, least):
            raise UserError(f"{name}: vae/config.json: {field} is {quoted(value)}: it is a number, 0.5 or alike.")
    channels = latent_channels(vae)
    for field, least in (("latents_mean", -MAX_SCALE), ("latents_std", 0.0)):
        values = vae.get(field)
        if values is None:
            continue
        listed = isinstance(values, list | tuple) and len(values) == channels
        if not listed or not all(_is_number(value, least) for value in values):
            raise UserError(
                f"{name}: vae/config.json: {field} is {quoted(values)}: it is a number for each of the {channels} "
                "channels."
            )


def _is_number(value: Any, least: float) -> bool:
    """Above `least`, finite and of a size that latents have."""
    return (
        not isinstance(value, bool) and isinstance(value, int | float) and isfinite(value) and least < value < MAX_SCALE
    )
