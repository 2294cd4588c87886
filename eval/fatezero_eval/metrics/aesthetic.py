"""Aesthetic quality: a line through CLIP's space, drawn by what people found beautiful."""

from __future__ import annotations

from torch import Tensor

from fatezero_eval.metrics.clip_mean import ClipMean, mean_defined


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


class AestheticQuality(ClipMean):
    """Mean over clips of `aesthetic_quality`."""

    higher_is_better = True
    of_clip = staticmethod(aesthetic_quality)
