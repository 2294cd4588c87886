"""What a player shows of an image's pixels: upright, in sRGB, on white; and the notes that say so."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageFile

from fatezero.clips.source import Frame, on_white
from fatezero.errors import UserError
from fatezero.system.terminal import printable, shortened

_ORIENTATION = 0x0112  # the EXIF tag
_SWAPPING = (5, 6, 7, 8)  # its values that swap rows and columns
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PROFILED = {"GRAY": "L", "RGB ": "RGB", "CMYK": "CMYK"}  # Pillow's mode of the colours that an ICC profile describes
_GREY = ("1", "L", "LA", "La")
_GREY_KEYS = {"1": 255, "L;2": 85, "L;4": 17}  # what Pillow multiplies few bits by, and the key only of late, or not
_ROUNDING = 2  # levels by which the many profiles that are called sRGB differ from each other
_DAMAGED = "The file's colour profile is damaged or of other colours: it is ignored."
_NO_CMYK = "CMYK colours are converted without a profile, since the file has none that fits: they are approximate."


def mend_key(path: Path, image: ImageFile.ImageFile) -> None:
    """Bring the transparent colour of a PNG to the levels that Pillow gives its pixels.

    Raises:
        UserError: it has 16 bits, of which Pillow's pixels keep 8.
    """
    key, stored = image.info.get("transparency"), str(image.tile[0][3]) if image.tile else ""
    if image.format != "PNG" or key is None:
        return
    if stored.startswith("RGB;16"):
        raise UserError(f"{path} names a transparent colour of 16 bits; save it with an alpha channel, or 8 bits.")
    if isinstance(key, int) and stored in _GREY_KEYS:
        image.info["transparency"] = min(255, key * _GREY_KEYS[stored])


def notes_of(image: ImageFile.ImageFile) -> Iterator[str]:
    """A sentence for each thing that `to_rgb` will do, by what the header of an opened image says."""
    if image.format == "PNG" and any(";16" in str(tile) for tile in image.tile):
        yield "16 bits a colour are reduced to 8."
    if _orientation(image) != 1:
        yield "Turned or mirrored to stand upright, as the image's EXIF data says."
    yield from _conversion(image).notes


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width as shown."""
    return (image.width, image.height) if _orientation(image) in _SWAPPING else (image.height, image.width)


def shows_through(image: Image.Image) -> bool:
    """Whether a decoded frame has pixels that are not opaque."""
    return image.has_transparency_data and bool(_alpha(image).min() < 255)


def to_rgb(path: Path, image: Image.Image) -> Frame:
    """The current frame as it is shown, uint8 H,W,3 RGB.

    Raises:
        UserError: its numbers have no known range.
    """
    if image.has_transparency_data:
        return upright(on_white(to_rgba(path, image)), image)
    return upright(_colours(path, image), image)


def to_rgba(path: Path, image: Image.Image) -> npt.NDArray[np.uint8]:
    """The current frame in sRGB as it is stored, H,W,4, colours not multiplied by alpha.

    Raises:
        UserError: its numbers have no known range.
    """
    opaque = np.full((image.height, image.width), 255, np.uint8)
    return np.dstack([_colours(path, image), _alpha(image) if image.has_transparency_data else opaque])


def upright(frame: Frame, image: Image.Image) -> Frame:
    """A frame of an image, turned or mirrored as its EXIF data says."""
    turn = _UPRIGHT.get(_orientation(image))
    return frame if turn is None else np.asarray(Image.fromarray(frame).transpose(turn))


def _colours(path: Path, image: Image.Image) -> Frame:
    if image.mode == "F":
        raise UserError(f"{path} holds floating-point values of unknown range; save it with 8 bits.")
    return np.asarray(_conversion(image).apply(_eight_bits(image)))


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey, which Pillow would clip, by its upper byte, as Pillow reads 16-bit colours; palettes looked up."""
    if image.mode == "P":
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray(np.clip(np.asarray(image) // 256, 0, 255).astype(np.uint8))


def _alpha(image: Image.Image) -> npt.NDArray[np.uint8]:
    """H,W: 0 shows all of what is behind."""
    key = image.info.get("transparency")
    if isinstance(key, int) and image.mode != "P":  # one grey level
        levels = image if image.mode.startswith("I") else image.convert("L")
        return np.where(np.asarray(levels) == key, 0, 255).astype(np.uint8)
    return np.asarray(image.convert("RGBA").getchannel("A"))


def _orientation(image: Image.Image) -> int:
    """How the camera was held, as EXIF states it; 1, upright, for a value that EXIF does not know."""
    with settled_warnings():
        stated = image.getexif().get(_ORIENTATION)
    return stated if isinstance(stated, int) and stated in _UPRIGHT else 1


@dataclass(frozen=True)
class _Conversion:
    """How an image's colours become sRGB, and what is said of it."""

    apply: Callable[[Image.Image], Image.Image]
    notes: tuple[str, ...] = ()


def _conversion(image: Image.Image) -> _Conversion:
    grey = image.mode in _GREY or image.mode.startswith("I")
    mode = "CMYK" if image.mode == "CMYK" else "L" if grey else "RGB"
    profile = image.info.get("icc_profile")
    if profile or "icc_profile" not in image.info:
        return _profiled(profile or b"", mode)
    return _plain(mode, _DAMAGED)  # Pillow could not put its parts together


def _plain(mode: str, *notes: str) -> _Conversion:
    return _Conversion(lambda image: image.convert("RGB"), (*notes, _NO_CMYK) if mode == "CMYK" else notes)


@lru_cache(maxsize=16)
def _profiled(profile: bytes, mode: str) -> _Conversion:
    """By an ICC profile, of grey, RGB or CMYK colours; plainly where there is none, or it changes nothing."""
    if not profile:
        return _plain(mode)
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        described = _PROFILED.get(source.profile.xcolor_space, "")
        if described != mode and (described, mode) != ("RGB", "L"):
            return _plain(mode, _DAMAGED)
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), described, "RGB")
        name = shortened(printable(" ".join((source.profile.profile_description or "its own").split())), 60)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # whatever the library makes of damaged bytes
        return _plain(mode, _DAMAGED)

    def convert(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image.convert(described), transform)
        return converted if converted is not None else image

    if described != "CMYK" and _changes_little(convert, described):
        return _plain(mode)
    return _Conversion(convert, (f"Colours are converted from {name} to sRGB, by the file's profile.",))


def _changes_little(convert: Callable[[Image.Image], Image.Image], mode: str) -> bool:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    levels = np.array([*product(range(0, 256, 15), repeat=3)], np.uint8)[None]
    shown = grey if mode == "L" else np.hstack([grey, levels])
    change = np.asarray(convert(Image.fromarray(shown))).astype(int) - shown
    return bool(np.abs(change).max() <= _ROUNDING)


@contextmanager
def settled_warnings() -> Iterator[None]:
    """What Pillow warns of is bounded here (sizes), or no part of the picture (EXIF); a lost animation is damage."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.filterwarnings("error", message="Invalid APNG", module=r"PIL\.")
        yield
