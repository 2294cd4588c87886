"""One clip in all its versions, streamed window by window in constant memory.

Shapes: F frames of a window, P = F − 1 pairs, H rows, W columns. A window after the first begins with the last
frame of the one before it, so that no pair of neighbours is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fatezero.errors import UserError, attempt
from fatezero.types import Frames
from fatezero_eval.metrics.warp_error import valid_pixels
from fatezero_eval.networks.array_cache import Arrays, digest
from fatezero_eval.networks.batching import BATCH
from fatezero_eval.networks.clip import ImageTextEncoder
from fatezero_eval.networks.dino import Dino
from fatezero_eval.networks.flow import FlowEstimator
from fatezero_eval.networks.given_flow import GivenFlow
from fatezero_eval.networks.loading import Networks
from fatezero_eval.vlm.questions import StatedQuestions

NO_SOURCE = "no source clip is stated for this edit"
Video = Callable[[int], Iterator[Frames]]  # given a size, yields that many frames at a time; fewer at the end

WINDOW = 2 * BATCH  # a multiple of BATCH, so that a frame's place in its batch follows from its index alone


def in_memory(frames: Frames) -> Video:
    """Frames that are already decoded, as a video."""
    return lambda size: (frames[start : start + size] for start in range(0, len(frames), size))


def frames_at(video: Video, indices: Sequence[int]) -> Frames:
    """Some frames of a video, uint8 N,H,W,3.

    Args:
        video: is read from its beginning to the last of them.
        indices: at least one, ascending; one frame may be taken several times.
    """
    found: list[Frames] = []
    start = 0
    for part in video(WINDOW):
        found += [part[index - start] for index in indices if start <= index < start + len(part)]
        start += len(part)
        if start > indices[-1]:
            break
    return np.stack(found)


@dataclass(frozen=True, kw_only=True)
class ClipVersions:
    """What is needed to judge one edit.

    Attributes:
        edited: the edited frames.
        source: the frames they were made from, same size and number; None where there are none.
        source_prompt: describes the source.
        target_prompt: describes what the edit should show.
        edited_words: words of the source prompt that the edit changes.
        target_words: words of the target prompt that stand for them.
        questions: the benchmark's own questions about the edit.
        mask: where the edit belongs; white inside.
        target_mask: where it belongs in the edited frames, if elsewhere; white inside.
        own_mask: where the method itself changed something; white inside.
        true_edit: the right result.
        true_flow: the known motion of the source; None estimates it.
        problems: by attribute name, why what is stated cannot be used; it costs the metrics that need it.
    """

    edited: Video
    source: Video | None
    source_prompt: str
    target_prompt: str
    edited_words: tuple[str, ...] = ()
    target_words: tuple[str, ...] = ()
    questions: StatedQuestions | None = None
    mask: Video | None = None
    target_mask: Video | None = None
    own_mask: Video | None = None
    true_edit: Video | None = None
    true_flow: GivenFlow | None = None
    problems: Mapping[str, str] = field(default_factory=dict)

    def stated(self) -> set[str]:
        """Names of the attributes that say something."""
        prompts = {name for name in ("source_prompt", "target_prompt") if getattr(self, name).strip()}
        return {*self.videos(), *prompts}

    def videos(self) -> dict[str, Video]:
        """The videos that are there, by attribute name."""
        names = ("edited", "source", "mask", "target_mask", "own_mask", "true_edit")
        named = {name: getattr(self, name) for name in names}
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
        problems: by version, why its frames are not there.
    """

    frames: Mapping[str, Frames]
    start: int
    overlap: int
    networks: Networks
    true_flow: GivenFlow | None
    problems: Mapping[str, str]
    _tensors: dict[str, Tensor] = field(default_factory=dict)
    _embeddings: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def every(self, version: str) -> Tensor:
        """All frames of the window, float64 F,3,H,W in [0, 1]. Raises UserError where they cannot be read."""
        if version not in self._tensors:
            frames = torch.from_numpy(self._read(version))
            self._tensors[version] = frames.permute(0, 3, 1, 2).double() / 255
        return self._tensors[version]

    def fresh(self, version: str) -> Tensor:
        """The frames that no window before had, float64 f,3,H,W in [0, 1]."""
        return self.every(version)[self.overlap :]

    def fresh_frames(self, version: str) -> Frames:
        """The frames that no window before had, uint8 f,H,W,3. Raises UserError where they cannot be read."""
        return self._read(version)[self.overlap :]

    @property
    def edited_mask(self) -> str:
        """The version that masks the edited frames: the target's mask, or the source's where none is stated."""
        stated = {*self.frames, *self.problems}
        return "target_mask" if "target_mask" in stated else "mask"

    def mask(self, version: str) -> Tensor:
        """A mask of the fresh frames, bool f,H,W: True where the picture is brighter than half."""
        return torch.from_numpy(self.fresh_frames(version)[..., 0] > 127)

    def _read(self, version: str) -> Frames:
        if version in self.problems:
            raise UserError(self.problems[version])
        return self.frames[version]

    @cached_property
    def motion(self) -> tuple[Tensor, Tensor]:
        """Forward and backward flow of the source, P,2,H,W each: the known ones, or estimates."""
        if self.true_flow is None:
            backward = self.flows(self.networks.flow, self.frames["source"][::-1]).flip(0)
            return self.forward("source"), backward
        known, count = self.true_flow, len(self.frames["source"])
        known.check(self.start + count, self.frames["source"].shape[1:3])
        pairs = slice(self.start, self.start + count - 1)
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
            self._tensors[key] = self.flows(self.networks.flow, self.frames[version])
        return self._tensors[key]

    def flows(self, estimate: FlowEstimator, frames: Frames) -> Tensor:
        """Flow from each of any frames F,H,W,3 to the next, P,2,H,W."""
        flows = []
        for before, after in pairwise(frames):
            key = digest("flow", estimate.id, before, after)
            flows.append(self.networks.cache.get(key, partial(_named_flow, estimate, before, after))["flow"])
        if not flows:
            return torch.empty(0, 2, *frames.shape[1:3])
        return torch.from_numpy(np.stack(flows))

    def embeddings(self, encoder: ImageTextEncoder, frames: Frames) -> Mapping[str, Tensor]:
        """A CLIP's embeddings of fresh frames, or of what is shown of them, f,D each (see `ImageTextEncoder`)."""
        return self._looked(digest("images", encoder.id, frames), lambda: encoder.images(frames))

    def subjects(self, dino: Dino, frames: Frames) -> Tensor:
        """DINO's class tokens of fresh frames, f,D (see `Dino.subjects`)."""
        key = digest("subjects", dino.id, frames)
        return self._looked(key, lambda: {"subjects": dino.subjects(frames).numpy()})["subjects"]

    def _looked(self, key: str, look: Callable[[], Arrays]) -> Mapping[str, Tensor]:
        if key not in self._embeddings:
            arrays = self.networks.cache.get(key, look)
            self._embeddings[key] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return self._embeddings[key]


def _named_flow(estimate: FlowEstimator, before: Frames, after: Frames) -> Arrays:
    return {"flow": estimate(before, after)}


def windows_of(clip: ClipVersions, networks: Networks) -> Iterator[Window]:
    """Walk through all versions of a clip side by side; one that cannot be read to its end is a window's problem.

    Raises:
        UserError: the source or the edited frames cannot be read, or differ in size or number.
    """
    streams = {name: video(WINDOW) for name, video in clip.videos().items()}
    problems = dict(clip.problems)
    last: dict[str, Frames] = {}
    start = 0
    while True:
        parts = _next(streams, start, problems)
        if not parts:
            break
        overlap = len(last) and 1
        frames = {name: np.concatenate([last[name], new]) if last else new for name, new in parts.items()}
        yield Window(frames, start - overlap, overlap, networks, clip.true_flow, dict(problems))
        last = {name: np.array(new[-1:]) for name, new in parts.items()}
        start += len(parts["edited"])
    if not start:
        raise UserError("the clip has no frames.")


def _next(streams: dict[str, Iterator[Frames]], start: int, problems: dict[str, str]) -> dict[str, Frames]:
    """The next frames of each version; one that fails, or is unlike the edited frames, is noted and read no further.

    Raises:
        UserError: that is the edited frames, or the source.
    """
    names = [name for name in ("edited", "source") if name in streams]
    leading: dict[str, Frames | None] = {name: next(streams[name], None) for name in names}
    _check_alike(leading, start)
    parts = {name: found for name, found in leading.items() if found is not None}
    for name in [name for name in streams if name not in leading]:
        found = attempt(partial(_like_the_others, name, streams[name], leading, start))
        if isinstance(found, UserError):
            problems[name] = str(found)
            del streams[name]
        elif found is not None:
            parts[name] = found
    return parts


def _like_the_others(
    name: str, stream: Iterator[Frames], leading: Mapping[str, Frames | None], start: int
) -> Frames | None:
    found = next(stream, None)
    other = "source" if "source" in leading else "edited"
    _check_alike({name: found, other: leading[other]}, start)
    return found


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
