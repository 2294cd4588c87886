"""A scene of flat patches, and what a camera writes of it: standard, HLG and PQ, narrow and wide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fatezero.types import Frames

Light = npt.NDArray[np.float64]

PATCHES = np.array(  # RGB of BT.709 as a standard screen shows them
    [
        [(255, 255, 255), (0, 0, 0), (128, 128, 128), (204, 26, 26)],
        [(26, 204, 26), (26, 26, 204), (230, 180, 140), (64, 128, 192)],
    ],
    np.uint8,
)
_PATCH = (24, 16)  # rows, columns
_WHITE = 203.0  # cd/m²: where ITU-R BT.2408 puts the white of a standard picture
_HLG_WHITE = 0.25  # of the brightest scene light: the signal 0.74, where BT.2408 has 0.75
_TO_2020 = np.array(  # linear RGB of BT.709 to BT.2020, ITU-R BT.2087
    [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
)
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593])  # of BT.2020


def patch_frames(count: int) -> Frames:
    """The scene as frames F,48,64,3 RGB."""
    scene = PATCHES.repeat(_PATCH[0], 0).repeat(_PATCH[1], 1)
    return np.repeat(scene[None], count, 0)


def patches_of(frames: Frames) -> Frames:
    """The colour in the middle of each patch of the first frame."""
    return frames[0, _PATCH[0] // 2 :: _PATCH[0], _PATCH[1] // 2 :: _PATCH[1]]


def hlg(light: Light) -> Light:
    """Scene light, 1 at the white of a standard picture, to the HLG signal, ITU-R BT.2100."""
    scene = _HLG_WHITE * light
    low, high = np.sqrt(3 * scene), 0.17883277 * np.log((12 * scene - 0.28466892).clip(1e-9)) + 0.55991073
    return np.asarray(np.where(scene <= 1 / 12, low, high))


def pq(light: Light) -> Light:
    """Light of the screen, 1 at the white of a standard picture, to the PQ signal, SMPTE ST 2084."""
    part = (_WHITE * light / 10_000) ** (2610 / 16384)
    return np.asarray(((3424 / 4096 + 2413 / 128 * part) / (1 + 2392 / 128 * part)) ** (2523 / 32))


def srgb(light: Light) -> Light:
    """Light, 1 at white, to the signal of a standard picture, IEC 61966-2-1."""
    return np.asarray(np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def wide_planes(count: int, curve: Callable[[Light], Light]) -> npt.NDArray[np.uint16]:
    """The scene at its reference white in BT.2020: planes F,72,64 of 4:2:0 with 10 bits, limited range."""
    code = patch_frames(1)[0] / 255
    light = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    red, green, blue = np.moveaxis(curve((light @ _TO_2020.T).clip(0)), -1, 0)
    luma = np.stack([red, green, blue], -1) @ _LUMINANCE
    chroma = [(blue - luma) / 1.8814, (red - luma) / 1.4746]
    planes = [64 + 876 * luma, *(512 + 896 * plane[::2, ::2] for plane in chroma)]
    joined = np.concatenate([plane.round().astype(np.uint16).reshape(-1, luma.shape[1]) for plane in planes])
    return np.repeat(joined[None], count, 0)
