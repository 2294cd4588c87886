"""From one clip to its scores: one pass over the frames, everything shared computed once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fatezero_eval.cache import digest
from fatezero_eval.clips import Chunk, EditedClip, Models, chunks
from fatezero_eval.encoders import ImageTextEncoder
from fatezero_eval.state import mean_defined
from fatezero_eval.suite import Embeddings, Metric

MISSING = {
    "mask": "no edit mask is given for this clip",
    "own_mask": "the method wrote no mask",
    "true_edit": "the true edit of this clip is not known",
}


@dataclass(frozen=True)
class Score:
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
    """Collects one encoder's view of the clip, a chunk at a time."""

    def __init__(self, encoder: ImageTextEncoder) -> None:
        self.encoder = encoder
        self._parts: dict[str, list[Tensor]] = {}

    def add(self, chunk: Chunk) -> None:
        edited = chunk.embeddings(self.encoder, "edited")
        square = chunk.embeddings(self.encoder, "edited", bottom_square=True)
        source = chunk.embeddings(self.encoder, "source")
        for name, part in (
            ("edited", edited["projected"]),
            ("bottom_square", square["projected"]),
            ("pooled", edited.get("pooled")),
            ("source", source["projected"]),
        ):
            if part is not None:
                self._parts.setdefault(name, []).append(part)

    def whole(self, clip: EditedClip, models: Models) -> Embeddings:
        def prompt(words: str) -> Tensor:
            key = digest("text", self.encoder.id, words)
            return torch.from_numpy(models.cache.get(key, lambda: {"text": self.encoder.texts([words])})["text"])[0]

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


def score(clip: EditedClip, metrics: Sequence[Metric], models: Models) -> list[Score]:
    """Score one clip with every metric, in the order given.

    Raises:
        UserError: a version of the clip cannot be read, or they differ in size or length.
    """
    encoders = {"clip": models.clip, "pick": models.pick}
    encoded = {
        name: _Encoded(encoder)
        for name, encoder in encoders.items()
        if encoder is not None and any(metric.model == name for metric in metrics)
    }
    present = clip.versions()
    streamed = [m for m in metrics if m.of_chunk is not None and all(need in present for need in m.needs)]
    # plain numbers: thousands of small tensors would pin the memory freed around them
    values: dict[str, list[float]] = {metric.id: [] for metric in streamed}
    frames = 0
    for chunk in chunks(clip, models):
        frames += len(chunk.frames["edited"]) - chunk.overlap
        for view in encoded.values():
            view.add(chunk)
        for metric in streamed:
            assert metric.of_chunk is not None
            values[metric.id].extend(metric.of_chunk(chunk).tolist())
    wholes = {name: view.whole(clip, models) for name, view in encoded.items()}
    scores = []
    for metric in metrics:
        if metric.of_clip is not None:
            each = metric.of_clip(wholes[str(metric.model)]).reshape(-1)
        elif metric.id in values:
            each = torch.tensor(values[metric.id], dtype=torch.float64)
        else:
            missing = next(need for need in metric.needs if need not in present)
            scores.append(Score(metric.id, None, 0, frames, MISSING[missing], ""))
            continue
        value = mean_defined(each).item()
        reason = "" if math.isfinite(value) else metric.undefined
        undefined = int(each.isnan().sum())
        model = _model_id(metric, models, clip)
        scores.append(Score(metric.id, None if reason else value, len(each) - undefined, undefined, reason, model))
    return scores


def _model_id(metric: Metric, models: Models, clip: EditedClip) -> str:
    if metric.model is None:
        return ""
    if metric.model == "motion":
        return "given flow" if clip.true_flow is not None else models.flow.id
    return str(getattr(models, metric.model).id)
