"""Masks as annotators write them: numbered objects, zeros and ones, black and white, or runs of pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fatezero.clips.image_colours import upright
from fatezero.clips.opening import is_still, open_source
from fatezero.clips.source import Frame, Source
from fatezero.errors import UserError
from fatezero.system.terminal import shortened
from fatezero.types import MaskSpec

RUNS_SIDE = 512  # of the images whose pixels runs count
_LOSSY = ("JPEG", "MPO", "WEBP")  # whose levels are near what was meant, and no numbers
_DARK = 127  # of 255; of 16 bits:
_DARK_16 = 32767
_COLOURFUL = 63  # of 255, by which the channels of a pixel differ that is meant to have a colour

Inside = npt.NDArray[np.bool_]  # H,W


@dataclass(frozen=True)
class _Numbered:
    """What numbers the pixels of a picture.

    Attributes:
        numbers: H,W whole numbers.
        marks: H,W, pixels of any object; None where that follows from the levels of the whole mask.
    """

    numbers: npt.NDArray[np.integer]
    marks: Inside | None


def open_mask(mask: MaskSpec) -> Source:
    """A mask as a source of frames, 255 inside and 0 outside.

    Raises:
        UserError: it cannot be read, or has not all of the objects that are asked for.
    """
    if mask.runs is not None:
        return _of_runs(mask.runs)
    source = open_source(mask.path)
    if not is_still(source):
        if mask.objects:
            raise UserError(f"{mask.path} is a video, which numbers no objects: leave objects out, or give pictures.")
        return replace(source, decode=partial(_bright, source.decode))
    numbers = _numbers_of(mask)
    absent = sorted({*mask.objects} - numbers)
    if absent:
        held = shortened(", ".join(map(str, sorted(numbers - {0}))), 200) or "none"
        raise UserError(f"{mask.path} has no object {absent[0]} in any frame; its numbers are: {held}.")
    return open_source(mask.path, read=partial(_read_inside, mask.objects, _level_of(max(numbers, default=0))))


def _level_of(largest: int) -> int:
    """Above which level a pixel is inside, by the largest of the whole mask: numbers fill no more than half the range.

    Of 16 bits as of 8, whose masks programs also save in 16.
    """
    if _DARK < largest <= 2 * _DARK + 1:
        return _DARK
    return _DARK_16 if largest > _DARK_16 else 0


def _bright(decode: Callable[[Sequence[int]], Iterator[Frame]], indices: Sequence[int]) -> Iterator[Frame]:
    for frame in decode(indices):
        yield _shown(_is_marked(Image.fromarray(frame)))


def _is_marked(image: Image.Image) -> Inside:
    """Pixels that are brighter than half, or of a strong colour, which may be dark."""
    colours = np.asarray(image.convert("RGB"))
    spread = colours.max(axis=2) - colours.min(axis=2)
    marked: Inside = (np.asarray(image.convert("L")) > _DARK) | (spread > _COLOURFUL)
    return marked


def _numbers_of(mask: MaskSpec) -> set[int]:
    """All numbers that a mask's pictures hold.

    Raises:
        UserError: objects are asked for, and a picture holds none.
    """
    found: set[int] = set()

    def note(path: Path, image: Image.Image) -> Frame:
        numbered = _numbered(image)
        if numbered is not None:
            found.update(np.unique(numbered.numbers).tolist())
        elif mask.objects:
            raise UserError(f"{path} has colours, which number no objects: leave objects out, or number its pixels.")
        return _shown(np.zeros((1, 1), bool))

    source = open_source(mask.path, read=note)
    for _ in source.decode(range(len(source.times))):
        pass
    return found


def _read_inside(objects: Sequence[int], level: int, path: Path, image: Image.Image) -> Frame:  # noqa: ARG001  (a reader)
    numbered = _numbered(image)
    if numbered is None:
        lossy = image.format in _LOSSY
        inside = _is_marked(image) if lossy else np.asarray(image.convert("RGB")).max(axis=2) > 0
    elif objects:
        inside = np.isin(numbered.numbers, objects)
    else:
        inside = numbered.numbers > level if numbered.marks is None else numbered.marks
    if image.has_transparency_data:
        inside &= np.asarray(image.convert("RGBA").getchannel("A")) > _DARK
    return upright(_shown(inside), image)


def _numbered(image: Image.Image) -> _Numbered | None:
    """What numbers a still image's pixels; None where they are colours, or near what was meant only."""
    if image.format in _LOSSY:
        return None
    if image.mode == "P":
        indices, palette = np.asarray(image), np.zeros((256, 3), np.uint8)
        colours = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        palette[: len(colours)] = colours
        if (palette == palette[:, :1]).all():
            return _Numbered(palette[:, 0][indices], None)
        coloured = (palette.max(axis=1) > 0)[indices]
        return _Numbered(indices, indices != 0 if coloured.all() else coloured)
    if image.mode in {"RGB", "RGBA"}:
        colours = np.asarray(image)[..., :3]
        return _Numbered(colours[..., 0], None) if (colours == colours[..., :1]).all() else None
    grey = image.getchannel(0) if image.mode == "LA" else image
    return _Numbered(np.asarray(grey).astype(np.int64), None)


def _shown(inside: Inside) -> Frame:
    return np.repeat(inside.astype(np.uint8)[..., None] * 255, 3, axis=2)


def _of_runs(runs: Sequence[int]) -> Source:
    """The frame that runs of pixels make; what leads out of it is cut, as by PnPInversion's `mask_decode`.

    Raises:
        UserError: they are no pairs, or begin beyond it.
    """
    pixels = np.zeros(RUNS_SIDE * RUNS_SIDE, bool)
    for start, length in zip(runs[::2], runs[1::2], strict=False):
        pixels[start : start + length] = True
    if len(runs) % 2 or any(start >= len(pixels) for start in runs[::2]):
        raise UserError(
            f"The mask's runs are not starts and lengths in {RUNS_SIDE} x {RUNS_SIDE} pixels: take them as "
            "PIE-Bench's mapping_file.json has them."
        )
    frame = _shown(pixels.reshape(RUNS_SIDE, RUNS_SIDE))
    return Source(
        path=Path("mask_rle"),
        kind="runs of pixels",
        height=RUNS_SIDE,
        width=RUNS_SIDE,
        times=(0.0,),
        duration=1.0,
        fps=None,
        decode=lambda indices: (frame for _ in indices),
        reader=lambda _: "Decoded from runs.",
        notes=(),
    )
