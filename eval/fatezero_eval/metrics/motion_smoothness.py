"""Motion smoothness: is each frame what its neighbours let one expect?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from fatezero_eval.metrics.families import MetricFamily, classes_of
from fatezero_eval.metrics.means import mean_defined, stacked
from fatezero_eval.metrics.warping import warp

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean


def smoothness_of_triple(frames_33HW: Tensor, forward_2HW: Tensor, backward_2HW: Tensor) -> Tensor:
    """1 minus the mean absolute difference of a frame and what lies halfway between its neighbours; [0, 1].

    Halfway: both neighbours, each warped along half the motion between them, averaged. With F from the one before to
    the one after and B back, the middle is led to the former by (B − F) / 4 and to the latter by (F − B) / 4.

    Args:
        frames_33HW: a frame, with the one before it and the one after it, in [0, 1].
        forward_2HW: flow from the one before to the one after, pixels.
        backward_2HW: flow back.

    Source: VBench's motion smoothness, whose frames are interpolated by AMT; here by equation 4 of Jiang et al. 2018,
    "Super SloMo", at half the time.
    """
    before, middle, after = frames_33HW.double()
    half = (forward_2HW.double() - backward_2HW.double()) / 4
    expected = (warp(before, -half) + warp(after, half)) / 2
    smoothness: Tensor = 1 - (expected - middle).abs().mean()
    return smoothness


def motion_smoothness(frames_F3HW: Tensor, forward_Q2HW: Tensor, backward_Q2HW: Tensor) -> Tensor:
    """Mean of `smoothness_of_triple` over every second frame; NaN below three frames.

    Args:
        frames_F3HW: in [0, 1].
        forward_Q2HW: flow from frame 2q to frame 2q + 2, Q = ⌊(F − 1) / 2⌋.
        backward_Q2HW: flow back.
    """
    triples = frames_F3HW.unfold(0, 3, 2).movedim(-1, 1) if len(frames_F3HW) > 2 else frames_F3HW[:0]
    parts = zip(triples, forward_Q2HW, backward_Q2HW, strict=True)
    return mean_defined(stacked([smoothness_of_triple(*part) for part in parts]))


MOTION_SMOOTHNESS = MetricFamily("MotionSmoothness", motion_smoothness, higher_is_better=True)
MotionSmoothness: type[ClipMean]
if not TYPE_CHECKING:
    __getattr__ = classes_of(__name__, MOTION_SMOOTHNESS)
