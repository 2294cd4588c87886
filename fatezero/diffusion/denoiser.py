"""One UNet prediction for a whole clip: branches side by side, frames in the batch, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fatezero.attention.install import video_attention
from fatezero.attention.kernels import attention_kernel
from fatezero.attention.key_frames import Chunk, cut_into_chunks, key_positions
from fatezero.attention.processor import AttentionState, Call, CallFusion, PromptProjections
from fatezero.attention.recorders import Recorder
from fatezero.attention.spared import where_source_leaves
from fatezero.config import MethodConfig
from fatezero.diffusion.backbone import Backbone
from fatezero.diffusion.feature_reuse import DeepFeatures, deep_features
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

    @property
    def twins(self) -> bool:
        """Whether the last two differ in nothing that the UNet knows before it reads their prompts."""
        first, second = self.unconditional, self.conditional
        if first is None or first.latents is not second.latents:
            return False
        return first.text.pooled is None and second.text.pooled is None  # pooled, a prompt is read at once

    @property
    def denoised(self) -> tuple[str, ...]:
        """Names of those that are asked for their noise, in order."""
        return ("conditional",) if self.unconditional is None else ("unconditional", "conditional")


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
        finite: looks for NaN and infinity in what the UNet returns.
        features: what the UNet keeps from step to step; None where every step is computed in whole.
    """

    backbone: Backbone
    state: AttentionState
    chunks: tuple[Chunk, ...]
    positions: tuple[Tensor | None, ...]
    key_frames_min_width: int
    prompt_contexts: int
    finite: FiniteCheck
    features: DeepFeatures | None = None
    _projections: dict[tuple[TextConditioning, ...], PromptProjections] = field(default_factory=dict)
    _told: dict[tuple[object, ...], dict[str, Any]] = field(default_factory=dict)

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
        *,
        reuse: bool = False,
    ) -> Output:
        """The UNet's output for a whole clip.

        Args:
            branches: what the UNet is asked about.
            timestep: the timestep that the UNet is told.
            recorders: watch the conditional branch; each is a sequence with one recorder per chunk.
            fusion: what is done to the conditional branch's attention, for a chunk and its index; None does nothing.
            reuse: compute the outermost level alone, from the features of the last whole prediction, which had these
                branches too.

        Raises:
            UserError: if the UNet has returned NaN or infinity, in this call or, on a GPU, the one before.
        """
        batch = branches.batch
        texts = tuple(branch.text for branch in batch)
        outputs = [torch.empty_like(branch.latents) for branch in batch]
        for index, chunk in enumerate(self.chunks):
            frames = list(chunk.frames)
            fused = fusion(index, chunk) if fusion else None
            leaves = where_source_leaves(self.backbone.sites, fused) if fused and branches.source else None
            self.state.call = Call(
                branches=len(batch),
                frames=len(frames),
                latent_size=_size(batch[0].latents),
                key_positions=self.positions[index],
                key_frames_min_width=self.key_frames_min_width,
                recorders=[r[index] for r in recorders],
                fusion=fused,
                prompts=self._projections.setdefault(texts, PromptProjections()),
                twins=branches.twins,
                source_leaves=leaves,
            )
            if self.features is not None:
                self.features.begin(index, branches.denoised, len(frames), reuse=reuse)
            latents = torch.cat([branch.latents[frames] for branch in batch])
            told = self._conditioning(batch, len(frames), _size(latents))
            predicted = self.backbone.predict_told(latents, timestep, told, len(frames))
            own = list(chunk.own)
            for output, part in zip(reversed(outputs), reversed(predicted.split(len(frames))), strict=False):
                output[[frames[i] for i in own]] = part[own]
        if branches.source is not None:
            outputs.pop(0)  # it is run for its attention, and may have left on the way
        self.finite.add(outputs, timestep)
        return Output(outputs[-1], outputs[0] if branches.unconditional is not None else None)

    def _conditioning(self, batch: Sequence[Branch], frames: int, latent_size: tuple[int, int]) -> dict[str, Any]:
        """What the UNet is told of the batch's prompts, made once: it is the same in every step."""
        guidance = tuple(branch.guidance for branch in batch)
        key = (*(branch.text for branch in batch), guidance, frames, latent_size)
        if key not in self._told:
            texts = [branch.text for branch in batch]
            self._told[key] = self.backbone.conditioning(texts, frames, latent_size, guidance)
        return self._told[key]


class FiniteCheck:
    """Looks for NaN and infinity in a UNet's outputs.

    On a GPU the answer is fetched while the next step is at work, so that no step waits for it.
    """

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        """Take the checkpoint's name and the UNet's dtype, for the sentence."""
        self._about = name, dtype
        self._last: tuple[Tensor, int, torch.cuda.Event | None] | None = None

    def add(self, outputs: Sequence[Tensor], timestep: int) -> None:
        """Look at a step's outputs.

        Raises:
            UserError: as `settle`.
        """
        before, finite = self._last, torch.stack([output.isfinite().all() for output in outputs]).all()
        event = None
        if finite.is_cuda:
            finite = finite.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._last = finite, timestep, event
        self._check(self._last if event is None else before)

    def settle(self) -> None:
        """Wait for the last answer.

        Raises:
            UserError: if the UNet has returned NaN or infinity.
        """
        self._check(self._last)

    def _check(self, step: tuple[Tensor, int, torch.cuda.Event | None] | None) -> None:
        if step is None:
            return
        finite, timestep, event = step
        if event is not None:
            event.synchronize()
        if not bool(finite):
            name, dtype = self._about
            raise UserError(
                f"The UNet of {name} returned NaN or infinity at timestep {timestep} in {dtype}: use dtype float32, or "
                "check the checkpoint."
            )


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
    positions = [key_positions(method.key_frames, chunk, clip_length, middle) for chunk in chunks]
    finite = FiniteCheck(backbone.name, backbone.dtype)
    with video_attention(backbone.unet, backbone.sites, method.norm_scope) as state, ExitStack() as stack:
        stack.enter_context(attention_kernel(backbone.attention_kernel))
        yield Denoiser(
            backbone=backbone,
            state=state,
            chunks=chunks,
            positions=tuple(None if one is None else one.to(backbone.device) for one in positions),
            key_frames_min_width=method.key_frames_min_width,
            prompt_contexts=method.prompt_contexts,
            finite=finite,
            features=stack.enter_context(deep_features(backbone.unet)) if method.feature_reuse > 1 else None,
        )
        finite.settle()


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
