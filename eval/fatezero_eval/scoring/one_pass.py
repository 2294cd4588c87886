"""From edits of one clip to their scores: one pass over the frames, everything shared computed once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from fatezero.errors import UserError, attempt, unwrap
from fatezero.system.terminal import printable
from fatezero_eval.metrics.means import mean_defined
from fatezero_eval.networks.loading import Networks
from fatezero_eval.scoring.asking import ask
from fatezero_eval.scoring.metric import NEVER, Metric
from fatezero_eval.scoring.views import ViewKey, view_key, views_of
from fatezero_eval.scoring.windows import NO_SOURCE, ClipVersions, Window, windows_side_by_side
from fatezero_eval.vlm.interview import Answer, Interviewer

T = TypeVar("T")
Name = TypeVar("Name", str, ViewKey)
MISSING = {
    "source": NO_SOURCE,
    "source_prompt": "no source prompt is stated for this clip",
    "target_prompt": "no target prompt is stated for this edit",
    "mask": "no edit mask is given for this clip",
    "own_mask": "the method wrote no mask",
    "true_edit": "the true edit of this clip is not known",
}
EMPTY_MASK = "the mask is empty in every frame"
NO_NUMBER = "it came out as NaN or infinite, which it never is by its nature: are the model's weights damaged?"


@dataclass(frozen=True)
class ClipScore:
    """What one metric says of one clip.

    Attributes:
        metric: id with version.
        value: None where undefined.
        defined: how many values (of frames, pairs, or one of the whole clip) the value averages.
        undefined: how many were left out.
        reason: why the value is None.
        model: id of the encoder, estimator or network.
        trace: of an error that nobody foresaw; empty where there was none.
        answers: what a model said, where it was asked.
    """

    metric: str
    value: float | None
    defined: int
    undefined: int
    reason: str
    model: str
    trace: str = ""
    answers: tuple[Answer, ...] = ()


def score(
    clip: ClipVersions, metrics: Sequence[Metric], networks: Networks, interviewer: Interviewer | None = None
) -> list[ClipScore]:
    """Score one clip with every metric, in the order given; what one of them cannot do costs its score alone.

    Args:
        clip: all its versions.
        metrics: what is scored.
        networks: what they look through.
        interviewer: puts the questions of metrics that ask.

    Raises:
        UserError: the source or the edited frames cannot be read, or they differ in size or length.
    """
    return unwrap(next(scores_of([clip], metrics, networks, interviewer)))


def scores_of(
    clips: Sequence[ClipVersions],
    metrics: Sequence[Metric],
    networks: Networks,
    interviewer: Interviewer | None = None,
) -> Iterator[list[ClipScore] | UserError]:
    """Score edits of one clip side by side: what they have in common is read, and computed, once.

    Args:
        clips: each edit with all its versions; a video that is the same object in several is shared.
        metrics: what is scored.
        networks: what they look through.
        interviewer: puts the questions of metrics that ask.

    Yields:
        What `score` returns for each edit by itself, to the bit, or why there is nothing; in the order given.
    """
    passes: dict[int, _Pass] = {}
    failures: dict[int, UserError] = {}
    for place, window in windows_side_by_side(clips, networks):
        if isinstance(window, UserError):
            failures[place] = window
            continue
        if place not in passes:  # what is not as stated shows when it is read
            passes[place] = _Pass(replace(clips[place], problems=window.problems), metrics, networks)
        passes[place].add(window)
    for place in range(len(clips)):
        yield failures[place] if place in failures else attempt(partial(passes[place].scores, interviewer))


class _Pass:
    """One edit's way through the metrics, window by window."""

    def __init__(self, clip: ClipVersions, metrics: Sequence[Metric], networks: Networks) -> None:
        self._clip, self._all, self._networks = clip, metrics, networks
        self._metrics = [metric for metric in metrics if metric.asks is None]
        self._refused = {metric.id: why for metric in self._metrics if (why := _lacking(metric, clip)) is not None}
        self._views = views_of((metric for metric in self._metrics if metric.id not in self._refused), clip, networks)
        self._unseen: dict[ViewKey, UserError] = {}  # views whose network failed
        # plain numbers: thousands of small tensors would pin the memory freed around them
        self._numbers: dict[str, list[Any]] = {}
        self._frames, self._marked = 0, False

    def add(self, window: Window) -> None:
        """Look at the next window."""
        self._frames += len(window.fresh_frames("edited"))
        self._marked = self._marked or ("mask" in window.footage and bool(window.mask("mask").any()))
        for name, view in self._views.items():
            if name not in self._unseen:
                _keep(name, attempt(partial(view.add, window)), self._unseen)
        for metric in self._metrics:
            if metric.of_window is not None and metric.id not in self._refused:
                found = _keep(metric.id, attempt(partial(_numbers, metric, window)), self._refused)
                self._numbers.setdefault(metric.id, []).extend(found or [])

    def scores(self, interviewer: Interviewer | None) -> list[ClipScore]:
        """Every metric's score of the clip, which was seen to its end."""
        values = self._values()
        return [
            _score(metric, values[metric.id], self._frames, _model_id(metric, self._networks, self._clip))
            if metric.asks is None
            else _asked_score(metric, self._clip, self._frames, interviewer)
            for metric in self._all
        ]

    def _values(self) -> dict[str, Tensor | UserError]:
        """By metric id the values that a score averages, or why there are none."""
        wholes = {name: view.whole() for name, view in self._views.items() if name not in self._unseen}
        refused = dict(self._refused)
        if not self._marked:
            empty = UserError(EMPTY_MASK)
            refused |= {m.id: empty for m in self._metrics if "mask" in m.needs and m.id not in refused}
        return {m.id: refused.get(m.id) or _of_metric(m, self._numbers, wholes, self._unseen) for m in self._metrics}


def _asked_score(metric: Metric, clip: ClipVersions, frames: int, interviewer: Interviewer | None) -> ClipScore:
    lacking = _lacking(metric, clip)
    outcome = attempt(partial(ask, metric, clip, frames, interviewer)) if lacking is None else lacking
    values, answers = (outcome, ()) if isinstance(outcome, UserError) else outcome
    return replace(_score(metric, values, frames, interviewer.id if interviewer else ""), answers=answers)


def _numbers(metric: Metric, window: Window) -> list[Any]:
    """A metric's values of a window; once for all edits that show it the same footage.

    An unedited clip is shown so: beside each of the clip's edits, under two pairs of prompts.
    """
    of_window = metric.of_window
    assert of_window is not None
    shown = tuple(footage.number for name, footage in window.footage.items() if name in metric.sees)
    key = (metric.id, shown, id(window.true_flow), *window.problems)
    found: list[Any] = window.footage["edited"].once(key, lambda: of_window(window).tolist())
    return found


def _keep(name: Name, outcome: T | UserError, failures: dict[Name, UserError]) -> T | None:
    """What came out; a failure is noted under a name."""
    if isinstance(outcome, UserError):
        failures[name] = outcome
        return None
    return outcome


def _of_metric(
    metric: Metric,
    numbers: Mapping[str, list[Any]],
    wholes: Mapping[ViewKey, Any],
    unseen: Mapping[ViewKey, UserError],
) -> Tensor | UserError:
    """The values of a metric that was not refused, once the whole clip was seen."""
    of_clip, settled, view = metric.of_clip, metric.settled, view_key(metric)
    if of_clip is None:
        found = torch.tensor(numbers.get(metric.id, []), dtype=torch.float64)
        return found if settled is None else attempt(lambda: settled(found).reshape(-1))
    if view in unseen:
        return unseen[view]
    return attempt(lambda: of_clip(wholes[view]).reshape(-1))


def _lacking(metric: Metric, clip: ClipVersions) -> UserError | None:
    """Why a metric cannot be computed of a clip: what it needs is not stated, or not usable."""
    stated = clip.stated()
    for need in (*metric.needs, *(("true_flow",) if metric.network == "motion" else ())):
        if need in clip.problems:
            return UserError(clip.problems[need])
        if need in MISSING and need not in stated:
            return UserError(MISSING[need])
    return None


def _score(metric: Metric, values: Tensor | UserError, frames: int, model: str) -> ClipScore:
    if isinstance(values, UserError):
        return ClipScore(metric.id, None, 0, frames, printable(str(values)), "", getattr(values, "trace", ""))
    value = mean_defined(values).item()
    undefined = int(values.isnan().sum())
    if math.isfinite(value):
        return ClipScore(metric.id, value, len(values) - undefined, undefined, "", model)
    reason = NO_NUMBER if metric.undefined == NEVER else metric.undefined
    return ClipScore(metric.id, None, len(values) - undefined, undefined, reason, model)


def _model_id(metric: Metric, networks: Networks, clip: ClipVersions) -> str:
    if metric.network is None:
        return ""
    if metric.network == "motion":
        return "given flow" if clip.true_flow is not None else networks.flow.id
    return str(getattr(networks, metric.network).id)
