"""Deep features of a UNet, reused by the steps that follow (DeepCache: Ma et al., CVPR 2024).

From step to step what enters the UNet's last up block changes little. So a step may compute the outermost level alone,
the first down block and the last up block, and take what comes from below from the last step that was computed whole:
one tensor for each branch and chunk, 640 x 64 x 64 numbers a frame in Stable Diffusion 1.x at 512 x 512.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fatezero.errors import UserError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel, UNetMotionModel


def outermost_level(unet: UNet2DConditionModel | UNetMotionModel) -> tuple[str, str]:
    """What names of modules in the outermost level begin with."""
    return "down_blocks.0.", f"up_blocks.{len(unet.up_blocks) - 1}."


class DeepFeatures:
    """What entered a UNet's last up block in the last whole step, by chunk and branch.

    The source's branch has none: it runs in whole steps only.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], Tensor] = {}
        self._chunk = 0
        self._branches: tuple[str, ...] = ()
        self._frames = 0
        self.reused = False

    def begin(self, chunk: int, branches: Sequence[str], frames: int, *, reuse: bool) -> None:
        """Say what the UNet's next call is.

        Args:
            chunk: index of the clip's chunk.
            branches: names of the last ones in the batch; those before them are not kept.
            frames: of each branch.
            reuse: the call takes the features kept; otherwise it computes and keeps them.
        """
        self._chunk, self._branches, self._frames, self.reused = chunk, tuple(branches), frames, reuse

    def keep(self, features: Tensor) -> None:
        """Keep (branches * F),C,h,w of a whole call."""
        for branch, part in zip(reversed(self._branches), reversed(features.split(self._frames)), strict=False):
            self._kept[self._chunk, branch] = part.clone()

    def kept(self) -> Tensor:
        """(branches * F),C,h,w for a call that reuses them."""
        return torch.cat([self._kept[self._chunk, branch] for branch in self._branches])


@contextmanager
def deep_features(unet: UNet2DConditionModel | UNetMotionModel) -> Iterator[DeepFeatures]:
    """The UNet keeps its deep features, or reuses them, as it is told before each call while the context lasts.

    Args:
        unet: of diffusers; its blocks are put back afterwards.

    Raises:
        UserError: if it has a single level.
    """
    if len(unet.up_blocks) < 2:
        raise UserError("feature_reuse is more than 1, but the UNet has one level alone: set feature_reuse to 1.")
    features = DeepFeatures()
    first, last = unet.down_blocks[0], unet.up_blocks[-2]
    middle = [unet.mid_block] if unet.mid_block is not None else []
    with ExitStack() as replaced:
        for block in (*(first.downsamplers or ()), *middle, *unet.up_blocks[:-2]):
            replaced.enter_context(_forward(block, _skipping(features, block.forward, outputs=None)))
        for block in unet.down_blocks[1:]:
            outputs = len(block.resnets) + (block.downsamplers is not None)
            replaced.enter_context(_forward(block, _skipping(features, block.forward, outputs)))
        replaced.enter_context(_forward(last, _keeping(features, last.forward)))
        yield features


def _skipping(features: DeepFeatures, compute: Callable[..., Any], outputs: int | None) -> Callable[..., Any]:
    """A forward that hands its input on, for each of a down block's outputs too, where features are reused."""

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not features.reused:
            return compute(hidden_states, *args, **kwargs)
        return hidden_states if outputs is None else (hidden_states, (hidden_states,) * outputs)

    return forward


def _keeping(features: DeepFeatures, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The forward of the block whose output enters the last up block."""

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        if features.reused:
            return features.kept()
        computed = compute(*args, **kwargs)
        features.keep(computed)
        return computed

    return forward


@contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """A module has another forward while the context lasts."""
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own
