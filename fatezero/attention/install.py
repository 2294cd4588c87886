"""Install the video attention in a UNet, and restore the UNet afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn
from torch.nn.functional import group_norm

from fatezero.attention.processor import AttentionState, FrameAttention
from fatezero.attention.sites import Site
from fatezero.attention.spared import spared_work
from fatezero.attention.temporal import temporal_layers

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


class ClipGroupNorm(nn.Module):
    """A GroupNorm whose statistics run over all frames of a branch, as in the original's 5-D residual blocks."""

    def __init__(self, norm: nn.GroupNorm, state: AttentionState) -> None:
        super().__init__()
        self.norm = norm
        self._state = state

    def forward(self, x: Tensor) -> Tensor:
        """(branches * F),C,h,w in and out; channels last, nothing is copied for it."""
        frames, rows = self._state.call.frames, x.shape[2]
        by_branch = x.unflatten(0, (-1, frames)).transpose(1, 2).flatten(2, 3)  # branches,C,(F * h),w
        normed = group_norm(by_branch, self.norm.num_groups, self.norm.weight, self.norm.bias, self.norm.eps)
        by_frame: Tensor = normed.unflatten(2, (frames, rows)).transpose(1, 2).flatten(0, 1)
        return by_frame


@contextmanager
def video_attention(
    unet: UNet2DConditionModel, sites: Sequence[Site], norm_scope: Literal["clip", "frame"]
) -> Iterator[AttentionState]:
    """The UNet sees its batch as frames of clips while the context lasts.

    Args:
        unet: diffusers' UNet; left as it was found, also after an error.
        sites: its attention layers.
        norm_scope: "clip" swaps the GroupNorms that the original runs over all frames: those of the residual
            blocks and the output's. (The transformers' own stay per frame there.)
    """
    state = AttentionState()
    processors = dict(unet.attn_processors)
    norms = _residual_norms(unet) if norm_scope == "clip" else []
    try:
        unet.set_attn_processor({f"{site.name}.processor": FrameAttention(site, state) for site in sites})
        for owner, name, norm in norms:
            setattr(owner, name, ClipGroupNorm(norm, state))
        with temporal_layers(unet, lambda: None if state.call.images else state.call.frames), spared_work(unet, state):
            yield state
    finally:
        unet.set_attn_processor(processors)
        for owner, name, norm in norms:
            setattr(owner, name, norm)


def _residual_norms(unet: UNet2DConditionModel) -> list[tuple[nn.Module, str, nn.GroupNorm]]:
    from diffusers.models.resnet import ResnetBlock2D  # noqa: PLC0415  (seconds to import)

    blocks = [module for module in unet.modules() if isinstance(module, ResnetBlock2D)]
    places = [(block, name) for block in blocks for name in ("norm1", "norm2")] + [(unet, "conv_norm_out")]
    return [(owner, name, getattr(owner, name)) for owner, name in places]
