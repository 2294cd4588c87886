"""Which reader opens a path."""

from __future__ import annotations

from pathlib import Path

from fatezero.clips.decode import open_video
from fatezero.clips.image_colours import to_rgb
from fatezero.clips.images import ANIMATION_SUFFIXES, IMAGE_SUFFIXES, ReadImage, open_animation, open_folder
from fatezero.clips.source import Source
from fatezero.data.remote import open_input
from fatezero.errors import UserError


def open_source(path: str, stream: int | None = None, read: ReadImage = to_rgb) -> Source:
    """Open a video file, an image, an animation, or a folder of images.

    Args:
        path: here or in a store.
        stream: which of a file's videos.
        read: what is made of a still image.

    Raises:
        UserError: it is missing, not readable, or of no kind that is read.
    """
    local = open_input(path)
    images = local.is_dir() or _is_image(local)
    if stream is not None and images:
        raise UserError(f"{path}: stream {stream} is asked for, but images have no streams; leave it out.")
    if local.is_dir():
        return open_folder(local, read)
    if local.stat().st_size == 0:
        raise UserError(f"{path} is empty; copy or download it again.")
    return open_animation(local, read) if images else open_video(local, stream)


def is_still(source: Source) -> bool:
    """Whether it is a still image, or a folder of them."""
    return source.path.is_dir() or (_is_image(source.path) and len(source.times) == 1)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in {*IMAGE_SUFFIXES, *ANIMATION_SUFFIXES}
