"""Aesthetic quality: a line through CLIP's space, drawn by what people found beautiful."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from fatezero_eval.metrics.families import MetricFamily, classes_of
from fatezero_eval.metrics.means import mean_defined

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean


def aesthetic_of_frames(frames_FD: Tensor, weight_D: Tensor, bias: Tensor) -> Tensor:
    """A tenth of the linear head's rating of each frame, F float64; ratings are meant to lie in [1, 10].

    Args:
        frames_FD: unit embeddings of the frames, by the CLIP that the head was trained on.
        weight_D: the head's weight.
        bias: the head's bias, scalar.

    Source: LAION-AI's aesthetic-predictor; the tenth is VBench's, `aesthetic_quality.py`.
    """
    return (frames_FD.double() @ weight_D.double() + bias.double()) / 10


def aesthetic_quality(frames_FD: Tensor, weight_D: Tensor, bias: Tensor) -> Tensor:
    """Mean over frames of `aesthetic_of_frames`."""
    return mean_defined(aesthetic_of_frames(frames_FD, weight_D, bias))


AESTHETIC_QUALITY = MetricFamily("AestheticQuality", aesthetic_quality, higher_is_better=True)
AestheticQuality: type[ClipMean]
if not TYPE_CHECKING:
    __getattr__ = classes_of(__name__, AESTHETIC_QUALITY)
