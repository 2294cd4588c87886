"""From one clip to its scores: one pass over the frames, everything shared computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from fatezero.errors import UserError, attempt
from fatezero.system.terminal import printable
from fatezero_eval.metrics.clip_mean import mean_defined
from fatezero_eval.networks.loading import Networks
from fatezero_eval.scoring.asking import ask
from fatezero_eval.scoring.metric import NEVER, Metric
from fatezero_eval.scoring.views import ViewKey, view_key, views_of
from fatezero_eval.scoring.windows import NO_SOURCE, ClipVersions, Window, windows_of
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
    values, frames = _values(clip, [metric for metric in metrics if metric.asks is None], networks)
    return [
        _score(metric, values[metric.id], frames, _model_id(metric, networks, clip))
        if metric.asks is None
        else _asked_score(metric, clip, frames, interviewer)
        for metric in metrics
    ]


def _asked_score(metric: Metric, clip: ClipVersions, frames: int, interviewer: Interviewer | None) -> ClipScore:
    lacking = _lacking(metric, clip)
    outcome = attempt(partial(ask, metric, clip, frames, interviewer)) if lacking is None else lacking
    values, answers = (outcome, ()) if isinstance(outcome, UserError) else outcome
    return replace(_score(metric, values, frames, interviewer.id if interviewer else ""), answers=answers)


def _values(
    clip: ClipVersions, metrics: Sequence[Metric], networks: Networks
) -> tuple[dict[str, Tensor | UserError], int]:
    """By metric id the values that a score averages, or why there are none; and the number of frames."""
    refused = {metric.id: why for metric in metrics if (why := _lacking(metric, clip)) is not None}
    views = views_of((metric for metric in metrics if metric.id not in refused), clip, networks)
    unseen: dict[ViewKey, UserError] = {}  # views whose network failed
    # plain numbers: thousands of small tensors would pin the memory freed around them
    numbers: dict[str, list[Any]] = {}
    frames, marked = 0, False
    for window in windows_of(clip, networks):
        frames += len(window.frames["edited"]) - window.overlap
        marked = marked or ("mask" in window.frames and bool(window.mask("mask").any()))
        for name, view in views.items():
            if name not in unseen:
                _keep(name, attempt(partial(view.add, window)), unseen)
        for metric in metrics:
            if metric.of_window is not None and metric.id not in refused:
                found = _keep(metric.id, attempt(partial(_numbers, metric.of_window, window)), refused)
                numbers.setdefault(metric.id, []).extend(found or [])
    wholes = {name: view.whole() for name, view in views.items() if name not in unseen}
    if not marked:
        refused |= {m.id: UserError(EMPTY_MASK) for m in metrics if "mask" in m.needs and m.id not in refused}
    return {m.id: refused.get(m.id) or _of_metric(m, numbers, wholes, unseen) for m in metrics}, frames


def _numbers(of_window: Callable[[Window], Tensor], window: Window) -> list[Any]:
    found: list[Any] = of_window(window).tolist()
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
