"""What makes large networks fit a device, by diffusers' own switches: float8 weights, groups offloaded, tiles.

Slicing, another switch of theirs, cuts batches. There are none here: an image autoencoder is given one frame at a time,
and a clip is a batch of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fatezero.config import RuntimeConfig
from fatezero.errors import UserError

STORED = torch.float8_e4m3fn  # 4 bits of exponent, 3 of mantissa: diffusers' default


def check_switches(runtime: RuntimeConfig, device: torch.device) -> None:
    """Refuse switches that do nothing on a device, or do not work there.

    Raises:
        UserError: saying which.
    """
    if runtime.group_offload and device.type != "cuda":
        raise UserError(
            f"--group-offload keeps weights in the host's memory while a GPU waits for them, and device "
            f"'{device.type}' has no other memory than the host's: leave it out, or use device 'cuda'."
        )
    if runtime.layerwise_casting and device.type == "mps":
        raise UserError("--layerwise-casting stores weights in float8, which MPS lacks: leave it out.")


def refuse_switches(runtime: RuntimeConfig) -> None:
    """Refuse what is for transformers, beside a UNet.

    Raises:
        UserError: saying which.
    """
    given = {"--group-offload": runtime.group_offload, "--layerwise-casting": runtime.layerwise_casting}
    for option in [option for option, value in given.items() if value]:
        raise UserError(f"{option} is for video transformers: a UNet's weights take 2 to 5 GB in half; leave it out.")


def cast_layers(transformers: Sequence[Any], dtype: torch.dtype) -> None:
    """Store the weights of transformers' layers in float8; they are cast to a dtype while their layer computes.

    Norms, and what diffusers holds too delicate in each class, keep their format.
    """
    for transformer in transformers:
        transformer.enable_layerwise_casting(STORED, dtype)


def offload_groups(transformers: Sequence[Any], text_encoders: Sequence[nn.Module], device: torch.device) -> None:
    """Keep weights in the host's memory; those of a block or a layer come to the device while it computes.

    The next block of a transformer is fetched meanwhile.

    Args:
        transformers: the denoising networks, on the CPU.
        text_encoders: on the CPU; prompts are embedded once, and then they are in nobody's way.
        device: where they compute.
    """
    from diffusers.hooks import apply_group_offloading  # noqa: PLC0415  (seconds to import)

    for transformer in transformers:
        transformer.enable_group_offload(
            device, offload_type="block_level", num_blocks_per_group=1, use_stream=device.type == "cuda"
        )
    for encoder in text_encoders:
        apply_group_offloading(encoder, device, offload_type="leaf_level")


@contextmanager
def tiled(autoencoder: Any, tiling: bool) -> Iterator[None]:
    """An autoencoder works in tiles while the context lasts, where tiling is asked for."""
    if not tiling:
        yield
        return
    autoencoder.enable_tiling()
    try:
        yield
    finally:
        autoencoder.disable_tiling()
