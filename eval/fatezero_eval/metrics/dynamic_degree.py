"""Dynamic degree: does anything move by much?"""

from __future__ import annotations

import torch
from torch import Tensor

from fatezero_eval.metrics.clip_mean import ClipMean, stacked


def strides_of_pairs(flow_P2HW: Tensor) -> Tensor:
    """Mean length of the 5 % longest vectors of a flow, in units of 6 pixels at 256; one float64 value per pair.

    A frame of H x W has motion where this is above 1.

    Args:
        flow_P2HW: flow between neighbouring frames, pixels.

    Source: VBench, `dynamic_degree.py`: `get_score` and `set_params`, at 8 frames a second.
    """
    _, _, height, width = flow_P2HW.shape
    longest, unit = int(height * width * 0.05), 6 * min(height, width) / 256
    lengths = flow_P2HW.double().norm(dim=1).flatten(1)
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


class DynamicDegree(ClipMean):
    """Share of clips in which something moves."""

    higher_is_better = True
    of_clip = staticmethod(dynamic_degree)
