"""One clip in all its versions, streamed chunk by chunk in constant memory.

Shapes: F frames of a chunk, P = F − 1 pairs, H rows, W columns. A chunk after the first begins with the last
frame of the one before it, so that no pair of neighbours is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fatezero.errors import UserError
from fatezero.types import Frames
from fatezero_eval.cache import Arrays, Cache, digest
from fatezero_eval.encoders import BATCH, DinoKeys, ImageTextEncoder, Lpips
from fatezero_eval.flow import FlowEstimator, GivenFlow
from fatezero_eval.warp_error import valid_pixels

Video = Callable[[int], Iterator[Frames]]  # so many frames at a time, less at the end

CHUNK = 2 * BATCH  # a multiple of BATCH, so that a frame's place in its batch follows from its index alone


def in_memory(frames: Frames) -> Video:
    """Frames that are already decoded, as a video."""
    return lambda size: (frames[start : start + size] for start in range(0, len(frames), size))


@dataclass(frozen=True, kw_only=True)
class EditedClip:
    """What is needed to judge one edit.

    Attributes:
        edited: the edited frames.
        source: the frames they were made from, same size and number.
        source_prompt: describes the source.
        target_prompt: describes what the edit should show.
        mask: where the edit belongs; white inside.
        own_mask: where the method itself changed something; white inside.
        true_edit: the right result.
        true_flow: the known motion of the source; None estimates it.
    """

    edited: Video
    source: Video
    source_prompt: str
    target_prompt: str
    mask: Video | None = None
    own_mask: Video | None = None
    true_edit: Video | None = None
    true_flow: GivenFlow | None = None

    def versions(self) -> dict[str, Video]:
        """The videos that are there, by attribute name."""
        named = {name: getattr(self, name) for name in ("edited", "source", "mask", "own_mask", "true_edit")}
        return {name: video for name, video in named.items() if video is not None}


@dataclass(frozen=True, kw_only=True)
class Models:
    """The networks and estimators that metrics share; None where no chosen metric needs one.

    Attributes:
        flow: estimates motion.
        clip: judges frames and prompts.
        pick: PickScore.
        dino: keys for the structure distance.
        lpips: perceptual distance with AlexNet.
        lpips_squeeze: with SqueezeNet, as PnPInversion has it.
        cache: keeps embeddings and flows.
    """

    flow: FlowEstimator
    clip: ImageTextEncoder | None = None
    pick: ImageTextEncoder | None = None
    dino: DinoKeys | None = None
    lpips: Lpips | None = None
    lpips_squeeze: Lpips | None = None
    cache: Cache = field(default_factory=Cache)


@dataclass(frozen=True)
class Chunk:
    """Some frames of a clip in all its versions, with what metrics share about them, computed once.

    Attributes:
        frames: uint8 F,H,W,3 by version, the overlapping frame included.
        start: index in the clip of the first frame.
        overlap: 0 for the first chunk, 1 after.
        models: what computes flows and embeddings.
        true_flow: the known motion of the whole clip.
    """

    frames: Mapping[str, Frames]
    start: int
    overlap: int
    models: Models
    true_flow: GivenFlow | None
    _tensors: dict[str, Tensor] = field(default_factory=dict)
    _embeddings: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def every(self, version: str) -> Tensor:
        """All frames of the chunk, float64 F,3,H,W in [0, 1]."""
        if version not in self._tensors:
            frames = torch.from_numpy(self.frames[version])
            self._tensors[version] = frames.permute(0, 3, 1, 2).double() / 255
        return self._tensors[version]

    def fresh(self, version: str) -> Tensor:
        """The frames that no chunk before had, float64 f,3,H,W in [0, 1]."""
        return self.every(version)[self.overlap :]

    def mask(self, version: str) -> Tensor:
        """A mask of the fresh frames, bool f,H,W: True where the picture is brighter than half."""
        return torch.from_numpy(self.frames[version][self.overlap :, ..., 0] > 127)

    @cached_property
    def motion(self) -> tuple[Tensor, Tensor]:
        """Forward and backward flow of the source, P,2,H,W each: the known ones, or estimates."""
        if self.true_flow is None:
            return self.forward("source"), self._flows(self.frames["source"][::-1]).flip(0)
        known, pairs = self.true_flow, slice(self.start, self.start + len(self.frames["source"]) - 1)
        return torch.from_numpy(known.forward[pairs]), torch.from_numpy(known.backward[pairs])

    @cached_property
    def valid(self) -> Tensor:
        """Pixels of the source whose motion can be followed, P,H,W bool.

        See `warp_error.valid_pixels`; where it is known what is hidden, that is left out as well.
        """
        valid = valid_pixels(*self.motion)
        if self.true_flow is None or self.true_flow.visible is None:
            return valid
        return valid & torch.from_numpy(self.true_flow.visible[self.start : self.start + len(valid)])

    def forward(self, version: str) -> Tensor:
        """Estimated flow from each frame to the next, P,2,H,W."""
        key = f"{version} flow"
        if key not in self._tensors:
            self._tensors[key] = self._flows(self.frames[version])
        return self._tensors[key]

    def _flows(self, frames: Frames) -> Tensor:
        estimate = self.models.flow
        flows = []
        for before, after in pairwise(frames):
            key = digest("flow", estimate.id, before, after)
            flows.append(self.models.cache.get(key, partial(_named_flow, estimate, before, after))["flow"])
        if not flows:
            return torch.empty(0, 2, *frames.shape[1:3])
        return torch.from_numpy(np.stack(flows))

    def embeddings(
        self, encoder: ImageTextEncoder, version: str, *, bottom_square: bool = False
    ) -> Mapping[str, Tensor]:
        """Embeddings of the fresh frames, f,D each (see `ImageTextEncoder.images`).

        Args:
            encoder: a CLIP.
            version: whose frames.
            bottom_square: crop portrait frames to their bottom square first, as FateZero's script does.
        """
        frames = self.frames[version][self.overlap :]
        height, width = frames.shape[1:3]
        if bottom_square and height > width:
            frames = np.ascontiguousarray(frames[:, height - width :])
        key = digest("images", encoder.id, frames)
        if key not in self._embeddings:
            arrays = self.models.cache.get(key, lambda: encoder.images(frames))
            self._embeddings[key] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return self._embeddings[key]


def _named_flow(estimate: FlowEstimator, before: Frames, after: Frames) -> Arrays:
    return {"flow": estimate(before, after)}


def chunks(clip: EditedClip, models: Models) -> Iterator[Chunk]:
    """Walk through all versions of a clip side by side.

    Raises:
        UserError: they differ in size or number of frames, or one of them cannot be read.
    """
    videos = clip.versions()
    streams = {name: video(CHUNK) for name, video in videos.items()}
    last: dict[str, Frames] = {}
    start = 0
    while True:
        fresh = {name: next(stream, None) for name, stream in streams.items()}
        pieces = {name: frames for name, frames in fresh.items() if frames is not None}
        _check_alike(fresh, start)
        if not pieces:
            break
        overlap = len(last) and 1
        frames = {name: np.concatenate([last[name], new]) if last else new for name, new in pieces.items()}
        if clip.true_flow is not None:
            _check_flow(clip.true_flow, frames["source"], start - overlap)
        yield Chunk(frames, start - overlap, overlap, models, clip.true_flow)
        last = {name: np.array(new[-1:]) for name, new in pieces.items()}
        start += len(pieces["source"])
    if not start:
        raise UserError("the clip has no frames.")


def _check_alike(pieces: Mapping[str, Frames | None], start: int) -> None:
    shapes = {name: None if frames is None else frames.shape for name, frames in pieces.items()}
    if len(set(shapes.values())) == 1:
        return
    sizes = {name: shape and shape[1:3] for name, shape in shapes.items()}
    if None not in sizes.values() and len(set(sizes.values())) > 1:
        words = ", ".join(f"{name} {size[1]}x{size[0]}" for name, size in sizes.items() if size)
        raise UserError(f"the versions of the clip differ in size: {words}; scale them to one size first.")
    words = ", ".join(f"{name} {start + (shape[0] if shape else 0)}" for name, shape in shapes.items())
    raise UserError(f"the versions of the clip differ in length: {words} frames; give each the same frames.")


def _check_flow(flow: GivenFlow, frames: Frames, start: int) -> None:
    pairs, _, height, width = flow.forward.shape
    if (height, width) != frames.shape[1:3] or pairs < start + len(frames) - 1:
        raise UserError(
            f"the given flow has {pairs} pairs of {width}x{height}, but the clip has at least "
            f"{start + len(frames)} frames of {frames.shape[2]}x{frames.shape[1]}."
        )
