"""Do points of the edited clip move along with points of its source?

Shapes: N and M points, F frames. Tracks are N,F,2 in pixels, x then y: where each point is in each frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fatezero_eval.metrics.families import MetricFamily, classes_of

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean

STILL = 0.25  # pixels a frame: a shorter step is a tracker's trembling, whose direction says nothing


def track_correlation(edited_NF2: Tensor, source_MF2: Tensor) -> Tensor:
    """How well each track is matched by the most similar one of the other clip, mean over both directions; [-1, 1].

    Two tracks are compared step by step by the cosine of their displacements. Of steps below `STILL`, two agree (1),
    and one beside a longer step does not (0), so that a frozen edit of a moving clip gains nothing.
    NaN for one frame, or where either clip has no track.

    Source: Yatim et al. 2024, "Space-Time Diffusion Features for Zero-Shot Text-Driven Motion Transfer", the Motion
    Fidelity Score, of which this is half the sum. Its authors take every displacement for motion.
    """
    edited, source = _directions(edited_NF2), _directions(source_MF2)
    steps = edited.shape[1]
    if not steps or not len(edited) or not len(source):
        return torch.tensor(torch.nan, dtype=torch.float64)
    similarity_NM = edited.flatten(1) @ source.flatten(1).T / steps
    return (similarity_NM.amax(1).mean() + similarity_NM.amax(0).mean()) / 2


def _directions(tracks_NF2: Tensor) -> Tensor:
    """Each step as a unit vector N,F−1,3: along x and y where the point moves, along a third axis where it rests."""
    steps = tracks_NF2.double().diff(dim=1)
    length = steps.norm(dim=-1, keepdim=True)
    rests = length < STILL
    return torch.cat([torch.where(rests, 0, steps / length), rests.double()], dim=-1)


TRACK_CORRELATION = MetricFamily("TrackCorrelation", track_correlation, higher_is_better=True)
TrackCorrelation: type[ClipMean]
if not TYPE_CHECKING:
    __getattr__ = classes_of(__name__, TRACK_CORRELATION)
