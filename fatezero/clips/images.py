"""Opens animations (gif, webp, apng), single images, and folders of images, with Pillow."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fatezero.clips.source import ON_WHITE, Frame, Source, check_frame_size, naming, on_white, undecodable
from fatezero.clips.wholeness import gif_frames
from fatezero.data.files import MAX_IMAGE_FILE
from fatezero.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
ANIMATION_SUFFIXES = (".gif", ".webp", ".apng", ".png")
# Of an animation, which is decoded as a whole already to know its times.
MAX_ANIMATION_FRAMES = 20_000  # a quarter of an hour at 25 a second; seconds of work even if they are tiny
MAX_ANIMATION_PIXELS = 2_000_000_000  # of all frames: 960 of 1920 x 1080; ten seconds of work or so

_IMAGE = "an image"
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")  # Pillow knows others that start programs or have no bounds
_ANIMATED = ("PNG", "WEBP", "GIF")  # a JPEG can hold further pictures that are no frames
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


def open_animation(path: Path) -> Source:
    """Reads the size and the frame times of an image file; a still image is a clip of one frame.

    A duration of 10 ms or less means 100 ms, as in every browser.

    Raises:
        UserError: not an image, damaged, or too large.
    """
    with _opened(path) as image:
        durations, transparent = [], False
        count = _frame_count(path, image)
        size, stored = _size(image), image.size
        for index in range(count):
            _seek(path, image, index)
            image.load()
            if image.size != stored:
                raise UserError(f"{path}: frame {index} is larger than the first; save it anew at one size.")
            duration = float(image.info.get("duration") or 0)
            durations.append(duration if duration > 10 else 100.0)
            transparent |= _shows_through(image)
    times = tuple(total / 1000 for total in accumulate(durations[:-1], initial=0.0))
    fps = 1000 * len(durations) / sum(durations) if len(durations) > 1 else None

    def decode(indices: Sequence[int]) -> Iterator[Frame]:
        with _opened(path) as image:
            for index in indices:
                _seek(path, image, index)
                yield _to_rgb(path, image)

    notes = ("Decoded by Pillow.", ON_WHITE) if transparent else ("Decoded by Pillow.",)
    return Source(path, size[1], size[0], times, sum(durations) / 1000, fps, decode, notes)


def _frame_count(path: Path, image: Image.Image) -> int:
    """How many frames an image file holds, refused before they are decoded if they are too much."""
    if image.format not in _ANIMATED:
        return 1
    count = gif_frames(path, MAX_ANIMATION_FRAMES) if image.format == "GIF" else getattr(image, "n_frames", 1)
    if count > MAX_ANIMATION_FRAMES or count * image.width * image.height > MAX_ANIMATION_PIXELS:
        raise UserError(
            f"{path} is too large for an animation of {image.width}x{image.height} pixels (at most "
            f"{MAX_ANIMATION_FRAMES} frames and {MAX_ANIMATION_PIXELS // 10**9} billion pixels in all); "
            "convert it to mp4 or webm."
        )
    return count


def _seek(path: Path, image: Image.Image, index: int) -> None:
    image.seek(index)
    check_frame_size(path, image.height, image.width)


def open_folder(folder: Path) -> Source:
    """Lists the images of a folder in natural order (2 before 10), leaving out hidden and other files.

    Raises:
        UserError: no image in it, images of several types or sizes, or one that cannot be read.
    """
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    images = sorted((path for path in visible if path.suffix.lower() in IMAGE_SUFFIXES), key=_natural_order)
    if not images:
        raise UserError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}); name a folder of frames.")
    suffixes = sorted({path.suffix.lower() for path in images})
    if len(suffixes) > 1:
        raise UserError(f"{folder} mixes {' and '.join(suffixes)} images; keep the frames alone in it.")
    transparent, size = False, (0, 0)
    for path in images:
        with _opened(path) as image:
            transparent |= image.has_transparency_data
            size = size if path is not images[0] else _size(image)
            if _size(image) != size:
                raise UserError(
                    f"{path} is {image.width}x{image.height} but {images[0].name} is {size[0]}x{size[1]}; "
                    "bring the images of a clip to one size."
                )

    def decode(indices: Sequence[int]) -> Iterator[Frame]:
        for index in indices:
            with _opened(images[index]) as image:
                yield _to_rgb(images[index], image)

    notes = ("Decoded by Pillow.", ON_WHITE) if transparent else ("Decoded by Pillow.",)
    times = tuple(map(float, range(len(images))))
    return Source(folder, size[1], size[0], times, float(len(images)), None, decode, notes)


def _shows_through(image: Image.Image) -> bool:
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    return alpha is not None and bool(np.asarray(alpha).min() < 255)


def _to_rgb(path: Path, image: Image.Image) -> Frame:
    if image.mode == "F":
        raise UserError(f"{path} holds floating-point values of unknown range; save it with 8 bits.")
    turn = _UPRIGHT.get(_orientation(image))
    upright = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip rather than scale
        grey = np.clip(np.asarray(upright) // 256, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        return on_white(np.asarray(upright.convert("RGBA")))
    return np.asarray(upright.convert("RGB"))


def _size(image: Image.Image) -> tuple[int, int]:
    return (image.height, image.width) if _orientation(image) in _SWAPPING else image.size


def _orientation(image: Image.Image) -> int:
    """How the camera was held, as EXIF states it; 1, upright, for a value that EXIF does not know."""
    with _settled_warnings():
        stated = image.getexif().get(_ORIENTATION)
    return stated if isinstance(stated, int) and stated in _UPRIGHT else 1


@contextmanager
def _settled_warnings() -> Iterator[None]:
    """What Pillow warns of is bounded here (sizes), or no part of the picture (EXIF); a lost animation is damage."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.filterwarnings("error", message="Invalid APNG", module=r"PIL\.")
        yield


def _natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.findall(r"\d+|\D+", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Pillow's image, of a format and size that are let in; its errors become sentences."""
    with naming(path, _IMAGE):
        if not path.is_file():  # opening a pipe would wait for its writer
            raise UserError(f"{path} is not a regular file; take it out of the folder, or name an image.")
        if path.stat().st_size > MAX_IMAGE_FILE:
            raise UserError(f"{path} has more than {MAX_IMAGE_FILE >> 20} MiB; convert it to mp4 or webm.")
        try:
            with _settled_warnings():
                opened = Image.open(path, formats=_FORMATS)
        except UnidentifiedImageError as error:
            raise undecodable(path, _IMAGE, f"only {', '.join(_FORMATS)} are read") from error
        with opened as image:
            check_frame_size(path, image.height, image.width)
            yield image
