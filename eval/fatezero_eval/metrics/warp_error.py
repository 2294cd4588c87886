"""Does the edited clip move as the source does? Warp error in five meanings, and WarpSSIM in two.

Shapes: F frames, P = F − 1 pairs, H rows, W columns. Frames are float F,3,H,W in [0, 1]; flows are P,2,H,W in
pixels between neighbouring frames of the *source*: `forward` lives on frame t and leads to t + 1, `backward`
lives on t + 1 and leads to t. Functions ending in `_of_pairs` return one float64 value per pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fatezero_eval.metrics.families import MetricFamily, classes_of
from fatezero_eval.metrics.fidelity import masked_mean, similarity_map, window_inside
from fatezero_eval.metrics.means import mean_defined, stacked
from fatezero_eval.metrics.warping import in_bounds, inconsistent, occluded, warp

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean


def _neighbours(frames_F3HW: Tensor, forward_P2HW: Tensor, other_P: Tensor) -> zip[tuple[Tensor, ...]]:
    """Pairs O_t, O_{t+1} with the flow between them and what else there is for each pair."""
    frames = frames_F3HW.double()
    return zip(frames[:-1], frames[1:], forward_P2HW.double(), other_P, strict=True)


def valid_pixels(forward_P2HW: Tensor, backward_P2HW: Tensor) -> Tensor:
    """Pixels that the default warp error looks at: neither occluded nor led out of the frame, P,H,W bool."""
    pairs = zip(forward_P2HW.double(), backward_P2HW.double(), strict=True)
    valid = [in_bounds(forward) & ~occluded(forward, backward) for forward, backward in pairs]
    return torch.stack(valid) if valid else torch.ones_like(forward_P2HW[:, 0], dtype=torch.bool)


def followed_of_pairs(frames_F3HW: Tensor, forward_P2HW: Tensor) -> Tensor:
    """O_{t+1} seen through the flow from t, P,3,H,W float64."""
    pairs = zip(frames_F3HW[1:].double(), forward_P2HW.double(), strict=True)
    followed = [warp(there, forward) for there, forward in pairs]
    return torch.stack(followed) if followed else frames_F3HW[1:].double()


def default_of_pairs(frames_F3HW: Tensor, followed_P3HW: Tensor, valid_PHW: Tensor) -> Tensor:
    """Squared difference of O_t and the warped O_{t+1}, mean over valid pixels and channels; P float64.

    Lai et al. 2018 with one correction: pixels that the flow leads out of the frame are left out too. A pair
    without a valid pixel is NaN.

    Args:
        frames_F3HW: the edited frames.
        followed_P3HW: see `followed_of_pairs`, by the flow of the source.
        valid_PHW: see `valid_pixels`.
    """
    pairs = zip(frames_F3HW[:-1].double(), followed_P3HW, valid_PHW, strict=True)
    return stacked([masked_mean((followed - here).square(), valid) for here, followed, valid in pairs])


def lai2018_of_pairs(frames_F3HW: Tensor, forward_P2HW: Tensor, backward_P2HW: Tensor) -> Tensor:
    """As released by Lai et al. 2018: beyond the frame its border is repeated and counted; P float64.

    A wholly occluded pair counts as 0, as in `evaluate_WarpError.py`.
    """
    values = []
    for here, there, forward, backward in _neighbours(frames_F3HW, forward_P2HW, backward_P2HW):
        error = masked_mean((warp(there, forward) - here).square(), ~occluded(forward, backward))
        values.append(torch.nan_to_num(error, nan=0.0))
    return stacked(values)


def evalcrafter_of_pairs(frames_F3HW: Tensor, forward_P2HW: Tensor, backward_P2HW: Tensor) -> Tensor:
    """EvalCrafter's reduction: three channels summed over a one-channel mask, so 3 times Lai's; P float64."""
    return 3 * lai2018_of_pairs(frames_F3HW, forward_P2HW, backward_P2HW)


def rerender_of_pairs(frames_F3HW: Tensor, forward_P2HW: Tensor, backward_P2HW: Tensor) -> Tensor:
    """Rerender-A-Video's Pixel-MSE: O_t warped to t + 1, masked, mean over *all* pixels; P float64.

    The mask zeroes what the forward-backward check (norms not squared) rejects; masked pixels count as 0.
    """
    values = []
    for here, there, forward, backward in _neighbours(frames_F3HW, forward_P2HW, backward_P2HW):
        error = (warp(here, backward, outside="zeros") - there).square()
        values.append((error * ~inconsistent(backward, forward)).mean())
    return stacked(values)


def wrong_way_of_pairs(frames_F3HW: Tensor, forward_P2HW: Tensor) -> Tensor:
    """RAVE's warp as an error: the forward flow used as a backward map, no mask; P float64.

    Kept to show what the wrong direction costs: on a moving clip it is worse than not warping at all.
    """
    frames = frames_F3HW.double()
    pairs = zip(frames[:-1], frames[1:], forward_P2HW.double(), strict=True)
    return stacked([(warp(a, flow, outside="zeros") - b).square().mean() for a, b, flow in pairs])


def warp_ssim_of_pairs(frames_F3HW: Tensor, followed_P3HW: Tensor, valid_PHW: Tensor) -> Tensor:
    """SSIM of O_t and the warped O_{t+1}, mean of its map where the whole window is valid; P float64.

    Args:
        frames_F3HW: the edited frames.
        followed_P3HW: see `followed_of_pairs`, by the flow of the source.
        valid_PHW: see `valid_pixels`.
    """
    pairs = zip(frames_F3HW[:-1].double(), followed_P3HW, valid_PHW, strict=True)
    return stacked(
        [masked_mean(similarity_map(here, followed), window_inside(valid)) for here, followed, valid in pairs]
    )


def rave_of_pairs(frames_F3HW: Tensor, forward_P2HW: Tensor) -> Tensor:
    """RAVE's SSIM of each pair: O_t drawn through the forward flow against O_{t+1}; P float64.

    OpenCV's remap on 8-bit frames (black beyond the frame) and scikit-image's default SSIM, as released. The
    flow is the source's and is used in the wrong direction; `warp_ssim` is the corrected form.
    """
    import cv2  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415
    from skimage.metrics import structural_similarity  # noqa: PLC0415

    frames = (frames_F3HW.double() * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    _, _, height, width = forward_P2HW.shape
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    values = []
    for here, there, flow in zip(frames[:-1], frames[1:], forward_P2HW.float().cpu().numpy(), strict=True):
        points = (flow + np.stack([columns, rows])).astype(np.float32)
        moved = cv2.remap(here, points[0], points[1], cv2.INTER_LINEAR)
        values.append(structural_similarity(there, moved, channel_axis=2))
    return torch.tensor(values, dtype=torch.float64)


def rave_of_frames(pairs_P: Tensor) -> Tensor:
    """The values of `rave_of_pairs` with the first frame's, which RAVE compares with itself; P + 1, none for no pair.

    Source: RAVE (Kara et al. 2024), `warp_video`: the mean over all frames, of which the first is not warped.
    """
    return torch.cat([torch.ones_like(pairs_P[:1]), pairs_P])


def warp_error(frames_F3HW: Tensor, forward_P2HW: Tensor, backward_P2HW: Tensor) -> Tensor:
    """Mean over the defined pairs of `default_of_pairs`; NaN for one frame."""
    followed, valid = followed_of_pairs(frames_F3HW, forward_P2HW), valid_pixels(forward_P2HW, backward_P2HW)
    return mean_defined(default_of_pairs(frames_F3HW, followed, valid))


def warp_ssim(frames_F3HW: Tensor, forward_P2HW: Tensor, backward_P2HW: Tensor) -> Tensor:
    """Mean over the defined pairs of `warp_ssim_of_pairs`; NaN for one frame."""
    followed, valid = followed_of_pairs(frames_F3HW, forward_P2HW), valid_pixels(forward_P2HW, backward_P2HW)
    return mean_defined(warp_ssim_of_pairs(frames_F3HW, followed, valid))


WARP_ERROR = MetricFamily("WarpError", warp_error, higher_is_better=False)
WARP_SSIM = MetricFamily("WarpSSIM", warp_ssim, higher_is_better=True)
WarpError: type[ClipMean]
WarpSSIM: type[ClipMean]
if not TYPE_CHECKING:
    __getattr__ = classes_of(__name__, WARP_ERROR, WARP_SSIM)
