"""The scale on which a UNet sees the autoencoder's latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fatezero.errors import UserError
from fatezero.system.terminal import quoted

MAX_SCALE = 1e4  # of latents; 0.13 to 1.5 in checkpoints that are in use


@dataclass(frozen=True)
class LatentScale:
    """(latents - mean) / deviation * factor, by channel.

    Attributes:
        factor: of all channels.
        mean: of each channel; None where none is taken off, as in most checkpoints.
        deviation: of each channel; None together with `mean`.
    """

    factor: float
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None

    @classmethod
    def of(cls, vae_config: Any, name: str) -> LatentScale:
        """As an autoencoder's configuration says; `name` is the checkpoint's in errors.

        Raises:
            UserError: if it says what no scale is.
        """
        factor, channels = vae_config.scaling_factor, int(vae_config.latent_channels)
        if not isinstance(factor, int | float) or not 0 < factor < MAX_SCALE:
            raise UserError(f"{name}: vae/config.json: scaling_factor is {quoted(factor)}: it is 0.18215 or alike.")
        mean, deviation = (getattr(vae_config, key, None) for key in ("latents_mean", "latents_std"))
        if mean is None or deviation is None:  # diffusers takes both or none
            return cls(float(factor))
        for key, values, least in (("latents_mean", mean, -MAX_SCALE), ("latents_std", deviation, 1 / MAX_SCALE)):
            numbers = isinstance(values, list | tuple) and all(isinstance(one, int | float) for one in values)
            if not numbers or len(values) != channels or not all(least <= one <= MAX_SCALE for one in values):
                raise UserError(
                    f"{name}: vae/config.json: {key} is {quoted(values)}: it is a number for each of the {channels} "
                    "channels, or null."
                )
        return cls(float(factor), tuple(mean), tuple(deviation))

    def to_unet(self, latents: Tensor) -> Tensor:
        """The autoencoder's latents F,C,h,w as the UNet sees them."""
        if self.mean is None or self.deviation is None:
            return latents * self.factor
        return (latents - _by_channel(self.mean, latents)) / _by_channel(self.deviation, latents) * self.factor

    def to_autoencoder(self, latents: Tensor) -> Tensor:
        """The UNet's latents F,C,h,w as the autoencoder decodes them."""
        if self.mean is None or self.deviation is None:
            return latents / self.factor
        return latents * _by_channel(self.deviation, latents) / self.factor + _by_channel(self.mean, latents)


def _by_channel(values: tuple[float, ...], latents: Tensor) -> Tensor:
    return torch.tensor(values).to(latents)[:, None, None]
