"""Temporal layers on disk: beside a stock checkpoint, so that its UNet stays a UNet that anything loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from fatezero.attention.temporal import inflate, is_temporal
from fatezero.diffusion.checkpoint import TEMPORAL
from fatezero.diffusion.components import check_finite
from fatezero.diffusion.vetting import read_object, tensor_shapes, weight_files
from fatezero.errors import UserError
from fatezero.system.terminal import quoted

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

STEM = "model"
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
    save_file({name: value for name, value in weights.items() if is_temporal(name)}, folder / f"{STEM}.safetensors")
    (folder / CONFIG).write_text(json.dumps({"rank": rank}) + "\n", encoding="utf-8")


def load_temporal(unet: UNet2DConditionModel, folder: Path) -> None:
    """Inflate a UNet with the temporal layers of a folder.

    Raises:
        UserError: if they cannot be read, or belong to a UNet of another shape.
    """
    rank = read_object(folder / CONFIG).get("rank", 0)
    check_rank(rank, str(folder / CONFIG))
    files = weight_files(folder, STEM)
    tensor_shapes(files)
    weights = {name: value for file in files for name, value in load_file(file).items()}
    inflate(unet, rank)
    load_temporal_weights(unet, weights, str(folder))


def check_rank(rank: Any, where: str) -> None:
    """Refuse what is no rank of temporal convolutions.

    Raises:
        UserError: if it is neither null nor a whole number from 1.
    """
    if rank is not None and (type(rank) is not int or rank < 1):
        raise UserError(f"{where}: the rank is {quoted(rank)}: it is a whole number from 1, or null for full layers.")


def load_temporal_weights(unet: UNet2DConditionModel, weights: dict[str, torch.Tensor], where: str) -> None:
    """Fill an inflated UNet's temporal layers.

    Args:
        unet: inflated.
        weights: tensors by the UNet's own names; none may be missing or left over.
        where: names their origin in errors.

    Raises:
        UserError: naming the tensor, if they belong to a UNet of another shape or are not finite.
    """
    wanted = {name: tuple(value.shape) for name, value in unet.state_dict().items() if is_temporal(name)}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if different:
        raise UserError(
            f"{where}: its temporal layers belong to a UNet of another shape than the one beside them "
            f"({different[0]}): tune or convert again."
        )
    check_finite(((name, value.to(unet.dtype)) for name, value in weights.items()), where)
    unet.load_state_dict(weights, strict=False)
