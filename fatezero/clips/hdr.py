"""High dynamic range and wide gamuts, shown as a screen of standard range shows them (BT.709 colours, sRGB's curve).

Light is relative to the white of standard range: for PQ 203 cd/m² (ITU-R BT.2408), for HLG a quarter of the most that
a camera records (the signal 0.74; BT.2408 has 0.75). That white comes out white, what is darker keeps its place below
it, and what is brighter is clipped, its hue kept. HLG is converted by the light of the scene (BT.2390), as the same
camera would have recorded it in standard range; not by that of a screen for HDR, which makes colours darker.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from fatezero.clips.source import Frame

_PQ_WHITE = 203.0  # cd/m²
_HLG_WHITE = 0.25  # of the brightest scene light
_LEVELS = 2**16
# Numbers of ITU-T H.273.
PQ, HLG = 16, 18
_BT709, _BT2020, _P3_DCI, _P3_D65 = 1, 9, 11, 12
_CURVES = {PQ: "PQ", HLG: "HLG"}
_GAMUTS = {_BT2020: "BT.2020", _P3_DCI: "DCI-P3", _P3_D65: "Display P3"}
# Chromaticities x, y of red, green, blue and white.
_CHROMATICITIES = {
    _BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), (0.3127, 0.3290)),
    _BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290)),
    _P3_DCI: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    _P3_D65: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290)),
}


@dataclass(frozen=True)
class Colours:
    """How a file's red, green and blue are meant.

    Attributes:
        transfer: the curve, as H.273 numbers it.
        primaries: the gamut, likewise.
        white: the code value of 16 bits that stands for 1.
    """

    transfer: int
    primaries: int
    white: int

    @property
    def standard(self) -> bool:
        """Whether they are shown as they are."""
        return self.transfer not in _CURVES and self.primaries not in _GAMUTS

    @property
    def note(self) -> str:
        """What is done to them."""
        gamut = _GAMUTS.get(self.primaries, "BT.709")
        if self.transfer in _CURVES:
            curve = _CURVES[self.transfer]
            return f"HDR ({curve}, {gamut}) shown as SDR: what is brighter than SDR's white is clipped."
        return f"Colours of {gamut} shown in BT.709: more saturated ones are clipped."

    def shown(self, rgb: npt.NDArray[np.uint16]) -> Frame:
        """Code values H,W,3 of 16 bits as a standard screen's of 8."""
        light = _light(self.transfer, self.white)[rgb]
        if self.primaries in _GAMUTS:
            light = light @ _to_bt709(self.primaries).T
        np.maximum(light, 0, out=light)
        light /= np.maximum(light.max(axis=-1, keepdims=True), 1)
        codes: Frame = _code_values()[np.rint(np.sqrt(light) * (_LEVELS - 1)).astype(np.uint16)]
        return codes


@cache
def _light(transfer: int, white: int) -> npt.NDArray[np.float32]:
    """Light of each code value of 16 bits, 1 at white."""
    code = np.minimum(np.arange(_LEVELS) / white, 1)
    curve = {PQ: _pq, HLG: _hlg}.get(transfer, _srgb)
    return curve(code).astype(np.float32)


def _pq(code: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """SMPTE ST 2084, EOTF."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = code ** (1 / m2)
    return (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) * 10_000 / _PQ_WHITE


def _hlg(code: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """ITU-R BT.2100, inverse OETF."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12) / _HLG_WHITE


def _srgb(code: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IEC 61966-2-1."""
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


@cache
def _code_values() -> npt.NDArray[np.uint8]:
    """8 bits for each root of light in 65536 steps: roots keep dark shades apart."""
    light = np.linspace(0, 1, _LEVELS) ** 2
    code = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    codes: npt.NDArray[np.uint8] = np.rint(255 * code).astype(np.uint8)
    return codes


@cache
def _to_bt709(primaries: int) -> npt.NDArray[np.float32]:
    matrix = np.linalg.inv(_to_xyz(_BT709)) @ _to_xyz(primaries)
    return matrix.astype(np.float32)


def _to_xyz(primaries: int) -> npt.NDArray[np.float64]:
    """From linear RGB to XYZ (SMPTE RP 177), with BT.709's white for all: DCI's own is greenish, but shown as white."""
    xyz = np.array([(x / y, 1, (1 - x - y) / y) for x, y in _CHROMATICITIES[primaries]])
    white = np.array(_CHROMATICITIES[_BT709][3])
    white_xyz = np.array((white[0] / white[1], 1, (1 - white.sum()) / white[1]))
    colours = xyz[:3].T
    return colours * np.linalg.solve(colours, white_xyz)
