"""What a UNet need not compute for every branch of a batch, spared by hooks on diffusers' own blocks.

Branches that start from the same latents differ only behind the first layer that reads their prompt; and the source's
branch is of no use behind the last layer whose attention the edit takes from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fatezero.attention.processor import AttentionState, Call, CallFusion
from fatezero.attention.sites import Site

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # of a module's call: diffusers gives some by name, some by place

FIRST_SELF_ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


def where_source_leaves(sites: Sequence[Site], fusion: CallFusion) -> int:
    """Index of the first upsampling block behind the last layer that fusion touches."""
    fused = [int(site.name.split(".")[1]) for site in sites if site.part == "up" and fusion.touches(site)]
    return max(fused, default=-1) + 1


@contextmanager
def spared_work(unet: UNet2DConditionModel, state: AttentionState) -> Iterator[None]:
    """Calls that say `Call.twins` or `Call.source_leaves` compute less while the context lasts.

    Args:
        unet: left as it was found.
        state: holds the call under way.
    """
    with ExitStack() as hooks:
        for name, module in unet.named_modules():
            if name in {"down_blocks.0.resnets.0", FIRST_SELF_ATTENTION}:  # the costly ones before any prompt is read
                twins = _Twins(state, name)
                hooks.callback(module.register_forward_pre_hook(twins.take_one, with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(twins.give_both).remove)
        for index, block in enumerate(unet.up_blocks):
            leaving = _SourceLeaves(state, index)
            hooks.callback(block.register_forward_pre_hook(leaving.before_block, with_kwargs=True).remove)
            for upsampler in block.upsamplers or ():
                hooks.callback(upsampler.register_forward_pre_hook(leaving.before_upsampler, with_kwargs=True).remove)
        yield


class _Twins:
    """Hooks that run a module for one of two branches that are still the same, the last ones of the batch."""

    def __init__(self, state: AttentionState, name: str) -> None:
        self._state = state
        self._name = name
        self._call: Call | None = None  # of both, while the module runs for one

    def take_one(self, module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Arguments | None:  # noqa: ARG002
        """Leave the last branch's rows out."""
        call = self._state.call
        fused = call.fusion is not None and self._name in call.fusion.sites
        self._call = call if call.twins and not fused else None
        if self._call is None:
            return None
        self._state.call = replace(call, branches=call.branches - 1)
        return _rows(args, given, slice(-call.frames))

    def give_both(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:  # noqa: ARG002
        """The other branch's rows stand for the last one's as well."""
        if self._call is None:
            return output
        self._state.call = self._call
        return torch.cat([output, output[-self._call.frames :]])


class _SourceLeaves:
    """Hooks that drop the source's rows, the first of the batch, once it is at the end of its use."""

    def __init__(self, state: AttentionState, index: int) -> None:
        self._state = state
        self._index = index  # of the upsampling block

    def before_block(self, block: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Arguments | None:  # noqa: ARG002
        """Hand the block the rows of the branches that stay, of which some come from before the source left."""
        return self._without_source(self._index, args, given)

    def before_upsampler(
        self,
        upsampler: nn.Module,  # noqa: ARG002
        args: tuple[Any, ...],
        given: dict[str, Any],
    ) -> Arguments | None:
        """The upsampling at the end of a block works on its successor's scale already."""
        return self._without_source(self._index + 1, args, given)

    def _without_source(self, next_block: int, args: tuple[Any, ...], given: dict[str, Any]) -> Arguments | None:
        """Arguments without the source's rows, where it does not enter the next block; None where all stay."""
        call = self._state.call
        if call.source_leaves is None or next_block < call.source_leaves:
            return None
        if not call.source_left:
            self._state.call = call = replace(call, branches=call.branches - 1, source_left=True)
        return _rows(args, given, slice(-call.branches * call.frames, None))


def _rows(args: tuple[Any, ...], given: dict[str, Any], rows: slice) -> Arguments:
    """A module's arguments with some rows of its tensors, which have one for each frame of the batch."""
    return tuple(_part(value, rows) for value in args), {name: _part(value, rows) for name, value in given.items()}


def _part(value: Any, rows: slice) -> Any:
    if isinstance(value, tuple):  # residuals, or a size
        return tuple(_part(one, rows) for one in value)
    return value[rows] if isinstance(value, Tensor) else value
