"""Diffusers' own networks, called as they come: what every cost is measured against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fatezero.diffusion.backbone import Backbone
from fatezero.diffusion.model_families.transformer import TransformerBackbone
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.onednn import OneDnnLinear
from fatezero.diffusion.texts import TextConditioning

StockCall = Callable[[int, float], object]  # with so many branches, at a timestep


@contextmanager
def stock_calls(backbone: Backbone, clean: Tensor, text: TextConditioning) -> Iterator[StockCall]:
    """What calls the denoising network as diffusers loads it, its own attention processors and norms at work.

    Args:
        backbone: whose network is called; it is put back afterwards.
        clean: F,C,h,w latents of the clip, given to every branch.
        text: given to every branch.
    """
    if isinstance(backbone, UNetBackbone):
        try:
            with stock_network(backbone.unet, torch.contiguous_format):
                yield _unet_call(backbone, clean, text)
        finally:
            backbone.unet.to(memory_format=torch.channels_last)
    else:
        assert isinstance(backbone, TransformerBackbone)
        with stock_network(nn.ModuleList(backbone.networks.transformers), torch.preserve_format):
            yield _transformer_call(backbone, clean, text)


def _unet_call(backbone: UNetBackbone, clean: Tensor, text: TextConditioning) -> StockCall:
    """Frames lie in the batch; key frames there are none."""
    frames, size = len(clean), (clean.shape[-2], clean.shape[-1])
    told = {n: backbone.conditioning([text] * n, frames, size) for n in (1, 2)}
    batches = {n: torch.cat([clean.to(backbone.dtype)] * n) for n in (1, 2)}
    if backbone.has_motion:  # branches,C,F,h,w
        batches = {n: batch.unflatten(0, (n, frames)).transpose(1, 2) for n, batch in batches.items()}

    def call(branches: int, timestep: float) -> object:
        return backbone.unet(batches[branches], timestep, **told[branches])

    return call


def _transformer_call(backbone: TransformerBackbone, clean: Tensor, text: TextConditioning) -> StockCall:
    batches = {n: torch.stack([clean.to(backbone.dtype)] * n).transpose(1, 2) for n in (1, 2)}

    def call(branches: int, timestep: float) -> object:
        return backbone.networks.predict(batches[branches], timestep, [text] * branches, [1.0] * branches)

    return call


@contextmanager
def stock_network(network: nn.Module, layout: torch.memory_format) -> Iterator[None]:
    """The network has PyTorch's own Linear layers, and weights in a layout, while the context lasts."""
    linears: list[nn.Module] = [module for module in network.modules() if isinstance(module, OneDnnLinear)]
    network.to(memory_format=layout)
    for linear in linears:
        linear.__class__ = nn.Linear
    try:
        yield
    finally:
        for linear in linears:
            linear.__class__ = OneDnnLinear
