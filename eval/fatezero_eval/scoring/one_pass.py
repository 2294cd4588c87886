"""From one clip to its scores: one pass over the frames, everything shared computed once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fatezero_eval.metrics.clip_mean import mean_defined
from fatezero_eval.networks.array_cache import digest
from fatezero_eval.networks.clip import ImageTextEncoder
from fatezero_eval.networks.loading import Networks
from fatezero_eval.scoring.metric import Embeddings, Metric
from fatezero_eval.scoring.windows import ClipVersions, Window, windows_of

MISSING = {
    "mask": "no edit mask is given for this clip",
    "own_mask": "the method wrote no mask",
    "true_edit": "the true edit of this clip is not known",
}


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
    """

    metric: str
    value: float | None
    defined: int
    undefined: int
    reason: str
    model: str


class _Encoded:
    """Collects one encoder's view of the clip, window by window."""

    def __init__(self, encoder: ImageTextEncoder) -> None:
        self.encoder = encoder
        self._parts: dict[str, list[Tensor]] = {}

    def add(self, window: Window) -> None:
        edited = window.embeddings(self.encoder, "edited")
        square = window.embeddings(self.encoder, "edited", bottom_square=True)
        source = window.embeddings(self.encoder, "source")
        for name, part in (
            ("edited", edited["projected"]),
            ("bottom_square", square["projected"]),
            ("pooled", edited.get("pooled")),
            ("source", source["projected"]),
        ):
            if part is not None:
                self._parts.setdefault(name, []).append(part)

    def whole(self, clip: ClipVersions, networks: Networks) -> Embeddings:
        def prompt(words: str) -> Tensor:
            key = digest("text", self.encoder.id, words)
            return torch.from_numpy(networks.cache.get(key, lambda: {"text": self.encoder.texts([words])})["text"])[0]

        parts = {name: torch.cat(tensors) for name, tensors in self._parts.items()}
        return Embeddings(
            edited=parts["edited"],
            bottom_square=parts["bottom_square"],
            pooled=parts.get("pooled"),
            source=parts["source"],
            source_prompt=prompt(clip.source_prompt),
            target_prompt=prompt(clip.target_prompt),
            logit_scale=torch.tensor(self.encoder.logit_scale),
        )


def score(clip: ClipVersions, metrics: Sequence[Metric], networks: Networks) -> list[ClipScore]:
    """Score one clip with every metric, in the order given.

    Raises:
        UserError: a version of the clip cannot be read, or they differ in size or length.
    """
    values, frames = _values(clip, metrics, networks)
    present = clip.videos()
    scores = []
    for metric in metrics:
        if metric.id in values:
            scores.append(_averaged(metric, values[metric.id], _model_id(metric, networks, clip)))
        else:
            missing = next(need for need in metric.needs if need not in present)
            scores.append(ClipScore(metric.id, None, 0, frames, MISSING[missing], ""))
    return scores


def _values(clip: ClipVersions, metrics: Sequence[Metric], networks: Networks) -> tuple[dict[str, Tensor], int]:
    """By metric id the values that a score averages, for the metrics that have all they need; and the clip's frames."""
    views = {
        name: _Encoded(encoder)
        for name, encoder in (("clip", networks.clip), ("pick", networks.pick))
        if encoder is not None and any(metric.network == name for metric in metrics)
    }
    present = clip.videos()
    streamed = [m for m in metrics if m.of_window is not None and all(need in present for need in m.needs)]
    # plain numbers: thousands of small tensors would pin the memory freed around them
    numbers: dict[str, list[float]] = {metric.id: [] for metric in streamed}
    frames = 0
    for window in windows_of(clip, networks):
        frames += len(window.frames["edited"]) - window.overlap
        for view in views.values():
            view.add(window)
        for metric in streamed:
            assert metric.of_window is not None
            numbers[metric.id].extend(metric.of_window(window).tolist())
    values = {name: torch.tensor(found, dtype=torch.float64) for name, found in numbers.items()}
    wholes = {name: view.whole(clip, networks) for name, view in views.items()}
    for metric in metrics:
        if metric.of_clip is not None:
            values[metric.id] = metric.of_clip(wholes[str(metric.network)]).reshape(-1)
    return values, frames


def _averaged(metric: Metric, values: Tensor, model: str) -> ClipScore:
    value = mean_defined(values).item()
    undefined = int(values.isnan().sum())
    if math.isfinite(value):
        return ClipScore(metric.id, value, len(values) - undefined, undefined, "", model)
    return ClipScore(metric.id, None, len(values) - undefined, undefined, metric.undefined, model)


def _model_id(metric: Metric, networks: Networks, clip: ClipVersions) -> str:
    if metric.network is None:
        return ""
    if metric.network == "motion":
        return "given flow" if clip.true_flow is not None else networks.flow.id
    return str(getattr(networks, metric.network).id)
