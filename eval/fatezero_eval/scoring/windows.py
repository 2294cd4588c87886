"""Edits of one clip in all their versions, streamed side by side, window by window, in constant memory.

Shapes: F frames of a window, P = F − 1 pairs, H rows, W columns. A window after the first begins with the last
frame of the one before it, so that no pair of neighbours is missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fatezero.errors import UserError, attempt
from fatezero.types import Frames
from fatezero_eval.metrics.warp_error import followed_of_pairs, valid_pixels
from fatezero_eval.networks.array_cache import Arrays, digest
from fatezero_eval.networks.clip import ImageTextEncoder
from fatezero_eval.networks.dino import Dino
from fatezero_eval.networks.flow import FlowEstimator
from fatezero_eval.networks.given_flow import GivenFlow
from fatezero_eval.networks.loading import Networks
from fatezero_eval.scoring.footage import WINDOW, Footage, Reel, Video, reels_of
from fatezero_eval.scoring.versions import check_alike, like_the_others
from fatezero_eval.vlm.questions import StatedQuestions

NO_SOURCE = "no source clip is stated for this edit"


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
        footage: the frames by version.
        networks: what computes flows and embeddings.
        true_flow: the known motion of the whole clip.
        problems: by version, why its frames are not there.
    """

    footage: Mapping[str, Footage]
    networks: Networks
    true_flow: GivenFlow | None
    problems: Mapping[str, str]

    @property
    def overlap(self) -> int:
        """0 for the first window, 1 after."""
        return self.footage["edited"].overlap

    def every(self, version: str) -> Tensor:
        """All frames of the window, float64 F,3,H,W in [0, 1]. Raises UserError where they cannot be read."""
        return self._read(version).tensor

    def fresh(self, version: str) -> Tensor:
        """The frames that no window before had, float64 f,3,H,W in [0, 1]."""
        return self.every(version)[self.overlap :]

    def frames(self, version: str) -> Frames:
        """All frames of the window, uint8 F,H,W,3. Raises UserError where they cannot be read."""
        return self._read(version).frames

    def fresh_frames(self, version: str) -> Frames:
        """The frames that no window before had, uint8 f,H,W,3. Raises UserError where they cannot be read."""
        return self._read(version).fresh

    @property
    def edited_mask(self) -> str:
        """The version that masks the edited frames: the target's mask, or the source's where none is stated."""
        stated = {*self.footage, *self.problems}
        return "target_mask" if "target_mask" in stated else "mask"

    def mask(self, version: str) -> Tensor:
        """A mask of the fresh frames, bool f,H,W: True where the picture is brighter than half."""
        return torch.from_numpy(self.fresh_frames(version)[..., 0] > 127)

    def _read(self, version: str) -> Footage:
        if version in self.problems:
            raise UserError(self.problems[version])
        return self.footage[version]

    @property
    def motion(self) -> tuple[Tensor, Tensor]:
        """Forward and backward flow of the source, P,2,H,W each: the known ones, or estimates."""
        known, source = self.true_flow, self.footage["source"]
        if known is None:
            return self.forward("source"), source.once("backward", self._backward)
        end = source.start + len(source.frames)
        known.check(end, source.frames.shape[1:3])
        pairs = slice(source.start, end - 1)
        return torch.from_numpy(known.forward[pairs]), torch.from_numpy(known.backward[pairs])

    def _backward(self) -> Tensor:
        return self.flows(self.networks.flow, self.frames("source")[::-1]).flip(0)

    @property
    def valid(self) -> Tensor:
        """Pixels of the source whose motion can be followed, P,H,W bool.

        See `warp_error.valid_pixels`; where it is known what is hidden, that is left out as well.
        """
        return self.footage["source"].once(("valid", id(self.true_flow)), self._valid)

    def _valid(self) -> Tensor:
        valid, start = valid_pixels(*self.motion), self.footage["source"].start
        if self.true_flow is None or self.true_flow.visible is None:
            return valid
        return valid & torch.from_numpy(self.true_flow.visible[start : start + len(valid)])

    @property
    def followed(self) -> Tensor:
        """Each next edited frame seen through the source's motion, P,3,H,W float64 (see `followed_of_pairs`)."""
        key = ("followed", self.footage["source"].number, id(self.true_flow))
        return self.footage["edited"].once(key, lambda: followed_of_pairs(self.every("edited"), self.motion[0]))

    def forward(self, version: str) -> Tensor:
        """Estimated flow from each frame to the next, P,2,H,W."""
        return self.flow(version, self.networks.flow)

    def flow(self, version: str, estimate: FlowEstimator) -> Tensor:
        """Flow from each frame of a version to the next, P,2,H,W."""
        footage = self.footage[version]
        return footage.once(("flow", estimate.id), lambda: self.flows(estimate, footage.frames))

    def flows(self, estimate: FlowEstimator, frames: Frames) -> Tensor:
        """Flow from each of any frames F,H,W,3 to the next, P,2,H,W."""
        if len(frames) < 2:
            return torch.empty(0, 2, *frames.shape[1:3])
        key = digest("flows", estimate.id, frames)
        return torch.from_numpy(self.networks.cache.get(key, partial(_named_flows, estimate, frames))["flows"])

    def embeddings(self, encoder: ImageTextEncoder, version: str, shown: Frames) -> Mapping[str, Tensor]:
        """A CLIP's embeddings of what is shown of a version's fresh frames, f,D each (see `ImageTextEncoder`)."""
        key = digest("images", encoder.id, shown)
        found = self.footage[version].once(key, lambda: self.networks.cache.get(key, lambda: encoder.images(shown)))
        return {name: torch.from_numpy(array) for name, array in found.items()}

    def subjects(self, dino: Dino) -> Tensor:
        """DINO's class tokens of the fresh edited frames, f,D (see `Dino.subjects`)."""
        frames = self.fresh_frames("edited")
        key = digest("subjects", dino.id, frames)

        def look() -> Arrays:
            return self.networks.cache.get(key, lambda: {"subjects": dino.subjects(frames).numpy()})

        return torch.from_numpy(self.footage["edited"].once(key, look)["subjects"])


def _named_flows(estimate: FlowEstimator, frames: Frames) -> Arrays:
    return {"flows": np.stack([estimate(before, after) for before, after in pairwise(frames)])}


class ClipWalk(Iterator[Window]):
    """Goes through all versions of a clip side by side; one that cannot be read to its end is a window's problem.

    It holds no window: whoever is done with one, frees it.
    """

    def __init__(self, clip: ClipVersions, networks: Networks, reels: Mapping[Video, Reel] | None = None) -> None:
        """Begin.

        Args:
            clip: the versions.
            networks: what looks at them.
            reels: of its videos, where other walks share them; by default its own.
        """
        videos = clip.videos()
        shared = reels_of(videos.values()) if reels is None else reels
        self._streams = {name: shared[video] for name, video in videos.items()}
        self._clip, self._networks = clip, networks
        self._problems = dict(clip.problems)
        self._number = self._start = 0

    def __next__(self) -> Window:
        """The next window.

        Raises:
            UserError: the source or the edited frames cannot be read, or differ in size or number.
        """
        footage = _next(self._streams, self._number, self._start, self._problems)
        if not footage and not self._number:
            raise UserError("the clip has no frames.")
        if not footage:
            raise StopIteration
        self._number += 1
        self._start += len(footage["edited"].fresh)
        return Window(footage, self._networks, self._clip.true_flow, dict(self._problems))


def windows_side_by_side(clips: Sequence[ClipVersions], networks: Networks) -> Iterator[tuple[int, Window | UserError]]:
    """Walk through several edits: the first window of each, then the second of each, to their ends.

    A video that several of them have is read once, and held for one window.

    Yields:
        The place of an edit among `clips`, and its next window, or why it has none (see `ClipWalk`).
    """
    reels = reels_of(video for clip in clips for video in clip.videos().values())
    walks = {place: ClipWalk(clip, networks, reels) for place, clip in enumerate(clips)}
    while walks:
        for place, walk in list(walks.items()):
            window = attempt(partial(next, walk, None))
            if not isinstance(window, Window):
                del walks[place]
            if window is not None:
                yield place, window


def _next(streams: dict[str, Reel], number: int, start: int, problems: dict[str, str]) -> dict[str, Footage]:
    """The next frames of each version; one that fails, or is unlike the edited frames, is noted and read no further.

    Raises:
        UserError: that is the edited frames, or the source.
    """
    names = [name for name in ("edited", "source") if name in streams]
    leading: dict[str, Footage | None] = {name: streams[name].at(number) for name in names}
    check_alike(leading, start)
    parts = {name: found for name, found in leading.items() if found is not None}
    for name in [name for name in streams if name not in leading]:
        found = attempt(partial(like_the_others, name, streams[name], number, leading, start))
        if isinstance(found, UserError):
            problems[name] = str(found)
            del streams[name]
        elif found is not None:
            parts[name] = found
    return parts
