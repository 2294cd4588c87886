"""AnimateDiff's motion modules (Guo et al., ICLR 2024) in an image UNet, by diffusers' own classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from fatezero.diffusion.components import check_description, load_motion_adapter
from fatezero.errors import UserError, first_line

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
    from diffusers import UNetMotionModel  # noqa: PLC0415  (seconds to import)

    modules = load_motion_adapter(adapter, unet.dtype)
    if modules.config.conv_in_channels:
        raise UserError(f"{name} conditions on images (PIA), which editing has none of: use a plain motion adapter.")
    theirs, own = tuple(modules.config.block_out_channels), tuple(unet.config.block_out_channels)
    if theirs != own:
        raise UserError(
            f"{name} was made for a UNet of widths {theirs}, this one's are {own}: use an adapter of the same base."
        )
    try:
        made = UNetMotionModel.from_unet2d(unet, nn.Module.to(modules, unet.dtype))
    except Exception as error:  # whatever a wrong value leads to
        raise UserError(f"{name} does not fit this UNet ({first_line(error)}): use an adapter made for it.") from error
    check_description("UNetMotionModel", made.config, f"{adapter}/config.json")
    return nn.Module.to(made, unet.dtype)  # diffusers' own `to` remarks on modules that this UNet has none of
