"""Tune-A-Video's temporal layers (Wu et al., ICCV 2023, in the form FateZero's authors use), on a stock image UNet.

The layers are children of the modules they follow: a low-rank convolution along time under every 3x3 convolution, an
attention along time under every transformer block. So the UNet stays diffusers' own class, each frame of a batch runs
through its own forward, and names of weights are the original's. Only while `temporal_layers` lasts do they act.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

CONVOLUTION, ATTENTION, NORM = "conv_temporal", "attn_temporal", "norm_temporal"
TEMPORAL = (CONVOLUTION, ATTENTION, NORM)


class TemporalConvolution(nn.Module):
    """x + up(down(x)), both along time over three frames; changes nothing until it is trained."""

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        rank = rank if rank <= channels else channels // 2  # the original's rule
        self.down = nn.Conv1d(channels, rank, 3, padding=1, bias=False)
        self.up = nn.Conv1d(rank, channels, 3, padding=1, bias=False)
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """N,C,F in and out."""
        return x + self.up(self.down(x))  # type: ignore[no-any-return]


def inflate(unet: UNet2DConditionModel, rank: int | None) -> None:
    """Add temporal layers that change nothing until they are trained.

    The attention's output projection is zero, bias included. (The original left the bias random.)

    Args:
        unet: gets them as children.
        rank: rank of the convolutions; if larger than a layer's channels, channels // 2. None adds full ones.
    """
    from diffusers.models.attention_processor import Attention  # noqa: PLC0415  (seconds to import)

    for conv in _convolutions(unet):
        conv.add_module(CONVOLUTION, _convolution(conv.out_channels, rank).to(conv.weight))
    for block in _transformer_blocks(unet):
        like = block.attn1
        width, head = like.query_dim, like.inner_dim // like.heads
        attention = Attention(width, heads=like.heads, dim_head=head, upcast_attention=like.upcast_attention)
        nn.init.zeros_(attention.to_out[0].weight)
        nn.init.zeros_(attention.to_out[0].bias)
        block.add_module(ATTENTION, attention.to(like.to_q.weight))
        block.add_module(NORM, nn.LayerNorm(width).to(like.to_q.weight))


def is_temporal(name: str) -> bool:
    """Whether a weight or module of this name belongs to a temporal layer."""
    return any(part in TEMPORAL for part in name.split("."))


def is_inflated(unet: UNet2DConditionModel) -> bool:
    """Whether a UNet has temporal layers."""
    return any(is_temporal(name) for name, _ in unet.named_parameters())


@contextmanager
def temporal_layers(unet: UNet2DConditionModel, frames: Callable[[], int | None]) -> Iterator[None]:
    """The temporal layers act while the context lasts; the UNet's batch is branches x frames.

    Args:
        unet: with or without them.
        frames: gives the frames of each branch, asked at every call; None where the batch is single images, which pass
            them by.
    """

    def convolve(conv: nn.Module, _: Any, output: Tensor) -> Tensor:
        if (length := frames()) is None:
            return output
        by_place = output.unflatten(0, (-1, length)).permute(0, 3, 4, 2, 1)  # B,h,w,C,F
        done = conv.get_submodule(CONVOLUTION)(by_place.flatten(0, 2))
        moved: Tensor = done.unflatten(0, by_place.shape[:3]).permute(0, 4, 3, 1, 2).flatten(0, 1)
        return moved.contiguous()

    def attend(block: nn.Module, _: Any, output: Tensor) -> Tensor:
        if (length := frames()) is None:
            return output
        by_place = output.unflatten(0, (-1, length)).transpose(1, 2)  # B,N,F,C
        tokens = by_place.flatten(0, 1)
        attended = tokens + block.get_submodule(ATTENTION)(block.get_submodule(NORM)(tokens))
        back: Tensor = attended.unflatten(0, by_place.shape[:2]).transpose(1, 2).flatten(0, 1)
        return back

    with ExitStack() as hooks:
        for module in unet.modules():
            if hasattr(module, CONVOLUTION):
                hooks.callback(module.register_forward_hook(convolve).remove)
            if hasattr(module, ATTENTION):
                hooks.callback(module.register_forward_hook(attend).remove)
        yield


def _convolution(channels: int, rank: int | None) -> nn.Module:
    if rank is not None:
        return TemporalConvolution(channels, rank)
    full = nn.Conv1d(channels, channels, 3, padding=1)
    nn.init.dirac_(full.weight)
    nn.init.zeros_(full.bias)  # type: ignore[arg-type]
    return full


def _convolutions(unet: UNet2DConditionModel) -> list[nn.Conv2d]:
    """Those over space: 1x1 convolutions get no temporal part."""
    return [module for module in unet.modules() if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1]


def _transformer_blocks(unet: UNet2DConditionModel) -> list[Any]:
    from diffusers.models.attention import BasicTransformerBlock  # noqa: PLC0415  (seconds to import)

    return [module for module in unet.modules() if isinstance(module, BasicTransformerBlock)]
