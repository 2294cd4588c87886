"""AnimateDiff's motion modules (Guo et al., ICLR 2024) in an image UNet, by diffusers' own classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from fatezero.diffusion.components import check_description, load_motion_adapter
from fatezero.errors import UserError, first_line

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel, UNetMotionModel


def with_motion(unet: UNet2DConditionModel, adapter: Path, name: str, variant: str | None = None) -> UNetMotionModel:
    """A UNet with a motion adapter's modules.

    Args:
        unet: the image model's.
        adapter: folder in the layout of diffusers' MotionAdapter.
        name: what the user called the adapter.
        variant: of its weights, where there are several.

    Raises:
        UserError: if the adapter does not load, or was made for a UNet of another shape.
    """
    return joined(unet, load_motion_adapter(adapter, unet.dtype, variant), name)


def joined(unet: UNet2DConditionModel, modules: Any, name: str) -> UNetMotionModel:
    """A UNet with the modules of a MotionAdapter; neither needs weights.

    Args:
        unet: the image model's.
        modules: MotionAdapter.
        name: what the user called it.

    Raises:
        UserError: if they were made for a UNet of another shape.
    """
    from diffusers import UNetMotionModel  # noqa: PLC0415  (seconds to import)

    _check_fit(modules.config, unet.config, name)
    try:
        with unet.device:  # which may be "meta"
            made = UNetMotionModel.from_unet2d(unet, nn.Module.to(modules, unet.dtype))
        if unet.config.addition_embed_type is not None:  # SDXL's, whose weights diffusers leaves behind
            made.add_embedding.load_state_dict(unet.add_embedding.state_dict())
    except Exception as error:  # whatever a wrong value leads to
        raise UserError(f"{name} does not fit this UNet ({first_line(error)}): use an adapter made for it.") from error
    check_description("UNetMotionModel", made.config, name)
    return nn.Module.to(made, unet.dtype)  # diffusers' own `to` remarks on modules that this UNet has none of


def _check_fit(adapter: Any, unet: Any, name: str) -> None:
    if adapter.conv_in_channels:
        raise UserError(f"{name} conditions on images (PIA), which editing has none of: use a plain motion adapter.")
    theirs, own = tuple(adapter.block_out_channels), tuple(unet.block_out_channels)
    if theirs != own:
        raise UserError(
            f"{name} was made for a UNet of widths {theirs}, this one's are {own}: use an adapter of the same base."
        )
