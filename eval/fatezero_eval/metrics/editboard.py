"""EditBoard's fidelity of frames: FF-α and FF-β, both lower where the edit moves as its source does.

Shapes: P pairs of neighbouring frames, H rows, W columns. Frames are float P+1,3,H,W in [0, 1]; flows are P,2,H,W in
pixels, by OpenCV's Farnebäck with EditBoard's settings.

Source: Chen et al. 2025, EditBoard, `ff_alpha.py`, `ff_beta.py` and `test_optflow.py`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fatezero.types import Frames
from fatezero_eval.metrics.means import stacked

FOLLOWED = 5  # levels of grey by which a followed pixel of the source may differ
ENOUGH = 0.70  # mean share of followed pixels below which FF-α says nothing


def ff_alpha_of_pairs(source_F3HW: Tensor, edited_F3HW: Tensor, flow_P2HW: Tensor) -> Tensor:
    """For each pair the edit's difference in levels of 255 where the source is followed, and the share of that; P,2.

    O_{t+1} is compared with O_t drawn against the flow, the largest channel counting.

    Args:
        source_F3HW: the source frames.
        edited_F3HW: the edited frames.
        flow_P2HW: flow of the source from t to t + 1.
    """
    import cv2  # noqa: PLC0415

    source, edited = _levels(source_F3HW), _levels(edited_F3HW)
    _, _, height, width = flow_P2HW.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    pairs = []
    for t, flow in enumerate(flow_P2HW.float().cpu().numpy()):
        points = grid - flow.transpose(1, 2, 0)
        expected = [cv2.remap(frames[t], points, None, cv2.INTER_LINEAR) for frames in (source, edited)]
        missed = cv2.cvtColor(cv2.absdiff(source[t + 1], expected[0]), cv2.COLOR_RGB2GRAY)
        followed = missed <= FOLLOWED
        difference = cv2.absdiff(edited[t + 1], expected[1]).max(-1)[followed]
        mean = difference.astype(np.float64).mean() if difference.size else np.nan
        pairs.append([mean, followed.mean()])
    return torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2)


def ff_alpha(pairs_P2: Tensor) -> Tensor:
    """The differences of `ff_alpha_of_pairs`, P; NaN where less than `ENOUGH` of the source is followed on average.

    There EditBoard prints 0, which is its best score.
    """
    differences, shares = pairs_P2.reshape(-1, 2).unbind(-1)
    return differences if shares.mean() >= ENOUGH else torch.full_like(differences, torch.nan)


def ff_beta_of_pairs(source_P2HW: Tensor, edited_P2HW: Tensor) -> Tensor:
    """1 minus the mean cosine of two flows, a vector of no length having the cosine 0; P float64 in [0, 2]."""
    values = []
    for source, edited in zip(source_P2HW.double(), edited_P2HW.double(), strict=True):
        lengths = (source.norm(dim=0) + 1e-7) * (edited.norm(dim=0) + 1e-7)
        values.append(1 - ((source * edited).sum(0) / lengths).mean())
    return stacked(values)


def _levels(frames_F3HW: Tensor) -> Frames:
    levels: Frames = (frames_F3HW.double() * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return np.ascontiguousarray(levels)
