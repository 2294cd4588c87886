"""The four styles as deterministic image filters, smooth enough for a small autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fatezero.picturebook.world.backgrounds import Floats, floats

Image = npt.NDArray[np.uint8]

CELL = 4  # side of a pixel-art cell


def _bytes(image: npt.NDArray[np.floating[Any]]) -> Image:
    """Values cut to 0..255."""
    return np.asarray(np.clip(image, 0, 255), np.uint8)


def _grey(image: Image) -> Floats:
    return floats(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def _saturate(image: Floats, amount: float) -> Floats:
    grey = image @ floats((0.299, 0.587, 0.114))
    return floats(grey[..., None] + amount * (image - grey[..., None]))


@cache
def _paper(size: int) -> Floats:
    """Blotches of watercolor paper; the same for every picture, so that a clip keeps them still."""
    rng = np.random.default_rng(1)
    grid = rng.uniform(-1, 1, (12, 12)).astype(np.float32)
    return floats(cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)[..., None])


@cache
def _strokes(size: int) -> Floats:
    """Slanting brush strokes; the same for every picture."""
    rng = np.random.default_rng(2)
    grid = rng.uniform(-1, 1, (size // 4, size // 12)).astype(np.float32)
    wide = cv2.resize(grid, (2 * size, 2 * size), interpolation=cv2.INTER_CUBIC)
    turn = cv2.getRotationMatrix2D((size, size), 35, 1.0)
    turned = cv2.warpAffine(wide, turn, (2 * size, 2 * size))
    start = size // 2
    return floats(turned[start : start + size, start : start + size, None])


def watercolor(image: Image) -> Image:
    """Pale flat washes with darker rims on blotchy paper."""
    washed = cv2.medianBlur(image, 7)
    rims = cv2.morphologyEx(_grey(washed), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    rims = cv2.GaussianBlur(rims, (0, 0), 1.0)[..., None]
    pale = 255 - (255 - _saturate(washed.astype(np.float32), 1.1)) * np.float32(0.62)
    painted = pale + 9 * _paper(image.shape[0]) - 0.45 * np.minimum(rims, 90)
    return _bytes(painted)


def pencil_sketch(image: Image) -> Image:
    """Dark outlines on white paper over a faint wash of the colours."""
    grey = cv2.GaussianBlur(_grey(image), (0, 0), 0.8)
    lines = np.minimum(grey / np.maximum(cv2.GaussianBlur(grey, (0, 0), 5), 8), 1)[..., None]
    wash = 255 - (255 - _saturate(cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32), 0.8)) * np.float32(0.36)
    return _bytes(wash * lines**2)


def pixel_art(image: Image) -> Image:
    """Square cells of few shades."""
    size = image.shape[0]
    small = cv2.resize(image, (size // CELL, size // CELL), interpolation=cv2.INTER_AREA).astype(np.float32)
    shades = np.round(small / 36) * 36
    cells = _bytes(shades)
    return np.asarray(cells.repeat(CELL, axis=0).repeat(CELL, axis=1))


def oil_painting(image: Image) -> Image:
    """Strong colours in broad slanting strokes."""
    flat = cv2.medianBlur(cv2.medianBlur(image, 5), 7).astype(np.float32)
    rich = (_saturate(flat, 1.45) - 118) * np.float32(1.12) + 108
    return _bytes(rich + 17 * _strokes(image.shape[0]))


STYLES: dict[str, Callable[[Image], Image]] = {
    "a watercolor painting": watercolor,
    "a pencil sketch": pencil_sketch,
    "pixel art": pixel_art,
    "an oil painting": oil_painting,
}
