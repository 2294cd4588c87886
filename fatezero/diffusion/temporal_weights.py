"""Temporal layers on disk: beside a stock checkpoint, so that its UNet stays a UNet that anything loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fatezero.attention.temporal import inflate, is_temporal
from fatezero.diffusion.checkpoint import TEMPORAL
from fatezero.errors import UserError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def save_inflated(unet: UNet2DConditionModel, rank: int | None, checkpoint: Path) -> None:
    """Write an inflated UNet into a checkpoint: `unet`, which any diffusers loads, and `temporal` beside it.

    Args:
        unet: inflated.
        rank: rank of its temporal convolutions; None for full ones.
        checkpoint: the folder.
    """
    weights = {name: value.contiguous() for name, value in unet.state_dict().items()}
    plain = type(unet).from_config(unet.config)
    plain.load_state_dict({name: value for name, value in weights.items() if not is_temporal(name)})
    plain.save_pretrained(checkpoint / "unet")
    folder = checkpoint / TEMPORAL
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value for name, value in weights.items() if is_temporal(name)}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps({"rank": rank}) + "\n")


def load_temporal(unet: UNet2DConditionModel, folder: Path) -> None:
    """Inflate a UNet with the temporal layers of a folder.

    Raises:
        UserError: if they cannot be read, or belong to a UNet of another shape.
    """
    try:
        rank = json.loads((folder / CONFIG).read_text())["rank"]
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{folder} holds no readable temporal layers ({error}): tune or convert again.") from error
    inflate(unet, rank)
    load_temporal_weights(unet, weights, str(folder))


def load_temporal_weights(unet: UNet2DConditionModel, weights: dict[str, torch.Tensor], where: str) -> None:
    """Fill an inflated UNet's temporal layers.

    Args:
        unet: inflated.
        weights: tensors by the UNet's own names; none may be missing or left over.
        where: names their origin in errors.

    Raises:
        UserError: if they belong to a UNet of another shape.
    """
    own = unet.state_dict()
    wanted = {name for name in own if is_temporal(name)}
    if wanted != weights.keys() or any(own[name].shape != value.shape for name, value in weights.items()):
        raise UserError(f"{where}: its temporal layers belong to a UNet of another shape than the one beside them.")
    unet.load_state_dict(weights, strict=False)
