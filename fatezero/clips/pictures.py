"""What a player makes of a decoded frame: upright, mirrored, of square pixels, in the colours of an ordinary screen."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fatezero.clips.hdr import Colours
from fatezero.clips.source import ON_WHITE, Frame, on_white
from fatezero.errors import UserError

_UNCONVERTED = {10: "BT.2020 of constant luminance", 13: "constant luminance", 14: "ICtCp"}  # H.273 matrices
_FULL_RANGE = 2
_WIDEST = 64  # shape of a pixel; cameras stay below 3


@dataclass(frozen=True)
class Orientation:
    """How a stored picture is turned for display.

    Attributes:
        transposed: rows become columns, before the rest.
        mirrored: left and right change places.
        flipped: top and bottom change places.
    """

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False

    @property
    def note(self) -> str | None:
        """What is done; None where nothing is."""
        turns = {
            (False, True, True): "Turned by 180 degrees clockwise",
            (True, True, False): "Turned by 90 degrees clockwise",
            (True, False, True): "Turned by 270 degrees clockwise",
            (False, True, False): "Mirrored",
            (False, False, True): "Turned by 180 degrees clockwise and mirrored",
            (True, False, False): "Turned by 90 degrees clockwise and mirrored",
            (True, True, True): "Turned by 270 degrees clockwise and mirrored",
        }
        done = turns.get((self.transposed, self.mirrored, self.flipped))
        return done and f"{done}, as the file says."

    def shown(self, picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The picture H,W,… upright."""
        turned = picture.swapaxes(0, 1) if self.transposed else picture
        return turned[:: -1 if self.flipped else 1, :: -1 if self.mirrored else 1]


@dataclass(frozen=True)
class Look:
    """How frames of a file are shown.

    Attributes:
        stored: height and width of a decoded frame.
        height: rows as shown.
        width: columns as shown.
        pixels: width of a pixel by its height.
        orientation: how it is turned, after pixels are made square.
        colours: curve and gamut.
        alpha: some pixels may be transparent.
    """

    stored: tuple[int, int]
    height: int
    width: int
    pixels: Fraction
    orientation: Orientation
    colours: Colours
    alpha: bool

    def notes(self) -> Iterator[str]:
        """A sentence for each thing that is done."""
        if self.orientation.note:
            yield self.orientation.note
        if self.pixels != 1:
            shape = f"{self.pixels.numerator}:{self.pixels.denominator}"
            yield f"Pixels of shape {shape} made square: shown at {self.width}x{self.height}."
        if not self.colours.standard:
            yield self.colours.note
        if self.alpha:
            yield ON_WHITE

    def of_frame(self, frame: Any) -> Frame:
        """A decoded frame as shown, uint8 H,W,3 RGB."""
        if not self.colours.standard:
            return self.of_rgb(self.colours.shown(frame.to_ndarray(format="rgb48le")))
        if self.alpha:
            return self.of_rgb(on_white(frame.to_ndarray(format="rgba")))
        return self.of_rgb(frame.to_ndarray(format="rgb24"))

    def of_rgb(self, rgb: Frame) -> Frame:
        """A frame H,W,3 in the colours of an ordinary screen, but as it is stored, as shown."""
        if self.pixels != 1:
            height, width = _square(*self.stored, self.pixels)
            rgb = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))
        return self.orientation.shown(rgb)


def look_of(path: Path, stream: Any, first: Any) -> Look:
    """How a stream's frames are shown, from its first.

    Raises:
        UserError: its colours or the shape of its pixels are not known here.
    """
    if first.colorspace in _UNCONVERTED:
        coded = _UNCONVERTED[first.colorspace]
        raise UserError(f"{path}: its colours are coded as {coded}, which is not converted; re-encode it as BT.709.")
    pixels = Fraction(stream.sample_aspect_ratio or 1)
    if not 1 / _WIDEST <= pixels <= _WIDEST:
        raise UserError(f"{path}: its pixels are {pixels} as wide as high, which no camera makes; re-encode it.")
    orientation = _orientation(path, first)
    height, width = _square(first.height, first.width, pixels)
    if orientation.transposed:
        height, width = width, height
    colours = Colours(int(first.color_trc or 0), int(first.color_primaries or 0), _white(first))
    alpha = any(component.is_alpha for component in first.format.components)
    return Look((first.height, first.width), height, width, pixels, orientation, colours, alpha)


def _white(frame: Any) -> int:
    """What swscale makes of a format's white in 16 bits."""
    if frame.format.is_rgb or frame.color_range == _FULL_RANGE:
        return 0xFFFF
    return 0xFDFD if frame.format.components[0].bits == 8 else 0xFF03


def _square(height: int, width: int, pixels: Fraction) -> tuple[int, int]:
    """The size in square pixels: the height stays."""
    return height, max(1, round(width * pixels))


def _orientation(path: Path, frame: Any) -> Orientation:
    """What the display matrix says, whose rows are the images of the axes x (right) and y (down) in 16.16 numbers."""
    sides = [bytes(side) for side in frame.side_data if side.type.name == "DISPLAYMATRIX"]
    if not sides:
        return Orientation()
    across_x, across_y, _, down_x, down_y = struct.unpack("=5i", sides[0][:20])
    if across_x and down_y and not across_y and not down_x:
        return Orientation(False, across_x < 0, down_y < 0)
    if across_y and down_x and not across_x and not down_y:
        return Orientation(True, down_x < 0, across_y < 0)
    raise UserError(
        f"{path} asks to be turned by an odd angle, or sheared, which is not done here; re-encode it upright."
    )
