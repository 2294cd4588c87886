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
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fatezero.errors import UserError
from fatezero_eval.metrics.clip_mean import ClipMean, mean_defined

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


def mse(a_F3HW: Tensor, b_F3HW: Tensor, mask_FHW: Tensor) -> Tensor:
    """Mean squared difference over masked pixels and channels, F float64."""
    triples = zip(a_F3HW.double(), b_F3HW.double(), mask_FHW, strict=True)
    return torch.stack([(a - b).square()[:, mask].mean() for a, b, mask in triples])


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
        values.append(_crop(scores).mean() if mask.all() else scores[:, mask].mean())
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

    Unlike `ssim`, torchmetrics counts the border, mirrored without repeating its edge.
    """
    pairs = zip(masked(a_F3HW, mask_FHW).double(), masked(b_F3HW, other_FHW).double(), strict=True)
    values = torch.stack([_published_ssim(a[None], b[None]) for a, b in pairs])
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


def similarity_map(a_3HW: Tensor, b_3HW: Tensor) -> Tensor:
    """SSIM at every pixel and channel, 3,H,W float64: Gaussian window of 11 taps, sigma 1.5, data range 1.

    Beyond the frame the picture is mirrored with its edge repeated, as scikit-image does.

    Raises:
        UserError: the frame is smaller than the window.

    Source: Wang et al. 2004, equation 13, with population (not sample) covariances.
    """
    if min(a_3HW.shape[1:]) < 2 * WINDOW_RADIUS + 1:
        _, height, width = a_3HW.shape
        raise UserError(f"SSIM's window needs frames of at least 11x11 pixels, and these are {width}x{height}.")
    a, b = a_3HW.double(), b_3HW.double()
    means = _blur(torch.cat([a, b, a * a, b * b, a * b]))
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = means.chunk(5)
    var_a = mean_aa - mean_a.square()
    var_b = mean_bb - mean_b.square()
    covariance = mean_ab - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity: Tensor = numerator / ((mean_a.square() + mean_b.square() + c1) * (var_a + var_b + c2))
    return similarity


def window_inside(mask_HW: Tensor) -> Tensor:
    """True where every pixel of the SSIM window that lies in the frame is in the mask, H,W bool."""
    outside = (~mask_HW).float()[None, None]
    return F.max_pool2d(outside, 2 * WINDOW_RADIUS + 1, stride=1, padding=WINDOW_RADIUS)[0, 0] == 0


def _weights() -> list[float]:
    weights = [math.exp(-(offset**2) / (2 * 1.5**2)) for offset in range(-WINDOW_RADIUS, WINDOW_RADIUS + 1)]
    return [weight / sum(weights) for weight in weights]


def _mirrored(size: int, device: torch.device) -> Tensor:
    index = torch.arange(-WINDOW_RADIUS, size + WINDOW_RADIUS, device=device)
    index = torch.where(index < 0, -index - 1, index)
    return torch.where(index >= size, 2 * size - 1 - index, index)


def _blur(maps_CHW: Tensor) -> Tensor:
    """The Gaussian window over each map, as weighted sums of shifted maps: fast in float64, unlike conv2d."""
    _, height, width = maps_CHW.shape
    rows = maps_CHW[:, _mirrored(height, maps_CHW.device)]
    blurred = torch.zeros_like(maps_CHW)
    for shift, weight in enumerate(_weights()):
        blurred.add_(rows[:, shift : shift + height], alpha=weight)
    columns = blurred[:, :, _mirrored(width, maps_CHW.device)]
    blurred = torch.zeros_like(maps_CHW)
    for shift, weight in enumerate(_weights()):
        blurred.add_(columns[:, :, shift : shift + width], alpha=weight)
    return blurred


def _crop(map_3HW: Tensor) -> Tensor:
    return map_3HW[:, WINDOW_RADIUS:-WINDOW_RADIUS, WINDOW_RADIUS:-WINDOW_RADIUS]


def _undefined(values_F: Tensor, mask_FHW: Tensor, other_FHW: Tensor) -> Tensor:
    both = mask_FHW.flatten(1).any(1) & other_FHW.flatten(1).any(1)
    return values_F.masked_fill(~both, torch.nan)


def _published_ssim(a_13HW: Tensor, b_13HW: Tensor) -> Tensor:
    from torchmetrics.functional.image import structural_similarity_index_measure  # noqa: PLC0415

    value = structural_similarity_index_measure(a_13HW, b_13HW, data_range=1.0)
    assert isinstance(value, Tensor)
    return value


class PerceptualDistance(Protocol):
    """LPIPS of two frames in [0, 1]."""

    def of_frame(self, a_3HW: Tensor, b_3HW: Tensor) -> Tensor:
        """One number for the pair."""
        ...

    def of_pixels(self, a_3HW: Tensor, b_3HW: Tensor) -> Tensor:
        """Distance at every pixel, H,W."""
        ...


class MSE(ClipMean):
    """Mean over clips of the mean over frames of `mse`."""

    higher_is_better = False

    @staticmethod
    def of_clip(a_F3HW: Tensor, b_F3HW: Tensor, mask_FHW: Tensor) -> Tensor:
        """MSE of one clip."""
        return mean_defined(mse(a_F3HW, b_F3HW, mask_FHW))


class PSNR(ClipMean):
    """Mean over clips of the mean over frames of `psnr`."""

    higher_is_better = True

    @staticmethod
    def of_clip(a_F3HW: Tensor, b_F3HW: Tensor, mask_FHW: Tensor) -> Tensor:
        """PSNR of one clip."""
        return mean_defined(psnr(a_F3HW, b_F3HW, mask_FHW))


class SSIM(ClipMean):
    """Mean over clips of the mean over frames of `ssim`."""

    higher_is_better = True

    @staticmethod
    def of_clip(a_F3HW: Tensor, b_F3HW: Tensor, mask_FHW: Tensor) -> Tensor:
        """SSIM of one clip."""
        return mean_defined(ssim(a_F3HW, b_F3HW, mask_FHW))


class LPIPS(ClipMean):
    """Mean over clips of the mean over frames of `lpips`."""

    higher_is_better = False

    @staticmethod
    def of_clip(a_F3HW: Tensor, b_F3HW: Tensor, mask_FHW: Tensor, network: PerceptualDistance) -> Tensor:
        """LPIPS of one clip."""
        return mean_defined(lpips(a_F3HW, b_F3HW, mask_FHW, network))


class MaskIoU(ClipMean):
    """Mean over clips of the mean over frames of `mask_iou`."""

    higher_is_better = True

    @staticmethod
    def of_clip(mask_FHW: Tensor, true_FHW: Tensor) -> Tensor:
        """IoU of one clip."""
        return mean_defined(mask_iou(mask_FHW, true_FHW))
