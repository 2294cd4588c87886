"""Temporal flickering: how little do neighbouring frames differ?"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor

from fatezero_eval.metrics.families import MetricFamily, classes_of
from fatezero_eval.metrics.means import mean_defined, stacked

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean


def flickering_of_pairs(frames_F3HW: Tensor) -> Tensor:
    """1 minus the mean absolute difference of neighbouring frames; one float64 value per pair, in [0, 1].

    VBench writes (255 − mean |O_t − O_{t+1}|) / 255 on 8-bit frames, which is the same.

    Args:
        frames_F3HW: float in [0, 1].
    """
    frames = frames_F3HW.double()
    values = [1 - (after - before).abs().mean() for before, after in pairwise(frames)]
    return stacked(values)


def temporal_flickering(frames_F3HW: Tensor) -> Tensor:
    """Mean over pairs of `flickering_of_pairs`; NaN for one frame."""
    return mean_defined(flickering_of_pairs(frames_F3HW))


TEMPORAL_FLICKERING = MetricFamily("TemporalFlickering", temporal_flickering, higher_is_better=True)
TemporalFlickering: type[ClipMean]
if not TYPE_CHECKING:
    __getattr__ = classes_of(__name__, TEMPORAL_FLICKERING)
