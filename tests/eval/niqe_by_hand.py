"""Mittal et al. 2013 once more: OpenCV's filter, SciPy's gamma function, MATLAB's halving by its eight taps."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from scipy.special import gamma

Array = Any  # NumPy's, of numbers

SHAPES = np.arange(200, 10001) / 1000
RATIOS = gamma(2 / SHAPES) ** 2 / gamma(1 / SHAPES) / gamma(3 / SHAPES)
KERNEL = np.exp(-np.add.outer(np.arange(-3, 4) ** 2, np.arange(-3, 4) ** 2) * 18 / 49)
TAPS = np.abs(np.arange(-3.5, 4) / 2)
NEAR, FAR = 1.5 * TAPS**3 - 2.5 * TAPS**2 + 1, -0.5 * TAPS**3 + 2.5 * TAPS**2 - 4 * TAPS + 2
CUBIC = np.where(TAPS < 1, NEAR, FAR) / 2


def fit(values: Array) -> tuple[float, float, float]:
    sides = values[values < 0], values[values > 0]
    left, right = (np.sqrt(np.square(side).mean()) if len(side) else np.nan for side in sides)
    shape = SHAPES[0]  # where MATLAB's min finds the smallest of NaNs
    if all(map(len, sides)):
        g, r = left / right, np.abs(values).mean() ** 2 / np.square(values).mean()
        shape = SHAPES[np.abs(RATIOS - r * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2).argmin()]
    width = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * width, right * width


def features(block: Array) -> list[float]:
    shape, left, right = fit(block)
    row = [shape, (left + right) / 2]
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = fit(block * np.roll(np.roll(block, down, 0), across, 1))
        row += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return row


def halved(grey: Array) -> Array:
    for _ in range(2):  # rows, then columns
        wide = np.pad(grey, ((3, 3), (0, 0)), mode="symmetric")
        grey = sum(weight * wide[k : len(wide) - 7 + k : 2] for k, weight in enumerate(CUBIC)).T
    return grey


def niqe_by_hand(frame: Array, mean: Array, covariance: Array) -> float:
    """Of a frame 3,H,W in [0, 1] that is two blocks wide and some high."""
    red, green, blue = np.round(255 * frame)
    grey = np.floor((299 * red + 587 * green + 114 * blue) / 1000 + 0.5)
    table = []
    for side in (96, 48):
        blurred = [
            cv2.filter2D(values, -1, KERNEL / KERNEL.sum(), borderType=cv2.BORDER_REPLICATE)
            for values in (grey, grey**2)
        ]  # fmt: skip
        normal = (grey - blurred[0]).round(6) / (np.sqrt(np.abs(blurred[1] - blurred[0] ** 2)) + 1)
        cells = [cell for row in np.split(normal, len(grey) // side) for cell in np.hsplit(row, 2)]
        table.append([features(cell) for cell in cells])
        grey = halved(grey)
    rows = np.hstack(table)
    away = mean - np.nanmean(rows, axis=0)
    spread = np.cov(rows[~np.isnan(rows.sum(1))].T)
    return float(np.sqrt(away @ np.linalg.pinv((covariance + spread) / 2) @ away))
