"""AnimateDiff's motion modules (Guo et al., ICLR 2024) in an image UNet, by diffusers' own classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from fatezero.errors import UserError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel, UNetMotionModel


def with_motion(unet: UNet2DConditionModel, adapter: Path, name: str) -> UNetMotionModel:
    """A UNet with a motion adapter's modules.

    Args:
        unet: the image model's.
        adapter: folder in the layout of diffusers' MotionAdapter.
        name: what the user called the adapter.

    Raises:
        UserError: if the adapter does not load, or was made for a UNet of another shape.
    """
    from diffusers import MotionAdapter, UNetMotionModel  # noqa: PLC0415  (seconds to import)

    try:
        modules = MotionAdapter.from_pretrained(adapter, dtype=unet.dtype, use_safetensors=True, local_files_only=True)
    except Exception as error:  # diffusers raises a dozen kinds for a damaged folder
        raise UserError(f"{name} does not load as a motion adapter: {_first_line(error)}") from error
    if modules.config.conv_in_channels:
        raise UserError(f"{name} conditions on images (PIA), which editing has none of: use a plain motion adapter.")
    theirs, own = tuple(modules.config.block_out_channels), tuple(unet.config.block_out_channels)
    if theirs != own:
        raise UserError(
            f"{name} was made for a UNet of widths {theirs}, this one's are {own}: use an adapter of the same base."
        )
    try:
        made = UNetMotionModel.from_unet2d(unet, nn.Module.to(modules, unet.dtype))
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{name} does not fit this UNet: {_first_line(error)}") from error
    return nn.Module.to(made, unet.dtype)  # diffusers' own `to` remarks on modules that this UNet has none of


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
