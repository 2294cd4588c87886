"""One clip in all its versions, streamed window by window in constant memory.

Shapes: F frames of a window, P = F − 1 pairs, H rows, W columns. A window after the first begins with the last
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
from fatezero_eval.metrics.warp_error import valid_pixels
from fatezero_eval.networks.array_cache import Arrays, digest
from fatezero_eval.networks.batching import BATCH
from fatezero_eval.networks.clip import ImageTextEncoder
from fatezero_eval.networks.flow import FlowEstimator, GivenFlow
from fatezero_eval.networks.loading import Networks

Video = Callable[[int], Iterator[Frames]]  # given a size, yields that many frames at a time; fewer at the end

WINDOW = 2 * BATCH  # a multiple of BATCH, so that a frame's place in its batch follows from its index alone


def in_memory(frames: Frames) -> Video:
    """Frames that are already decoded, as a video."""
    return lambda size: (frames[start : start + size] for start in range(0, len(frames), size))


@dataclass(frozen=True, kw_only=True)
class ClipVersions:
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

    def videos(self) -> dict[str, Video]:
        """The videos that are there, by attribute name."""
        named = {name: getattr(self, name) for name in ("edited", "source", "mask", "own_mask", "true_edit")}
        return {name: video for name, video in named.items() if video is not None}


@dataclass(frozen=True)
class Window:
    """Some frames of a clip in all its versions, with what metrics share about them, computed once.

    Attributes:
        frames: uint8 F,H,W,3 by version, the overlapping frame included.
        start: index in the clip of the first frame.
        overlap: 0 for the first window, 1 after.
        networks: what computes flows and embeddings.
        true_flow: the known motion of the whole clip.
    """

    frames: Mapping[str, Frames]
    start: int
    overlap: int
    networks: Networks
    true_flow: GivenFlow | None
    _tensors: dict[str, Tensor] = field(default_factory=dict)
    _embeddings: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def every(self, version: str) -> Tensor:
        """All frames of the window, float64 F,3,H,W in [0, 1]."""
        if version not in self._tensors:
            frames = torch.from_numpy(self.frames[version])
            self._tensors[version] = frames.permute(0, 3, 1, 2).double() / 255
        return self._tensors[version]

    def fresh(self, version: str) -> Tensor:
        """The frames that no window before had, float64 f,3,H,W in [0, 1]."""
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
        estimate = self.networks.flow
        flows = []
        for before, after in pairwise(frames):
            key = digest("flow", estimate.id, before, after)
            flows.append(self.networks.cache.get(key, partial(_named_flow, estimate, before, after))["flow"])
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
            arrays = self.networks.cache.get(key, lambda: encoder.images(frames))
            self._embeddings[key] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return self._embeddings[key]


def _named_flow(estimate: FlowEstimator, before: Frames, after: Frames) -> Arrays:
    return {"flow": estimate(before, after)}


def windows_of(clip: ClipVersions, networks: Networks) -> Iterator[Window]:
    """Walk through all versions of a clip side by side.

    Raises:
        UserError: they differ in size or number of frames, or one of them cannot be read.
    """
    videos = clip.videos()
    streams = {name: video(WINDOW) for name, video in videos.items()}
    last: dict[str, Frames] = {}
    start = 0
    while True:
        fresh = {name: next(stream, None) for name, stream in streams.items()}
        parts = {name: frames for name, frames in fresh.items() if frames is not None}
        _check_alike(fresh, start)
        if not parts:
            break
        overlap = len(last) and 1
        frames = {name: np.concatenate([last[name], new]) if last else new for name, new in parts.items()}
        if clip.true_flow is not None:
            _check_flow(clip.true_flow, frames["source"], start - overlap)
        yield Window(frames, start - overlap, overlap, networks, clip.true_flow)
        last = {name: np.array(new[-1:]) for name, new in parts.items()}
        start += len(parts["source"])
    if not start:
        raise UserError("the clip has no frames.")


def _check_alike(parts: Mapping[str, Frames | None], start: int) -> None:
    shapes = {name: None if frames is None else frames.shape for name, frames in parts.items()}
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
