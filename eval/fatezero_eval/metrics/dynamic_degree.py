"""Dynamic degree: does anything move by much?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fatezero_eval.metrics.families import MetricFamily, classes_of
from fatezero_eval.metrics.means import stacked

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean


def strides_of_pairs(flow_P2HW: Tensor) -> Tensor:
    """Mean length of the 5 % longest vectors of a flow, in units of 6 pixels at 256; one float64 value per pair.

    A frame of H x W has motion where this is above 1.

    Args:
        flow_P2HW: flow between neighbouring frames, pixels.

    Source: VBench, `dynamic_degree.py`: `get_score` and `set_params`, at 8 frames a second.
    """
    _, _, height, width = flow_P2HW.shape
    longest, unit = int(height * width * 0.05), 6 * min(height, width) / 256
    lengths = torch.hypot(*flow_P2HW.double().unbind(1)).flatten(1)
    return stacked([length.topk(longest).values.mean() / unit for length in lengths])


def moves(strides_P: Tensor) -> Tensor:
    """1 if enough pairs have motion, else 0; NaN below three frames, where none would be enough.

    Enough are a quarter of the frames, rounded to the nearest even number where half a frame is left.

    Source: VBench, `dynamic_degree.py`, `check_move`.
    """
    enough = round((len(strides_P) + 1) / 4)
    return ((strides_P > 1).sum() >= enough).double() if enough else torch.tensor(torch.nan, dtype=torch.float64)


def dynamic_degree(flow_P2HW: Tensor) -> Tensor:
    """`moves` of a clip, by the flow between its frames."""
    return moves(strides_of_pairs(flow_P2HW))


DYNAMIC_DEGREE = MetricFamily("DynamicDegree", dynamic_degree, higher_is_better=True)
DynamicDegree: type[ClipMean]
if not TYPE_CHECKING:
    __getattr__ = classes_of(__name__, DYNAMIC_DEGREE)
