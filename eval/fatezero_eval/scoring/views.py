"""What metrics see of a whole clip, collected window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from fatezero_eval.metrics.means import stacked
from fatezero_eval.metrics.motion_smoothness import smoothness_of_triple
from fatezero_eval.networks.array_cache import ArrayCache, digest
from fatezero_eval.networks.clip import ImageTextEncoder
from fatezero_eval.networks.dino import Dino
from fatezero_eval.networks.flow import FlowEstimator
from fatezero_eval.networks.loading import Networks
from fatezero_eval.networks.point_tracks import LucasKanade, TrackedClip
from fatezero_eval.networks.video_folders import evenly_spaced
from fatezero_eval.networks.video_text import VideoText
from fatezero_eval.scoring.judged_pictures import whole_frames
from fatezero_eval.scoring.metric import Embeddings, Metric, Shown, Tracks
from fatezero_eval.scoring.windows import ClipVersions, Window, frames_at

ViewKey = tuple[str, Shown]  # the network that is looked through, and what it is shown


class View(Protocol):
    """One look at a clip, which metrics share."""

    def add(self, window: Window) -> None:
        """Look at the next window."""
        ...

    def whole(self) -> Any:
        """What `Metric.of_clip` is given."""
        ...


@dataclass
class _Encoded:
    """A clip as a CLIP sees it."""

    encoder: ImageTextEncoder
    shown: Shown
    clip: ClipVersions
    cache: ArrayCache
    _parts: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, window: Window) -> None:
        edited = window.embeddings(self.encoder, "edited", self.shown(window, "edited"))
        self._keep("edited", edited["projected"])
        self._keep("pooled", edited.get("pooled"))
        if self.shown is whole_frames and "source" in window.footage:
            self._keep("source", window.embeddings(self.encoder, "source", self.shown(window, "source"))["projected"])

    def _keep(self, name: str, part: Tensor | None) -> None:
        if part is not None:
            self._parts.setdefault(name, []).append(part)

    def whole(self) -> Embeddings:
        def prompt(words: str) -> Tensor:
            key = digest("text", self.encoder.id, words)
            return torch.from_numpy(self.cache.get(key, lambda: {"text": self.encoder.texts([words])})["text"])[0]

        parts = {name: torch.cat(tensors) for name, tensors in self._parts.items()}
        return Embeddings(
            edited=parts["edited"],
            pooled=parts.get("pooled"),
            source=parts.get("source"),
            logit_scale=torch.tensor(self.encoder.logit_scale),
            prompt=prompt,
            clip=self.clip,
        )


@dataclass
class _Subjects:
    """The edited frames' subjects as DINO sees them, F,D."""

    dino: Dino
    _parts: list[Tensor] = field(default_factory=list)

    def add(self, window: Window) -> None:
        self._parts.append(window.subjects(self.dino))

    def whole(self) -> Tensor:
        return torch.cat(self._parts)


class _Tracked:
    """Points of the edited clip and of its source."""

    def __init__(self, tracker: LucasKanade) -> None:
        self._clips = {version: TrackedClip(tracker) for version in ("edited", "source")}

    def add(self, window: Window) -> None:
        for version, clip in self._clips.items():
            clip.add(window.frames(version))

    def whole(self) -> Tracks:
        return Tracks(**{version: torch.from_numpy(tracked.tracks) for version, tracked in self._clips.items()})


@dataclass
class _WholeVideo:
    """Evenly spaced edited frames beside the target prompt, as a video-text model sees them."""

    network: VideoText
    clip: ClipVersions
    cache: ArrayCache
    _frames: int = 0

    def add(self, window: Window) -> None:
        self._frames += len(window.fresh_frames("edited"))

    def whole(self) -> Callable[[], tuple[Tensor, Tensor]]:
        """Embeddings of the video and of the prompt, unit D; a UserError for a prompt that is too long."""
        return self._look

    def _look(self) -> tuple[Tensor, Tensor]:
        network, prompt = self.network, self.clip.target_prompt
        frames = frames_at(self.clip.edited, evenly_spaced(self._frames, network.shown))
        key = digest("video text", network.id, prompt, frames)
        found = self.cache.get(key, lambda: network.embeddings(frames, prompt))
        return torch.from_numpy(found["video"]), torch.from_numpy(found["text"])


@dataclass
class _Smoothness:
    """`smoothness_of_triple` of every second edited frame, Q."""

    flow: FlowEstimator
    _last: list[Tensor] = field(default_factory=list)  # frames since the last even one before, H,W,3
    _values: list[Tensor] = field(default_factory=list)

    def add(self, window: Window) -> None:
        for frame in torch.from_numpy(whole_frames(window, "edited")):
            self._last.append(frame)
            if len(self._last) == 3:
                self._values.append(self._of_triple(window))
                self._last = [frame]

    def _of_triple(self, window: Window) -> Tensor:
        triple = torch.stack(self._last)
        ends = triple[::2].numpy()
        forward, backward = (window.flows(self.flow, pair)[0] for pair in (ends, ends[::-1]))
        return smoothness_of_triple(triple.permute(0, 3, 1, 2).double() / 255, forward, backward)

    def whole(self) -> Tensor:
        return stacked(self._values)


def views_of(metrics: Iterable[Metric], clip: ClipVersions, networks: Networks) -> Mapping[ViewKey, View]:
    """The views of a clip that metrics ask for, none of which has seen anything yet."""
    views: dict[ViewKey, View] = {}
    for metric in metrics:
        if metric.of_clip is not None and view_key(metric) not in views:
            views[view_key(metric)] = _view(metric, clip, networks)
    return views


def view_key(metric: Metric) -> ViewKey:
    """Names the view of a metric."""
    return str(metric.network), metric.shown


def _view(metric: Metric, clip: ClipVersions, networks: Networks) -> View:
    encoded = partial(_Encoded, shown=metric.shown, clip=clip, cache=networks.cache)
    makers: dict[str, Callable[[Any], View]] = {
        "clip": encoded,
        "pick": encoded,
        "dino": _Subjects,
        "tracker": _Tracked,
        "flow": _Smoothness,
        "video_text": partial(_WholeVideo, clip=clip, cache=networks.cache),
    }
    network = str(metric.network)
    return makers[network](getattr(networks, network))
