"""What all families of transformers share: the parts of a pipeline of diffusers, read off their configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fatezero.attention.sites import Kind, Site
from fatezero.diffusion.checkpoint import frames_per_latent, latent_channels, pixels_per_latent
from fatezero.diffusion.flow_matching import FlowSolver
from fatezero.diffusion.layouts import ENCODER_OF
from fatezero.diffusion.moves import Solver


@dataclass(frozen=True)
class PipelineNetworks:
    """The parts of a pipeline; families say where they differ from most: see `TransformerNetworks`.

    Attributes:
        name: of the checkpoint, for people.
        pipe: of diffusers.
    """

    name: str
    pipe: Any

    predicts_velocity: ClassVar[bool] = True

    @property
    def text_encoders(self) -> tuple[Any, ...]:
        """Those that there are."""
        parts = (getattr(self.pipe, name, None) for name in ENCODER_OF.values())
        return tuple(part for part in parts if part is not None)

    @property
    def autoencoder(self) -> Any:
        """Of diffusers."""
        return self.pipe.vae

    @property
    def transformers(self) -> list[Any]:
        """The only one."""
        return [self.pipe.transformer]

    @property
    def config(self) -> Any:
        """The transformer's."""
        return self.pipe.transformer.config

    @property
    def latent_channels(self) -> int:
        """Of the autoencoder."""
        return int(latent_channels(self.pipe.vae.config))

    @property
    def frames_per_latent(self) -> int:
        """Of the autoencoder; 1 of images."""
        return frames_per_latent(self.pipe.vae.config)

    @property
    def length_unit(self) -> int:
        """A latent's frames."""
        return self.frames_per_latent

    @property
    def pixels_per_latent(self) -> int:
        """Of the autoencoder."""
        return pixels_per_latent(self.pipe.vae.config)

    @property
    def patch(self) -> int:
        """Latents in height and width that make a place."""
        return int(self.config.patch_size)

    @property
    def longest_side(self) -> int | None:
        """None: places are told by what can be computed for any size."""
        return None

    def site(self, name: str, block: int, kind: Kind) -> Site:
        """A layer of a block."""
        heads, head_width = int(self.config.num_attention_heads), int(self.config.attention_head_dim)
        return Site(
            name=name,
            kind=kind,
            part="blocks",
            downsampling=self.patch,
            width=heads * head_width,
            heads=heads,
            head_width=head_width,
            block=block,
        )

    def stage(self, timestep: float) -> int:  # noqa: ARG002
        """One transformer denoises at all timesteps."""
        return 0

    def solver(self, order: Literal[1, 2]) -> Solver:
        """Moves along straight lines."""
        return FlowSolver(order)


def padded_tokens(tokenizer: Any, text: str, length: int, device: torch.device) -> Tensor:
    """Token ids 1,T of a prompt with its padding, which some text encoders read as they did in training."""
    ids: Tensor = tokenizer(text, padding="max_length", max_length=length, return_tensors="pt").input_ids
    return ids.to(device)
