"""Opens animations (gif, webp, apng), single images, and folders of images, with Pillow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fatezero.data.source import ON_WHITE, Frame, Source, on_white
from fatezero.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
ANIMATION_SUFFIXES = (".gif", ".webp", ".apng", ".png")
_ORIENTATION = 0x0112  # the EXIF tag; values above 4 swap rows and columns


def open_animation(path: Path) -> Source:
    """Reads the size and the frame times of an image file; a still image is a clip of one frame.

    A duration of 10 ms or less means 100 ms, as in every browser.

    Raises:
        UserError: not an image, or damaged.
    """
    with _opened(path) as image:
        durations, transparent, size = [], False, _size(image)
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
            duration = float(image.info.get("duration") or 0)
            durations.append(duration if duration > 10 else 100.0)
            transparent |= _shows_through(image)
    times = tuple(total / 1000 for total in accumulate(durations[:-1], initial=0.0))
    fps = 1000 * len(durations) / sum(durations) if len(durations) > 1 else None

    def decode(indices: Sequence[int]) -> Iterator[Frame]:
        with _opened(path) as image:
            for index in indices:
                image.seek(index)
                yield _to_rgb(path, image)

    notes = ("Decoded by Pillow.", ON_WHITE) if transparent else ("Decoded by Pillow.",)
    return Source(path, size[1], size[0], times, sum(durations) / 1000, fps, decode, notes)


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
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip rather than scale
        grey = np.clip(np.asarray(image) // 256, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    upright = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        return on_white(np.asarray(upright.convert("RGBA")))
    return np.asarray(upright.convert("RGB"))


def _size(image: Image.Image) -> tuple[int, int]:
    swaps = image.getexif().get(_ORIENTATION, 1) > 4
    return (image.height, image.width) if swaps else image.size


def _natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.findall(r"\d+|\D+", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Pillow's image; its errors, of many types for damaged files, become sentences."""
    try:
        with Image.open(path) as image:
            yield image
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not an image or is damaged ({error}); copy or download it again.") from error
