"""One UNet prediction for a whole clip: branches side by side, frames in the batch, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fatezero.attention.install import video_attention
from fatezero.attention.key_frames import Chunk, cut_into_chunks, key_positions
from fatezero.attention.processor import AttentionState, Call, CallFusion
from fatezero.attention.recorders import Recorder
from fatezero.config import MethodConfig
from fatezero.diffusion.backbone import Backbone
from fatezero.diffusion.texts import TextConditioning
from fatezero.errors import UserError
from fatezero.source_attention.budget import RecordingShapes


@dataclass(frozen=True)
class Branch:
    """What one branch of the batch denoises.

    Attributes:
        latents: F,C,h,w of the whole clip.
        text: what the UNet is told of the prompt.
        guidance: scale that a UNet with a guidance embedding is told; 1 is no guidance.
    """

    latents: Tensor
    text: TextConditioning
    guidance: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Branches:
    """The branches of one UNet call, in the order of the batch: source, unconditional, conditional.

    Attributes:
        source: runs the source again, for its attention; None where it is kept or not needed.
        unconditional: the branch without a prompt, for classifier-free guidance; None without guidance.
        conditional: under the prompt of the inversion or the edit; its attention is watched and fused.
    """

    conditional: Branch
    unconditional: Branch | None = None
    source: Branch | None = None

    @property
    def batch(self) -> list[Branch]:
        """Those that there are, in order."""
        return [branch for branch in (self.source, self.unconditional, self.conditional) if branch is not None]


@dataclass(frozen=True)
class Output:
    """What the UNet returned: F,C,h,w for each branch that is asked for its noise.

    Attributes:
        conditional: under the prompt.
        unconditional: without one; None without guidance.
    """

    conditional: Tensor
    unconditional: Tensor | None

    def guided(self, scale: float) -> Tensor:
        """Classifier-free guidance (Ho & Salimans 2022): F,C,h,w."""
        if self.unconditional is None:
            return self.conditional
        return self.unconditional + scale * (self.conditional - self.unconditional)


@dataclass(frozen=True)
class Denoiser:
    """A backbone whose UNet sees clips.

    Attributes:
        backbone: the networks.
        state: read by the installed processors.
        chunks: the clip's chunks, one UNet call each.
        positions: key positions of each chunk.
        key_frames_min_width: as in `MethodConfig`.
        prompt_contexts: as in `MethodConfig`.
    """

    backbone: Backbone
    state: AttentionState
    chunks: tuple[Chunk, ...]
    positions: tuple[Tensor | None, ...]
    key_frames_min_width: int
    prompt_contexts: int

    def recording_shapes(self, latents: Tensor) -> RecordingShapes:
        """What the size of a recording depends on, for latents F,C,h,w."""
        positions = self.positions[0]
        return RecordingShapes(
            sites=self.backbone.sites,
            latent_size=_size(latents),
            chunks=self.chunks,
            key_frames=1 if positions is None else positions.shape[1],
            key_frames_min_width=self.key_frames_min_width,
            text_tokens=self.prompt_contexts * self.backbone.context,
            itemsize=self.backbone.dtype.itemsize,
        )

    def predict(
        self,
        branches: Branches,
        timestep: int,
        recorders: Sequence[Sequence[Recorder]] = (),
        fusion: Callable[[int, Chunk], CallFusion] | None = None,
    ) -> Output:
        """The UNet's output for a whole clip.

        Args:
            branches: what the UNet is asked about.
            timestep: the timestep that the UNet is told.
            recorders: watch the conditional branch; each is a sequence with one recorder per chunk.
            fusion: what is done to the conditional branch's attention, for a chunk and its index; None does nothing.

        Raises:
            UserError: if the UNet returns NaN or infinity.
        """
        batch = branches.batch
        outputs = [torch.empty_like(branch.latents) for branch in batch]
        for index, chunk in enumerate(self.chunks):
            frames = list(chunk.frames)
            self.state.call = Call(
                branches=len(batch),
                frames=len(frames),
                latent_size=_size(batch[0].latents),
                key_positions=self.positions[index],
                key_frames_min_width=self.key_frames_min_width,
                recorders=[r[index] for r in recorders],
                fusion=fusion(index, chunk) if fusion else None,
            )
            latents = torch.cat([branch.latents[frames] for branch in batch])
            texts, guidance = [branch.text for branch in batch], [branch.guidance for branch in batch]
            predicted = self.backbone.predict(latents, timestep, texts, len(frames), guidance).chunk(len(batch))
            own = list(chunk.own)
            for output, part in zip(outputs, predicted, strict=True):
                output[[frames[i] for i in own]] = part[own]
        if not all(bool(output.isfinite().all()) for output in outputs):
            raise UserError(
                f"The UNet of {self.backbone.name} returned NaN or infinity at timestep {timestep} in "
                f"{self.backbone.dtype}: use dtype float32, or check the checkpoint."
            )
        return Output(outputs[-1], outputs[-2] if branches.unconditional is not None else None)


def _size(latents: Tensor) -> tuple[int, int]:
    return latents.shape[-2], latents.shape[-1]


@contextmanager
def video_denoiser(
    backbone: Backbone, method: MethodConfig, clip_length: int, chunk_size: int | None, middle: int | None = None
) -> Iterator[Denoiser]:
    """Install key frames and norms for clips of a length; the UNet is put back afterwards.

    With `middle`, these are frames of a segment, and it is the index of the whole clip's middle frame among them.

    Raises:
        UserError: if the clip cannot be cut into chunks as asked, or is longer than motion modules count.
    """
    if backbone.ties_frames:
        _check_whole(backbone, clip_length, chunk_size, middle)
        chunk_size = clip_length
    chunks = cut_into_chunks(clip_length, method.key_frames, method.norm_scope, chunk_size, middle)
    positions = tuple(key_positions(method.key_frames, chunk, clip_length, middle) for chunk in chunks)
    with video_attention(backbone.unet, backbone.sites, method.norm_scope) as state:
        yield Denoiser(backbone, state, chunks, positions, method.key_frames_min_width, method.prompt_contexts)


def _check_whole(backbone: Backbone, clip_length: int, chunk_size: int | None, middle: int | None) -> None:
    if middle is not None or (chunk_size is not None and chunk_size < clip_length):
        raise UserError(
            f"A clip of {clip_length} frames cannot be cut, because {backbone.name} has layers along time that tie all "
            "its frames together: leave --chunk and --segment out, or take an image model."
        )
    longest = int(backbone.unet.config.motion_max_seq_length) if backbone.has_motion else clip_length
    if clip_length > longest:
        raise UserError(
            f"The motion modules count {longest} frames and the clip has {clip_length}: set --frames to {longest} or "
            "fewer (--stride takes every stride-th), or leave the motion adapter out."
        )
