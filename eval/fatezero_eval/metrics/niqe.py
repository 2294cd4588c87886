"""NIQE: how far are a frame's local statistics from those of undistorted photographs?

Everything is computed on levels of 255, as the authors' MATLAB code does.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from math import gamma, sqrt
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fatezero_eval.metrics.families import MetricFamily, classes_of
from fatezero_eval.metrics.means import mean_defined

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean

Values = npt.NDArray[np.float64]

BLOCK = 96  # pixels; half of it on the second scale
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # rows, columns
FEATURES = 36  # of a block: 18 on each scale
FLAT = 1e-6  # levels; less is rounding, whose sign would count
SHAPES = np.arange(0.2, 10.0005, 0.001)  # of generalised Gaussians, among which the nearest is looked up
GREY = np.array([299, 587, 114])[:, None, None]  # thousandths of red, green and blue


def niqe_of_frames(frames_F3HW: Tensor, mean_K: Tensor, covariance_KK: Tensor) -> Tensor:
    """Distance of each frame's features from those of photographs, F float64; NaN below two textured blocks of 96.

    Args:
        frames_F3HW: in [0, 1].
        mean_K: of the features of photographs, K = 36.
        covariance_KK: of these.

    Source: Mittal, Soundararajan, Bovik 2013, "Making a completely blind image quality analyzer", equation 10.
    """
    levels = (frames_F3HW.double() * 255).round().long().cpu().numpy()
    greys = ((levels * GREY).sum(1) + 500) // 1000  # in whole numbers: no half is rounded by chance
    known = mean_K.double().cpu().numpy(), covariance_KK.double().cpu().numpy()
    return torch.tensor([_distance(_features(grey.astype(float)), *known) for grey in greys], dtype=torch.float64)


def niqe(frames_F3HW: Tensor, mean_K: Tensor, covariance_KK: Tensor) -> Tensor:
    """Mean over the defined frames of `niqe_of_frames`."""
    return mean_defined(niqe_of_frames(frames_F3HW, mean_K, covariance_KK))


def _distance(features_BK: Values, mean_K: Values, covariance_KK: Values) -> float:
    whole = features_BK[~np.isnan(features_BK).any(1)]
    if len(whole) < 2:
        return float("nan")
    difference = mean_K - np.nanmean(features_BK, axis=0)
    pooled = (covariance_KK + np.cov(whole, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(pooled) @ difference))


def _features(grey_HW: Values) -> Values:
    """The features of each block, B,36."""
    height, width = (side // BLOCK * BLOCK for side in grey_HW.shape)
    grey, scales = grey_HW[:height, :width], []
    for side in (BLOCK, BLOCK // 2):
        normalised = _normalised(grey) if grey.size else grey
        corners = product(range(0, normalised.shape[0], side), range(0, normalised.shape[1], side))
        blocks = [normalised[row : row + side, column : column + side] for row, column in corners]
        scales.append(np.array([_of_block(block) for block in blocks]).reshape(-1, FEATURES // 2))
        grey = _halved(grey) if grey.size else grey
    return np.concatenate(scales, axis=1)


def _normalised(grey_HW: Values) -> Values:
    """Each pixel's distance from its neighbourhood's mean in units of its spread, equation 1."""
    from scipy.ndimage import correlate1d  # noqa: PLC0415

    weights = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    weights /= weights.sum()

    def local(values: Values) -> Values:
        rows: Values = correlate1d(values, weights, axis=0, mode="nearest")
        return np.asarray(correlate1d(rows, weights, axis=1, mode="nearest"))

    mean = local(grey_HW)
    spread = np.sqrt(np.abs(local(grey_HW**2) - mean**2))
    distance = grey_HW - mean
    return np.asarray(np.where(np.abs(distance) < FLAT, 0, distance) / (spread + 1))


def _halved(grey_HW: Values) -> Values:
    """Half the size, as MATLAB's imresize: bicubic, antialiased, mirrored beyond the border."""
    mirrored = torch.from_numpy(np.pad(grey_HW, 8, mode="symmetric"))[None, None]
    half = torch.nn.functional.interpolate(mirrored, scale_factor=0.5, mode="bicubic", antialias=True)
    result: Values = half[0, 0, 4:-4, 4:-4].numpy()
    return result


def _of_block(block_HW: Values) -> list[float]:
    """18 features: the shape and mean spread of a block, and the fit of its product with each of four neighbours."""
    shape, left, right = _fit(block_HW)
    found = [shape, (left + right) / 2]
    for neighbour in NEIGHBOURS:
        shape, left, right = _fit(block_HW * np.roll(block_HW, neighbour, axis=(0, 1)))
        found += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return found


def _fit(values: Values) -> tuple[float, float, float]:
    """Shape and spreads to the left and right of an asymmetric generalised Gaussian.

    A side without values has the spread NaN, and the shape is then the smallest, as with the authors' `min`.
    """
    sides = values[values < 0], values[values > 0]
    left, right = (np.sqrt(np.mean(side**2)) if side.size else np.nan for side in sides)
    ratio = left / right
    with np.errstate(invalid="ignore"):  # a flat block
        flatness = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    wanted = flatness * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = float(SHAPES[np.abs(_flatnesses() - wanted).argmin()])
    scale = sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, float(left * scale), float(right * scale)


@cache
def _flatnesses() -> Values:
    """Squared mean length over mean square of generalised Gaussians, by their shape."""
    return np.array([gamma(2 / shape) ** 2 / (gamma(1 / shape) * gamma(3 / shape)) for shape in SHAPES])


NIQE_FAMILY = MetricFamily("NIQE", niqe, higher_is_better=False)
NIQE: type[ClipMean]
if not TYPE_CHECKING:
    __getattr__ = classes_of(__name__, NIQE_FAMILY)
