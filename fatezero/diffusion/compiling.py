"""A UNet's repeated blocks compiled by torch: those that are pure functions of tensors, one by one.

Attention stays as it is, since the processors in it watch and change what it does from call to call. Shapes are never
generalised: which kernels do the work, and so how they round, must not follow from what was edited before.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.compiler import config

from fatezero.attention.temporal import is_inflated
from fatezero.errors import UserError, first_line, out_of_memory

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel, UNetMotionModel

# Of a block's code, for all blocks, branches and lengths of chunks together; beyond it torch would stop to compile.
MAX_SHAPES = 4096


def compile_blocks(unet: UNet2DConditionModel | UNetMotionModel, name: str) -> None:
    """Have the residual blocks and feed-forward layers compiled, in place, at their first call with each shape.

    Args:
        unet: on its device.
        name: the checkpoint's, in errors.

    Raises:
        UserError: if this machine cannot compile, or Tune-A-Video's layers stand inside the blocks.
    """
    from diffusers.models.attention import FeedForward  # noqa: PLC0415  (seconds to import)
    from diffusers.models.resnet import ResnetBlock2D  # noqa: PLC0415

    if is_inflated(unet):
        raise UserError(
            f"{name} has Tune-A-Video's temporal layers, which stand inside the blocks that are compiled: leave "
            "--compile out."
        )
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # speaks of CUDA, also where there is none
    _try_to_compile(unet.device)
    config.recompile_limit = config.accumulated_recompile_limit = MAX_SHAPES
    for block in unet.modules():
        if isinstance(block, ResnetBlock2D | FeedForward):
            block.compile(fullgraph=True, dynamic=False)


def _try_to_compile(device: torch.device) -> None:
    """Compile a sum; kept between processes, as all else that is compiled.

    Raises:
        UserError: saying why it failed.
    """
    trial = nn.Sigmoid()
    trial.compile(fullgraph=True, dynamic=False)
    try:
        trial(torch.ones(2, device=device))
    except Exception as error:  # of dynamo, inductor, Triton, or a compiler that is not there
        if out_of_memory(error):
            raise
        raise UserError(
            f"Nothing can be compiled for {device.type} on this machine ({first_line(error)}): install a C++ compiler "
            "such as g++ (on CUDA also Triton), or leave --compile out."
        ) from error
