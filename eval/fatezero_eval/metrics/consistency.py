"""How alike are a clip's frames? Four meanings of "frame consistency".

Shapes: F frames, D embedding width. Embeddings are unit length. A clip of one frame is NaN, not 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fatezero_eval.metrics.families import MetricFamily, classes_of
from fatezero_eval.metrics.means import mean_defined

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean


def adjacent(frames_FD: Tensor) -> Tensor:
    """Mean cosine of neighbouring frames, f_t·f_{t+1}, in [-1, 1].

    Source: FateZero's Tem-Con. On embeddings taken before the projection this is V2VBench's and EditVerse's
    frame consistency.
    """
    frames = frames_FD.double()
    return mean_defined((frames[:-1] * frames[1:]).sum(-1))


def all_pairs(frames_FD: Tensor) -> Tensor:
    """Mean cosine over all pairs of different frames, in [-1, 1].

    The sum of the unit vectors suffices: the mean over s < t of f_s·f_t is (|Σ f|² − Σ |f|²) / (F (F − 1)).

    Source: the TGVE competition, RAVE and FLATTEN.
    """
    frames = frames_FD.double()
    count = len(frames)
    if count < 2:
        return torch.tensor(torch.nan, dtype=torch.float64)
    return (frames.sum(0).square().sum() - frames.square().sum()) / (count * (count - 1))


def vbench(frames_FD: Tensor) -> Tensor:
    """Mean over t ≥ 2 of half the clamped cosines with the previous and with the first frame, in [0, 1].

    Source: VBench, subject consistency (DINO) and background consistency (CLIP).
    """
    frames = frames_FD.double()
    previous = (frames[1:] * frames[:-1]).sum(-1).clamp(min=0)
    first = (frames[1:] @ frames[0]).clamp(min=0)
    return mean_defined((previous + first) / 2)


FRAME_CONSISTENCY = MetricFamily("FrameConsistency", adjacent, higher_is_better=True)
ALL_PAIRS_CONSISTENCY = MetricFamily("AllPairsConsistency", all_pairs, higher_is_better=True)
VBENCH_CONSISTENCY = MetricFamily("VBenchConsistency", vbench, higher_is_better=True)
FrameConsistency: type[ClipMean]
AllPairsConsistency: type[ClipMean]
VBenchConsistency: type[ClipMean]
if not TYPE_CHECKING:
    __getattr__ = classes_of(__name__, FRAME_CONSISTENCY, ALL_PAIRS_CONSISTENCY, VBENCH_CONSISTENCY)
