"""Opens animations (gif, webp, apng), single images, and folders of images, with Pillow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError

from fatezero.clips.animated_png import Rgba, composed_frames
from fatezero.clips.image_colours import (
    mend_key,
    notes_of,
    settled_warnings,
    shows_through,
    to_rgb,
    upright,
    upright_size,
)
from fatezero.clips.source import (
    MAX_PIXELS,
    MAX_SIDE,
    ON_WHITE,
    Frame,
    Source,
    check_frame_size,
    naming,
    on_white,
    undecodable,
)
from fatezero.clips.wholeness import gif_frames, webp_frames
from fatezero.data.files import MAX_IMAGE_FILE
from fatezero.errors import UserError
from fatezero.system.terminal import printable, shortened

ReadImage = Callable[[Path, Image.Image], Frame]  # what is made of an image that is no animation
_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WebP"}  # of a folder's frames
_UNREAD = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".tga", ".exr")
IMAGE_SUFFIXES = tuple(_KINDS)
# Of files that are clips each, by which a folder of clips is told from a folder of images, which is one clip.
CLIP_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg"),
    *(".vob", ".flv", ".wmv", ".asf", ".ogv", ".mxf", ".ivf", ".h264", ".hevc", ".y4m", ".gif", ".apng"),
)
ANIMATION_SUFFIXES = (".gif", ".webp", ".apng", ".png", *_UNREAD)  # of files that are images, read or not
# Of an animation, which is decoded as a whole already to know its times.
MAX_ANIMATION_FRAMES = 20_000  # a quarter of an hour at 25 a second; seconds of work even if they are tiny
MAX_ANIMATION_PIXELS = 2_000_000_000  # of all frames: 960 of 1920 x 1080; ten seconds of work or so

_IMAGE = "an image"
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")  # Pillow knows others that start programs or have no bounds
_ANIMATED = ("PNG", "WEBP", "GIF")  # a JPEG can hold further pictures that are no frames
_NAMES = {"WEBP": "WebP", "MPO": "JPEG"}
_FROM_SYSTEMS = ("thumbs.db", "ehthumbs.db", "desktop.ini")  # beside hidden files
_READ = ", ".join(_NAMES.get(name, name) for name in _FORMATS)
_SLOWED = "Frames that are to last 10 ms or less last 100 ms, as in every browser."


def open_animation(path: Path, read: ReadImage = to_rgb) -> Source:
    """Reads the size and the frame times of an image file; a still image is a clip of one frame.

    A duration of 10 ms or less means 100 ms, as in every browser. An animated PNG's picture for programs that know no
    animations is no frame, unless the file says so.

    Args:
        path: of the file.
        read: what is made of a still image.

    Raises:
        UserError: not an image, damaged, or too large.
    """
    with _opened(path) as image:
        notes = [*notes_of(image)]
        height, width = upright_size(image)
        count = _frame_count(path, image)
        drawn = [(frame.milliseconds, frame.seen_through()) for frame in _frames(path, image, count)]
        kind = f"{_NAMES.get(str(image.format), image.format)} {'image' if len(drawn) == 1 else 'animation'}"
    stated = [milliseconds for milliseconds, _ in drawn]
    durations = [duration if duration > 10 else 100.0 for duration in stated]
    times = tuple(total / 1000 for total in accumulate(durations[:-1], initial=0.0))
    fps = 1000 * len(durations) / sum(durations) if len(durations) > 1 else None
    notes += [_SLOWED] if fps and durations != stated else []
    notes += [ON_WHITE] if any(seen_through for _, seen_through in drawn) else []

    def decode(indices: Sequence[int]) -> Iterator[Frame]:
        with _opened(path) as image:
            frames, position, frame = _frames(path, image, count), -1, None
            for index in indices:
                while position < index:
                    frame, position = next(frames), position + 1
                if frame is not None:
                    yield frame.show() if count > 1 else read(path, image)

    return Source(path, kind, height, width, times, sum(durations) / 1000, fps, decode, _reader, tuple(notes))


def _reader(_: Sequence[int]) -> str:
    return "Decoded by Pillow."


@dataclass(frozen=True)
class _Drawn:
    """A frame, until the next is asked for."""

    milliseconds: float
    seen_through: Callable[[], bool]
    show: Callable[[], Frame]


def _frames(path: Path, image: Image.Image, count: int) -> Iterator[_Drawn]:
    """All frames that are shown, in order.

    Raises:
        UserError: the file is damaged, or holds fewer or larger frames than it says.
    """
    if image.format == "PNG" and count > 1:
        yield from _composed(path, image, count - bool(image.info.get("default_image")))
        return
    stored = image.size
    for index in range(count):
        image.seek(index)
        check_frame_size(path, image.height, image.width)
        image.load()
        if image.size != stored:
            raise UserError(f"{path}: frame {index} is larger than the first; save it anew at one size.")
        stated = float(image.info.get("duration") or 0)
        yield _Drawn(stated, partial(shows_through, image), partial(to_rgb, path, image))


def _composed(path: Path, image: Image.Image, promised: int) -> Iterator[_Drawn]:
    found = 0
    for rgba, milliseconds in composed_frames(path, image.height, image.width):
        found += 1
        yield _Drawn(milliseconds, partial(_is_translucent, rgba), partial(_upright_on_white, rgba, image))
    if found != promised:
        raise UserError(
            f"{path} is damaged: it promises {promised} frames but holds {found}; copy or download it again."
        )


def _is_translucent(rgba: Rgba) -> bool:
    return bool(rgba[..., 3].min() < 255)


def _upright_on_white(rgba: Rgba, image: Image.Image) -> Frame:
    return upright(on_white(rgba), image)


def _frame_count(path: Path, image: Image.Image) -> int:
    """How many frames an image file holds, refused before they are decoded if they are too much."""
    if image.format not in _ANIMATED:
        return 1
    match image.format:
        case "GIF":
            count = gif_frames(path, MAX_ANIMATION_FRAMES)
        case "WEBP":
            count = webp_frames(path)
        case _:
            count = getattr(image, "n_frames", 1)
    if count > MAX_ANIMATION_FRAMES or count * image.width * image.height > MAX_ANIMATION_PIXELS:
        raise UserError(
            f"{path} is too large for an animation of {image.width}x{image.height} pixels (at most "
            f"{MAX_ANIMATION_FRAMES} frames and {MAX_ANIMATION_PIXELS // 10**9} billion pixels in all); "
            "convert it to mp4 or webm."
        )
    return count


def open_folder(folder: Path, read: ReadImage = to_rgb) -> Source:
    """Lists the images of a folder in natural order (2 before 10), leaving out hidden and other files.

    Args:
        folder: of images.
        read: what is made of each.

    Raises:
        UserError: no image in it, images of several types or sizes, or one that cannot be read.
    """
    visible = [path for path in folder.iterdir() if path.name[0] != "." and path.name.lower() not in _FROM_SYSTEMS]
    images = sorted((path for path in visible if path.suffix.lower() in _KINDS), key=_natural_order)
    kind = _only_kind(folder, images, visible)
    (height, width), notes = _size_and_notes(images)
    notes = [*notes, *_left_out(sorted(set(visible) - set(images))), *_gaps(images)]

    def decode(indices: Sequence[int]) -> Iterator[Frame]:
        for index in indices:
            with _opened(images[index]) as image:
                yield read(images[index], image)

    count = len(images)
    said = f"folder of {count} {kind} image{'s' if count > 1 else ''}"
    times = tuple(map(float, range(count)))
    return Source(folder, said, height, width, times, float(count), None, decode, _reader, tuple(notes))


def _only_kind(folder: Path, images: Sequence[Path], visible: Sequence[Path]) -> str:
    """What all images of a folder are.

    Raises:
        UserError: there are none, or of several kinds.
    """
    if not images:
        videos = [path.name for path in visible if path.suffix.lower() in CLIP_SUFFIXES]
        if videos:
            raise UserError(
                f"{folder} holds videos ({shortened(', '.join(sorted(videos)), 80)}) and no images: name one of them, "
                "or list them in a manifest."
            )
        unread = sorted({path.suffix.lower() for path in visible} & {*_UNREAD})
        but = f", but {' and '.join(unread)} files: convert them to PNG" if unread else "; name a folder of frames"
        raise UserError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}){but}.")
    kinds = sorted({_KINDS[path.suffix.lower()] for path in images})
    if len(kinds) > 1:
        raise UserError(f"{folder} mixes {' and '.join(kinds)} images; keep the frames alone in it.")
    return kinds[0]


def _size_and_notes(images: Sequence[Path]) -> tuple[tuple[int, int], list[str]]:
    """Height and width of all images of a folder, by their headers, and what will be done to their pixels.

    Raises:
        UserError: they differ in size, or one is an animation.
    """
    size, notes = (0, 0), dict[str, None]()
    for path in images:
        with _opened(path) as image:
            notes |= dict.fromkeys(notes_of(image))
            if image.has_transparency_data:
                notes[ON_WHITE] = None
            if image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1:
                raise UserError(f"{path} is an animation, not a frame; name it as the clip, or take it out.")
            own = upright_size(image)
            size = own if path == images[0] else size
            if own != size:
                raise UserError(
                    f"{path} is {own[1]}x{own[0]} but {images[0].name} is {size[1]}x{size[0]}; "
                    "bring the images of a clip to one size."
                )
    return size, list(notes)


def _left_out(others: Sequence[Path]) -> Iterator[str]:
    if others:
        names = shortened(printable(", ".join(path.name for path in others)), 200)
        yield f"Left out of the folder, since no images are read from them: {names}."


def _gaps(images: Sequence[Path]) -> Iterator[str]:
    """A note where images are numbered by one step, and some numbers are missing."""
    parts = [re.split(r"(\d+)", path.stem) for path in images]
    if len({tuple(words[:-2]) for words in parts}) > 1 or any(len(words) < 2 for words in parts):
        return
    numbers = [int(words[-2]) for words in parts]
    steps = [after - before for before, after in pairwise(numbers)]
    wide = [place for place, step in enumerate(steps) if step > min(steps)]
    if wide and min(steps) > 0:
        before, after = images[wide[0]].name, images[wide[0] + 1].name
        more = f", and {len(wide) - 1} more" if len(wide) > 1 else ""
        yield printable(
            f"Numbers are missing (between {before} and {after}{more}): images follow each other all the same."
        )


def _natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.findall(r"\d+|\D+", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Pillow's image, of a format and size that are let in; its errors become sentences."""
    with naming(path, _IMAGE):
        if not path.is_file():  # opening a pipe would wait for its writer
            raise UserError(f"{path} is not a regular file; take it out of the folder, or name an image.")
        if path.stat().st_size > MAX_IMAGE_FILE:
            raise UserError(f"{path} has more than {MAX_IMAGE_FILE >> 20} MiB; convert it to mp4 or webm.")
        if path.suffix.lower() in _UNREAD:
            raise UserError(f"{path}: {path.suffix} files are not read, only {_READ}; convert it to PNG.")
        try:
            with settled_warnings():
                opened = Image.open(path, formats=_FORMATS)
        except UnidentifiedImageError as error:
            raise undecodable(path, _IMAGE, f"only {_READ} are read") from error
        except Image.DecompressionBombError:
            raise UserError(
                f"{path} has too many pixels (at most {MAX_PIXELS // 10**6} million, no side above {MAX_SIDE}); scale "
                "it down with another program first."
            ) from None
        with opened as image:
            check_frame_size(path, image.height, image.width)
            mend_key(path, image)
            yield image
