"""Opens a video file's container, and says which of its streams is the film."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from fatezero.clips.source import MAX_PIXELS, check_frame_size, naming, undecodable
from fatezero.errors import UserError

VIDEO = "a video"
# Containers that hold frames of their own: a playlist names other files, which must not be opened.
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,asf,flv,ogg,mxf,ivf,h264,hevc,m4v,mpegvideo,yuv4mpegpipe"
_ATTACHED = Disposition.attached_pic | Disposition.timed_thumbnails
_PICTURES = ("mjpeg", "png", "bmp", "gif", "webp", "tiff")  # what covers and thumbnails are coded as


@contextmanager
def opened(path: Path, **options: str) -> Iterator[Any]:
    """PyAV's container; its errors become sentences.

    Args:
        path: the file.
        options: further ones of FFmpeg's demuxers.

    Raises:
        UserError: no format known here, or damaged.
    """
    safe = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
    with naming(path, VIDEO):
        try:  # by a whole path, since FFmpeg takes what stands before a colon for a protocol
            container = av.open(str(path.absolute()), options=safe | options, metadata_errors="replace")
        except av.ArgumentError as error:  # what FFmpeg says of a format outside the list
            raise undecodable(path, VIDEO, "no video format known here") from error
        with container:
            yield container


def film_of(path: Path, container: Any, chosen: int | None) -> Any:
    """The video stream that is read, set to one thread.

    By default the film: a stream that is no attached picture and no single picture, the default one of those, the
    largest of those, the longest of those, the first (as FFmpeg's "best", which counts the first packets, too).

    Args:
        path: the file, for messages.
        container: as `opened`.
        chosen: the stream's number among the file's videos; None takes the film.

    Raises:
        UserError: there is none, none of that number, or its frames are too large.
    """
    videos = films(container)
    if not videos:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        pictures = " and a cover picture" if container.streams.video else ""
        held = kinds.replace("video", "").strip(", ") + pictures
        raise UserError(f"{path} holds no video, only {held}; name a file with pictures.")
    if chosen is not None and chosen >= len(videos):
        there = "stream 0 alone" if len(videos) == 1 else f"streams 0 to {len(videos) - 1}"
        raise UserError(f"{path} has no stream {chosen} with video: choose from {there}.")
    film = max(videos, key=_rank) if chosen is None else videos[chosen]
    codec = film.codec_context
    if codec is None:  # a torn index can name a stream without saying how it is coded
        raise undecodable(path, VIDEO, "its video stream names no codec")
    check_frame_size(path, codec.height, codec.width)
    codec.thread_count = 1
    return film


def films(container: Any) -> Sequence[Any]:
    """The video streams of a file that are no attached pictures, such as the cover of an album."""
    return [stream for stream in container.streams.video if not stream.disposition & _ATTACHED]


def _rank(stream: Any) -> tuple[bool, bool, int, float]:
    codec = stream.codec_context
    pixels = codec.height * codec.width if codec else 0
    default = bool(stream.disposition & Disposition.default)
    return not _is_single(stream), default, pixels, float((stream.duration or 0) * (stream.time_base or 0))


def _is_single(stream: Any) -> bool:
    """Whether it is a single picture: a thumbnail."""
    codec = stream.codec_context
    return stream.frames == 1 and codec is not None and codec.name in _PICTURES


def stream_note(container: Any, film: Any) -> str | None:
    """Which of several videos was taken; None where there is but one that moves."""
    videos = films(container)
    if sum(not _is_single(stream) for stream in videos) <= 1:
        return None
    codec = film.codec_context
    return (
        f"The file holds {len(videos)} videos: stream {videos.index(film)} ({codec.width}x{codec.height}) is taken; "
        "choose another with --stream."
    )
