"""How close are two clips, everywhere or inside a mask? MSE, PSNR, SSIM, LPIPS, and mask overlap.

Shapes: F frames, H rows, W columns. Frames are float F,3,H,W in [0, 1]; masks are F,H,W bool, True inside.
Functions return one float64 value per frame, NaN where a mask leaves nothing; the score of a clip is the mean
over its defined frames.

Two ways to read a mask: `valid_only` (the default) averages over the masked pixels alone; PIE's released
evaluation multiplies the frames by the mask and averages over the whole frame, so the zeroed pixels count as
perfect: the `_pie` functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fatezero.errors import UserError
from fatezero_eval.metrics.families import MetricFamily, classes_of
from fatezero_eval.metrics.means import mean_defined

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean

PSNR_CEILING = 100.0  # dB; frames that agree to the last bit would otherwise be infinite
WINDOW_RADIUS = 5  # 11 taps with sigma 1.5, Wang et al. 2004


def everywhere(frames_F3HW: Tensor) -> Tensor:
    """The mask that leaves nothing out, F,H,W bool."""
    return torch.ones_like(frames_F3HW[:, 0], dtype=torch.bool)


def masked(frames_F3HW: Tensor, mask_FHW: Tensor) -> Tensor:
    """Frames that are black outside a mask, F,3,H,W."""
    return frames_F3HW * mask_FHW[:, None].to(frames_F3HW.dtype)


def with_border(mask_FHW: Tensor) -> Tensor:
    """A mask with the frame's outermost pixels inside, F,H,W bool.

    Source: PnPInversion's `mask_decode` in `evaluation/evaluate.py`, which so evens out annotations at the border.
    """
    bordered = torch.ones_like(mask_FHW)
    bordered[:, 1:-1, 1:-1] = mask_FHW[:, 1:-1, 1:-1]
    return bordered


def masked_mean(maps_CHW: Tensor, mask_HW: Tensor) -> Tensor:
    """Mean over masked pixels and channels, float64; NaN where the mask leaves nothing."""
    inside = maps_CHW.double().sum(0).masked_fill(~mask_HW, 0)
    mean: Tensor = inside.sum() / (len(maps_CHW) * mask_HW.sum())
    return mean


def mse(a_F3HW: Tensor, b_F3HW: Tensor, mask_FHW: Tensor) -> Tensor:
    """Mean squared difference over masked pixels and channels, F float64."""
    triples = zip(a_F3HW.double(), b_F3HW.double(), mask_FHW, strict=True)
    return torch.stack([masked_mean((a - b).square(), mask) for a, b, mask in triples])


def psnr(a_F3HW: Tensor, b_F3HW: Tensor, mask_FHW: Tensor) -> Tensor:
    """10 log10(1 / MSE) in dB over masked pixels, at most `PSNR_CEILING`, F float64."""
    return decibels(mse(a_F3HW, b_F3HW, mask_FHW))


def ssim(a_F3HW: Tensor, b_F3HW: Tensor, mask_FHW: Tensor) -> Tensor:
    """Mean of the SSIM map over masked pixels, F float64.

    A full mask gives the usual SSIM: pixels nearer to the border than the window's radius are left out. A
    partial mask is read from the full map, whose windows are mirrored at the frame's border.
    """
    values = []
    for a, b, mask in zip(a_F3HW.double(), b_F3HW.double(), mask_FHW, strict=True):
        scores = similarity_map(a, b)
        values.append(_crop(scores).mean() if mask.all() else masked_mean(scores, mask))
    return torch.stack(values)


def lpips(a_F3HW: Tensor, b_F3HW: Tensor, mask_FHW: Tensor, network: PerceptualDistance) -> Tensor:
    """LPIPS, F float64: of the whole frame for a full mask, otherwise the mean of its map over masked pixels.

    The network sees [-1, 1], as it was trained.
    """
    values = []
    for a, b, mask in zip(a_F3HW, b_F3HW, mask_FHW, strict=True):
        value = network.of_frame(a, b) if mask.all() else network.of_pixels(a, b)[mask.to(a.device)].mean()
        values.append(value.double().cpu())
    return torch.stack(values)


def mse_pie(a_F3HW: Tensor, b_F3HW: Tensor, mask_FHW: Tensor, other_FHW: Tensor) -> Tensor:
    """MSE over the whole frame of a times its mask and b times its own, F float64; NaN where either is empty."""
    a, b = masked(a_F3HW, mask_FHW), masked(b_F3HW, other_FHW)
    return _undefined(mse(a, b, everywhere(a)), mask_FHW, other_FHW)


def psnr_pie(a_F3HW: Tensor, b_F3HW: Tensor, mask_FHW: Tensor, other_FHW: Tensor) -> Tensor:
    """PSNR over the whole frame of a times its mask and b times its own, F float64."""
    return decibels(mse_pie(a_F3HW, b_F3HW, mask_FHW, other_FHW))


def ssim_pie(a_F3HW: Tensor, b_F3HW: Tensor, mask_FHW: Tensor, other_FHW: Tensor) -> Tensor:
    """SSIM, as torchmetrics has it, over the whole frame of a times its mask and b times its own, F float64.

    Unlike `ssim`, torchmetrics counts the border, mirrored without repeating its edge. Its own function,
    whose window has 121 taps where this one has 11 and 11, is slow on a CPU.
    """
    pairs = zip(masked(a_F3HW, mask_FHW), masked(b_F3HW, other_FHW), strict=True)
    values = torch.stack([similarity_map(a, b, repeats_edge=False).mean() for a, b in pairs])
    return _undefined(values, mask_FHW, other_FHW)


def lpips_pie(
    a_F3HW: Tensor, b_F3HW: Tensor, mask_FHW: Tensor, other_FHW: Tensor, network: PerceptualDistance
) -> Tensor:
    """LPIPS over the whole frame of a times its mask and b times its own, F float64."""
    a, b = masked(a_F3HW, mask_FHW), masked(b_F3HW, other_FHW)
    return _undefined(lpips(a, b, everywhere(a), network), mask_FHW, other_FHW)


def mask_iou(mask_FHW: Tensor, true_FHW: Tensor) -> Tensor:
    """Intersection over union of two masks, F float64; NaN where both are empty."""
    pairs = zip(mask_FHW, true_FHW, strict=True)
    return torch.stack([(a & b).sum().double() / (a | b).sum().double() for a, b in pairs])


def decibels(mse_F: Tensor) -> Tensor:
    """PSNR of a mean squared error on a [0, 1] scale, at most `PSNR_CEILING`; NaN stays NaN."""
    return (-10 * mse_F.log10()).clamp(max=PSNR_CEILING)


def similarity_map(a_3HW: Tensor, b_3HW: Tensor, *, repeats_edge: bool = True) -> Tensor:
    """SSIM at every pixel and channel, 3,H,W float64: Gaussian window of 11 taps, sigma 1.5, data range 1.

    Beyond the frame the picture is mirrored: with its edge repeated, as scikit-image does, or without.

    Raises:
        UserError: the frame is smaller than the window.

    Source: Wang et al. 2004, equation 13, with population (not sample) covariances.
    """
    if min(a_3HW.shape[1:]) < 2 * WINDOW_RADIUS + 1:
        _, height, width = a_3HW.shape
        raise UserError(f"SSIM's window needs frames of at least 11x11 pixels, and these are {width}x{height}.")
    a, b = a_3HW.double(), b_3HW.double()
    mean_a, mean_b, mean_ab = (_blur(maps, repeats_edge) for maps in (a, b, a * b))
    squared = torch.addcmul(a * a, b, b)  # of both together: only the sum of the variances is wanted
    mean_squares = _blur(squared, repeats_edge)
    product, squares = mean_a * mean_b, torch.addcmul(mean_a * mean_a, mean_b, mean_b)
    c1, c2 = 0.01**2, 0.03**2
    covariance, variances = mean_ab.sub_(product), mean_squares.sub_(squares)
    numerator = product.mul_(2).add_(c1).mul_(covariance.mul_(2).add_(c2))
    similarity: Tensor = numerator.div_(squares.add_(c1).mul_(variances.add_(c2)))
    return similarity


def window_inside(mask_HW: Tensor) -> Tensor:
    """True where every pixel of the SSIM window that lies in the frame is in the mask, H,W bool."""
    import cv2  # noqa: PLC0415

    mask, side = mask_HW.cpu().numpy().astype(np.uint8), 2 * WINDOW_RADIUS + 1
    inside = cv2.erode(mask, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=(1,))
    return torch.from_numpy(np.asarray(inside, bool)).to(mask_HW.device)


def _weights() -> list[float]:
    weights = [math.exp(-(offset**2) / (2 * 1.5**2)) for offset in range(-WINDOW_RADIUS, WINDOW_RADIUS + 1)]
    return [weight / sum(weights) for weight in weights]


def _blur(maps_CHW: Tensor, repeats_edge: bool) -> Tensor:
    """The Gaussian window over each map, float64."""
    import cv2  # noqa: PLC0415

    taps, mirrored = np.array(_weights()), cv2.BORDER_REFLECT if repeats_edge else cv2.BORDER_REFLECT_101
    blurred = [cv2.sepFilter2D(plane, -1, taps, taps, borderType=mirrored) for plane in maps_CHW.cpu().numpy()]
    return torch.from_numpy(np.stack(blurred)).to(maps_CHW.device)


def _crop(map_3HW: Tensor) -> Tensor:
    return map_3HW[:, WINDOW_RADIUS:-WINDOW_RADIUS, WINDOW_RADIUS:-WINDOW_RADIUS]


def _undefined(values_F: Tensor, mask_FHW: Tensor, other_FHW: Tensor) -> Tensor:
    both = mask_FHW.flatten(1).any(1) & other_FHW.flatten(1).any(1)
    return values_F.masked_fill(~both, torch.nan)


class PerceptualDistance(Protocol):
    """LPIPS of two frames in [0, 1]."""

    def of_frame(self, a_3HW: Tensor, b_3HW: Tensor) -> Tensor:
        """One number for the pair."""
        ...

    def of_pixels(self, a_3HW: Tensor, b_3HW: Tensor) -> Tensor:
        """Distance at every pixel, H,W."""
        ...


def _mean(of_frames: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The mean over a clip's defined frames."""

    @wraps(of_frames)
    def of_clip(*clip: Tensor, **named: Any) -> Tensor:
        return mean_defined(of_frames(*clip, **named))

    return of_clip


MSE_FAMILY = MetricFamily("MSE", _mean(mse), higher_is_better=False)
PSNR_FAMILY = MetricFamily("PSNR", _mean(psnr), higher_is_better=True)
SSIM_FAMILY = MetricFamily("SSIM", _mean(ssim), higher_is_better=True)
LPIPS_FAMILY = MetricFamily("LPIPS", _mean(lpips), higher_is_better=False)
MASK_IOU = MetricFamily("MaskIoU", _mean(mask_iou), higher_is_better=True)
MSE: type[ClipMean]
PSNR: type[ClipMean]
SSIM: type[ClipMean]
LPIPS: type[ClipMean]
MaskIoU: type[ClipMean]
if not TYPE_CHECKING:
    __getattr__ = classes_of(__name__, MSE_FAMILY, PSNR_FAMILY, SSIM_FAMILY, LPIPS_FAMILY, MASK_IOU)
