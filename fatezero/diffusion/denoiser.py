"""One UNet prediction for a whole clip: branches side by side, frames in the batch, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fatezero.attention.install import video_attention
from fatezero.attention.processor import AttentionState, Call, StepFusion
from fatezero.attention.spatiotemporal import Chunk, cut_into_chunks, key_positions
from fatezero.attention.store import Recorder
from fatezero.config import MethodConfig
from fatezero.diffusion.backbone import Backbone, join
from fatezero.errors import UserError


@dataclass(frozen=True)
class Branch:
    """What one branch of the batch denoises.

    Attributes:
        latents: F,C,h,w of the whole clip.
        text: 1,T,D.
    """

    latents: Tensor
    text: Tensor


@dataclass(frozen=True)
class Denoiser:
    """A backbone whose UNet sees clips.

    Attributes:
        backbone: the networks.
        state: read by the installed processors.
        chunks: pieces of the clip, one UNet call each.
        positions: key positions of each chunk.
        key_frames_min_width: as in `MethodConfig`.
    """

    backbone: Backbone
    state: AttentionState
    chunks: tuple[Chunk, ...]
    positions: tuple[Tensor | None, ...]
    key_frames_min_width: int

    def predict(
        self,
        branches: Sequence[Branch],
        timestep: int,
        recorders: Sequence[Sequence[Recorder]] = (),
        fusion: Callable[[int], StepFusion | None] = lambda _: None,
    ) -> list[Tensor]:
        """The UNet's output for every branch.

        Args:
            branches: source, unconditional, edit, in this order, as far as there are any.
            timestep: that the UNet is told.
            recorders: which watch the last branch, each given as one for every chunk.
            fusion: what is done to the last branch, given the chunk's index.

        Returns:
            F,C,h,w per branch.

        Raises:
            UserError: if the UNet returns NaN or infinity.
        """
        outputs = [torch.empty_like(branch.latents) for branch in branches]
        for index, chunk in enumerate(self.chunks):
            frames = list(chunk.frames)
            self.state.call = Call(
                branches=len(branches),
                frames=len(frames),
                latent_size=_size(branches[0].latents),
                key_positions=self.positions[index],
                key_frames_min_width=self.key_frames_min_width,
                recorders=[r[index] for r in recorders],
                fusion=fusion(index),
            )
            latents = torch.cat([branch.latents[frames] for branch in branches])
            text = join([branch.text for branch in branches], len(frames))
            predicted = self.backbone.predict(latents, timestep, text, len(frames)).chunk(len(branches))
            own = list(chunk.own)
            for output, piece in zip(outputs, predicted, strict=True):
                output[[frames[i] for i in own]] = piece[own]
        if not all(bool(output.isfinite().all()) for output in outputs):
            raise UserError(
                f"The UNet of {self.backbone.name} returned NaN or infinity at timestep {timestep} in "
                f"{self.backbone.dtype}: use dtype float32, or check the checkpoint."
            )
        return outputs


def _size(latents: Tensor) -> tuple[int, int]:
    return latents.shape[-2], latents.shape[-1]


@contextmanager
def video_denoiser(
    backbone: Backbone, method: MethodConfig, clip_length: int, chunk: int | None, middle: int | None = None
) -> Iterator[Denoiser]:
    """Install key frames and norms for clips of a length; the UNet is put back afterwards.

    A piece of a longer clip names the place of that clip's middle frame in it.

    Raises:
        UserError: if the clip cannot be cut into chunks as asked, or is longer than motion modules count.
    """
    if backbone.ties_frames:
        _check_whole(backbone, clip_length, chunk, middle)
        chunk = clip_length
    chunks = cut_into_chunks(clip_length, method.key_frames, method.norm_scope, chunk, middle)
    positions = tuple(key_positions(method.key_frames, piece, clip_length, middle) for piece in chunks)
    with video_attention(backbone.unet, backbone.sites, method.norm_scope) as state:
        yield Denoiser(backbone, state, chunks, positions, method.key_frames_min_width)


def _check_whole(backbone: Backbone, clip_length: int, chunk: int | None, middle: int | None) -> None:
    if middle is not None or (chunk is not None and chunk < clip_length):
        raise UserError(
            f"A clip of {clip_length} frames cannot be cut, because {backbone.name} has layers along time that tie all "
            "its frames together: leave --chunk and --piece out, or take an image model."
        )
    longest = int(backbone.unet.config.motion_max_seq_length) if backbone.has_motion else clip_length
    if clip_length > longest:
        raise UserError(
            f"The motion modules count {longest} frames and the clip has {clip_length}: set --frames to {longest} or "
            "fewer (--stride takes every stride-th), or leave the motion adapter out."
        )
