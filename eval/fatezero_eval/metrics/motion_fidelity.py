"""Motion fidelity: does the edited clip move as its source does?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fatezero_eval.metrics.families import MetricFamily, classes_of
from fatezero_eval.metrics.means import mean_defined, stacked

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean


def endpoint_error_of_pairs(source_P2HW: Tensor, edited_P2HW: Tensor) -> Tensor:
    """Mean distance in pixels between the ends of two flows; one float64 value per pair.

    Args:
        source_P2HW: flow between neighbouring source frames, pixels.
        edited_P2HW: flow between neighbouring edited frames, pixels.

    Source: V2VBench's motion alignment, which prints the negative.
    """
    pairs = zip(source_P2HW.double(), edited_P2HW.double(), strict=True)
    values = [torch.hypot(*(source - edited)).mean() for source, edited in pairs]
    return stacked(values)


def motion_fidelity(source_P2HW: Tensor, edited_P2HW: Tensor) -> Tensor:
    """Mean over pairs of `endpoint_error_of_pairs`; NaN for one frame."""
    return mean_defined(endpoint_error_of_pairs(source_P2HW, edited_P2HW))


MOTION_FIDELITY = MetricFamily("MotionFidelity", motion_fidelity, higher_is_better=False)
MotionFidelity: type[ClipMean]
if not TYPE_CHECKING:
    __getattr__ = classes_of(__name__, MOTION_FIDELITY)
