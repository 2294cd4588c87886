"""Frames of an animated PNG, composed as its specification says: Pillow blends half-transparent parts otherwise."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from fatezero.clips.image_colours import mend_key, to_rgba
from fatezero.errors import UserError

Rgba = npt.NDArray[np.uint8]  # H,W,4, colours not multiplied by alpha

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_OF_ALL_PARTS = (b"PLTE", b"tRNS", b"iCCP")
_CONTROL = struct.Struct(">IIIIIHHBB")  # number, width, height, left, top, delay as a fraction, disposal, blending
_TO_NOTHING, _TO_PREVIOUS = 1, 2
_UNSTATED = 100  # denominator of a delay, where it is 0


@dataclass(frozen=True)
class _Part:
    """What changes from one frame to the next, and for how long the frame is shown."""

    width: int
    height: int
    left: int
    top: int
    milliseconds: float
    disposal: int
    blends: bool
    png: bytes  # as an image of its own


def composed_frames(path: Path, height: int, width: int) -> Iterator[tuple[Rgba, float]]:
    """Each frame, H,W,4 in sRGB, valid until the next, and its duration in milliseconds.

    Args:
        path: an animated PNG.
        height: rows of the whole, as stored.
        width: columns.

    Raises:
        UserError: it is damaged.
    """
    canvas = np.zeros((height, width, 4), np.uint8)
    for part in _parts(path):
        if part.top + part.height > height or part.left + part.width > width:
            raise _damaged(path, "a frame reaches beyond its edge")
        region = canvas[part.top : part.top + part.height, part.left : part.left + part.width]
        before = region.copy() if part.disposal == _TO_PREVIOUS else None
        with Image.open(BytesIO(part.png), formats=("PNG",)) as image:
            mend_key(path, image)
            drawn = to_rgba(path, image)
        region[:] = _over(drawn, region) if part.blends else drawn
        yield canvas, part.milliseconds
        if part.disposal == _TO_NOTHING:
            region[:] = 0
        elif before is not None:
            region[:] = before


def _over(drawn: Rgba, below: Rgba) -> Rgba:
    """Alpha compositing (Porter and Duff's over) of colours that are not multiplied by their alpha."""
    if drawn[..., 3].min() == 255:
        return drawn
    above = drawn[..., 3:] / 255
    left = below[..., 3:] / 255 * (1 - above)
    alpha = above + left
    colours = (drawn[..., :3] * above + below[..., :3] * left) / np.maximum(alpha, 1e-9)
    return np.asarray(np.rint(np.concatenate([colours, 255 * alpha], axis=-1)), np.uint8)


def _parts(path: Path) -> Iterator[_Part]:
    shared, size, control, pixels = b"", b"", b"", list[bytes]()
    with path.open("rb") as file:
        file.seek(len(_SIGNATURE))
        for name, content in _chunks(path, file):
            if name in (b"fcTL", b"IEND"):
                if control and pixels:
                    yield _part(path, control, size, shared, pixels)
                control, pixels = content, []
            elif name == b"IHDR":
                size = content
            elif control and name in (b"IDAT", b"fdAT"):
                pixels.append(content if name == b"IDAT" else content[4:])
            elif name in _OF_ALL_PARTS:
                shared += _chunk(name, content)


def _part(path: Path, control: bytes, size: bytes, shared: bytes, pixels: list[bytes]) -> _Part:
    if len(control) != _CONTROL.size or len(size) != 13:
        raise _damaged(path, "a frame's header is not whole")
    _, width, height, left, top, delay, unit, disposal, blends = _CONTROL.unpack(control)
    head = _SIGNATURE + _chunk(b"IHDR", struct.pack(">II", width, height) + size[8:])
    png = head + shared + _chunk(b"IDAT", b"".join(pixels)) + _chunk(b"IEND", b"")
    return _Part(width, height, left, top, 1000 * delay / (unit or _UNSTATED), disposal, blends == 1, png)


def _chunks(path: Path, file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents, up to the end's mark."""
    name = b""
    while name != b"IEND":
        start = file.read(8)
        length, name = int.from_bytes(start[:4]), start[4:]
        content, check = file.read(length), file.read(4)
        if len(check) < 4 or zlib.crc32(name + content) != int.from_bytes(check):
            raise _damaged(path, "it breaks off, or a piece of it is not what was written")
        yield name, content


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged: {reason}; copy or download it again.")
