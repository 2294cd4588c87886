"""What the method needs of a model: one protocol, and one file of `model_families` for each family behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import torch
from torch import Tensor

from fatezero.attention.key_frames import Chunk
from fatezero.attention.processor import CallFusion
from fatezero.attention.prompts import Prompt
from fatezero.attention.recorders import Recorder
from fatezero.attention.sites import Site
from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.checkpoint import Checkpoint, family_in, find_checkpoint
from fatezero.diffusion.moves import Solver, Step
from fatezero.diffusion.prediction import Branches, Output
from fatezero.diffusion.texts import TextConditioning
from fatezero.source_attention.budget import RecordingShapes
from fatezero.types import Frames


class Backbone(Protocol):
    """The networks of one checkpoint on one device.

    A clip's latents are F,C,h,w. Where a latent stands for several frames of the clip, F counts latents.
    """

    @property
    def checkpoint(self) -> Checkpoint:
        """The files that they were loaded from."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user about choices that were made."""

    @property
    def name(self) -> str:
        """What the user called the checkpoint."""

    @property
    def device(self) -> torch.device:
        """Where the networks are."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the networks."""

    @property
    def latent_dtype(self) -> torch.dtype:
        """Of latents between network calls: never below float32, or the moves would add up their rounding."""

    @property
    def rounding(self) -> str:
        """What decides how the networks round, for people."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """The denoising network's attention layers."""

    @property
    def embeds_guidance(self) -> bool:
        """Whether the network is told the guidance scale, having learnt what guidance does: one branch is enough."""

    @property
    def predicts_velocity(self) -> bool:
        """Whether it is of flow matching: the network predicts the velocity along straight lines from data to noise."""

    def check_method(self, method: MethodConfig, fused: frozenset[str]) -> None:
        """Refuse settings that mean nothing to this family, given the names of the fused layers.

        Raises:
            UserError: saying which, and what to set.
        """

    def check_cut(self) -> None:
        """Refuse to work on part of a clip, where the network ties all its frames together.

        Raises:
            UserError: saying why, and what to do.
        """

    def read_prompt(self, text: str, contexts: int = 1) -> Prompt:
        """Tokenise a prompt. Raises UserError if it is too long, or the text encoders read it unlike each other."""

    def embed(self, text: str, contexts: int = 1) -> TextConditioning:
        """What the network is told of a prompt. Raises UserError as `read_prompt`."""

    def embed_negative(self, text: str, contexts: int = 1) -> TextConditioning:
        """What the network is told in the unconditional branch."""

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """F,C,h,w of a clip's latents.

        Raises:
            UserError: if a clip of so many frames of this size does not fit the networks.
        """

    def latent_of_frames(self, frames: int) -> tuple[int, ...]:
        """For each frame of a clip, the index of the latent that stands for it."""

    def encode_clip(self, frames: Frames, generator: torch.Generator | None = None, *, tiling: bool = False) -> Tensor:
        """Latents F,C,h,w of frames (uint8 F,H,W,3); a generator samples the posterior, None takes its mode.

        With tiling, large frames are encoded in tiles (see `MethodConfig.autoencoder_tiling`).

        Raises:
            UserError: as `latent_shape`, and where there is no posterior to sample.
        """

    def decode_clip(self, latents: Tensor, *, tiling: bool = False) -> Frames:
        """Frames uint8 F,H,W,3 of latents; large ones in tiles, with tiling."""

    def schedule(self, steps: int, latent_shape: tuple[int, int, int, int]) -> tuple[Step, ...]:
        """Steps from clean to noise, for latents F,C,h,w, on whose size some models' levels depend.

        Raises:
            UserError: if the checkpoint's schedule has no such steps.
        """

    def solver(self, order: Literal[1, 2]) -> Solver:
        """Makes the moves of one walk along the schedule."""

    def denoiser(
        self, method: MethodConfig, length: int, chunk_size: int | None, middle: int | None = None
    ) -> AbstractContextManager[Denoiser]:
        """The denoising network for clips of so many latents, its attention tapped while the context lasts.

        With `middle`, these are frames of a segment, and it is the index of the whole clip's middle frame among them.

        Raises:
            UserError: if the clip cannot be cut as asked, or is longer than the network can take.
        """


class Denoiser(Protocol):
    """A denoising network that sees clips."""

    @property
    def backbone(self) -> Backbone:
        """The networks."""

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """The clip's chunks, one network call each; `own` are those of its latents that the call decides."""

    @property
    def prompt_contexts(self) -> int:
        """As in `MethodConfig`."""

    def recording_shapes(self, latents: Tensor, prompt: str) -> RecordingShapes:
        """What the size of a recording depends on, for latents F,C,h,w and the source prompt."""

    def predict(
        self,
        branches: Branches,
        timestep: float,
        recorders: Sequence[Sequence[Recorder]] = (),
        fusion: Callable[[int, Chunk], CallFusion] | None = None,
        *,
        reuse: bool = False,
    ) -> Output:
        """The network's output for a whole clip.

        Args:
            branches: what the network is asked about.
            timestep: the timestep that it is told.
            recorders: watch the conditional branch; each is a sequence with one recorder per chunk.
            fusion: what is done to the conditional branch's attention, for a chunk and its index; None does nothing.
            reuse: compute no more than what cannot be taken from the last whole prediction, which had these branches
                too (see `MethodConfig.feature_reuse`).

        Raises:
            UserError: if the network has returned NaN or infinity, in this call or, on a GPU, the one before.
        """


def load_backbone(networks: ModelOptions, runtime: RuntimeConfig) -> Backbone:
    """Load a checkpoint and what is added to it, from safetensors only.

    Raises:
        UserError: if it cannot be loaded.
    """
    found = find_checkpoint(networks)
    if family_in(found.folder).denoiser == "unet":
        from fatezero.diffusion.model_families.unet import UNetBackbone  # noqa: PLC0415  (what the other does not need)

        return UNetBackbone.of_checkpoint(found, runtime)
    from fatezero.diffusion.model_families.transformer_loading import load_transformer  # noqa: PLC0415

    return load_transformer(found, runtime)
