"""Opens video files, with decord or PyAV.

Which of the two serves a file follows from the file and from what is asked of it, never from a first attempt that
failed, and is said in a note. decord is the default; PyAV takes what decord cannot read or would decode to other bytes,
and what begins deep in a file, as it can begin at a key frame. Both convert with the matrix and range that the file
states (swscale's default, BT.601, where it states none), so their frames are equal to the bit.
"""

from __future__ import annotations

import importlib.util
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av

from fatezero.clips.index import Index, index_of, shown_frames
from fatezero.clips.pictures import Look
from fatezero.clips.source import Frame, Source, naming, undecodable
from fatezero.clips.streams import VIDEO, film_of, opened
from fatezero.errors import UserError
from fatezero.types import Sound

_DECORD_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_DECORD_CODECS = ("h264", "hevc", "vp8", "vp9")
_DECORD_PIXELS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p")
_DEEP = 300  # frames: decoding as many is quicker than finding a key frame, or hardly slower


def open_video(path: Path, chosen: int | None = None) -> Source:
    """Reads a video file's header, first frame and index.

    Args:
        path: the file.
        chosen: which of its videos, counted from 0; None takes the film.

    Raises:
        UserError: not a video, audio only, too large, or damaged so that the header's promise cannot be kept.
    """
    index = index_of(path, chosen)
    header, look = index.header, index.header.look
    refusal = _decord_refusal(index)

    def reader(indices: Sequence[int]) -> str:
        if refusal is not None:
            return f"Decoded by PyAV, since {refusal}."
        if _is_deep(index, indices):
            return "Decoded by PyAV, since it begins deep in the file."
        return "Decoded by decord."

    def decode(indices: Sequence[int]) -> Iterator[Frame]:
        if refusal is None and not _is_deep(index, indices):
            frames = map(look.of_rgb, _by_decord(path, indices, look))
        else:
            frames = map(look.of_frame, _by_pyav(path, chosen, index, indices, look))
        count = 0
        for frame in frames:
            count += 1
            yield frame
        if count < len(indices):
            raise _missing(path, index, indices[count])

    return Source(
        path=path,
        kind=header.kind,
        height=look.height,
        width=look.width,
        times=index.times,
        duration=index.duration,
        fps=index.fps,
        decode=decode,
        reader=reader,
        notes=tuple(_notes(index)),
        sound=Sound(path, index.start) if header.sound else None,
    )


def _missing(path: Path, index: Index, frame: int) -> UserError:
    return UserError(
        f"{path} is damaged: it promises {len(index.times)} frames but frame {frame} cannot be decoded; copy or "
        "download it again."
    )


def _notes(index: Index) -> Iterator[str]:
    yield from index.header.notes
    if index.interlaced:
        yield "Deinterlaced (bwdif)."
    yield from index.notes
    if not index.counted:
        yield "The file does not say how many frames it has: it would not show if some were missing at its end."


def _decord_refusal(index: Index) -> str | None:
    """Why PyAV must decode; None where decord does. Measured with decord 0.6.0 and PyAV 18."""
    header, look = index.header, index.header.look
    reasons = {
        "decord is not installed on this machine": importlib.util.find_spec("decord") is None,
        f"decord does not read {header.container} files": header.container not in _DECORD_CONTAINERS,
        f"{index.decoded}": index.decoded is not None,
        # AV1 fails; the two decode MPEG-4 part 2 one level apart.
        f"decord does not decode {header.codec} to the same bytes": header.codec not in _DECORD_CODECS,
        "decord counts invisible frames": index.invisible,
        "decord chooses among several videos by itself": header.videos > 1,
        "decord needs a file that says where it ends": not index.counted,
        # Deeper colours are dithered, transparency is dropped.
        f"decord does not convert {header.pixels} to the same bytes": header.pixels not in _DECORD_PIXELS,
        "decord knows no wide colours": not look.colours.standard,
        "decord misplaces the colours of odd sizes": look.stored[0] % 2 or look.stored[1] % 2,
        "decord turns frames by itself": look.orientation.note is not None,
        "decord misreads frames of fewer than 64 columns": look.stored[1] < 64,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _by_decord(path: Path, indices: Sequence[int], look: Look) -> Iterator[Frame]:
    """Decodes frame after frame: decord's seeking and skipping return wrong frames of open-GOP files."""
    import decord  # noqa: PLC0415 (has no wheels for every platform)

    decord.logging.set_level(decord.logging.QUIET)
    with naming(path, VIDEO):
        try:
            # Opened here, never kept: a reader made before a fork hangs after it.
            reader = decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1)
            position = -1
            current: Any = None
            for index in indices:
                while position < index:
                    current = reader.next()
                    position += 1
                frame = current.asnumpy()
                _check_size(path, frame.shape[:2], look)
                yield frame
        except StopIteration:
            return
        except decord.DECORDError as error:  # its own words name a line of its source
            raise undecodable(path, VIDEO, "decord found damaged data") from error


def _is_deep(index: Index, indices: Sequence[int]) -> bool:
    return bool(indices) and indices[0] >= _DEEP and _entry(index, indices[0]) > 0


def _entry(index: Index, frame: int) -> int:
    """The last key frame before a frame, from which decoding leads there; 0 where there is none."""
    place = bisect_right(index.entries, frame - 1) - 1
    return index.entries[place] if place >= 0 else 0


def _by_pyav(path: Path, chosen: int | None, index: Index, indices: Sequence[int], look: Look) -> Iterator[Any]:
    """Frames as they are stored, deinterlaced where they are two fields each."""
    begin = _entry(index, indices[0]) if _is_deep(index, indices) else 0
    if not _leads_to(path, chosen, index, begin):
        begin = 0
    with opened(path) as container:
        stream = film_of(path, container, chosen)
        frames = _checked(path, _frames_from(path, container, stream, index, begin), index, begin)
        whole = _deinterlaced(stream, frames) if index.interlaced else frames
        position, current = begin - 1, None
        for wanted in indices:
            while position < wanted:
                current = next(whole, None)
                position += 1
            if current is None:
                return
            _check_size(path, (current.height, current.width), look)
            yield current


def _leads_to(path: Path, chosen: int | None, index: Index, begin: int) -> bool:
    """Whether decoding that begins at a key frame shows it: not where pictures are refreshed bit by bit."""
    if begin == 0:
        return True
    with opened(path) as container:
        stream = film_of(path, container, chosen)
        first = next(_frames_from(path, container, stream, index, begin), None)
        return first is not None and first.pts == _stamp(index, begin)


def _frames_from(path: Path, container: Any, stream: Any, index: Index, begin: int) -> Iterator[Any]:
    """What is shown from a key frame on."""
    if begin == 0:
        yield from shown_frames(path, container.demux(stream), keyed=index.keyed)
        return
    stamp = _stamp(index, begin)
    container.seek(stamp, stream=stream, backward=True)
    yield from (frame for frame in shown_frames(path, container.demux(stream), keyed=index.keyed) if frame.pts >= stamp)


def _stamp(index: Index, frame: int) -> Any:
    """The file's own time of a frame; None where it states none, or there is no such frame."""
    return None if index.stamps is None or frame >= len(index.stamps) else index.stamps[frame]


def _checked(path: Path, frames: Iterator[Any], index: Index, begin: int) -> Iterator[Any]:
    """The frames, each at its own time.

    Raises:
        UserError: one of the index cannot be decoded.
    """
    for position, frame in enumerate(frames, begin):
        if index.stamps is not None and frame.pts != _stamp(index, position):
            raise _missing(path, index, min(position, len(index.times) - 1))
        yield frame


def _deinterlaced(stream: Any, frames: Iterator[Any]) -> Iterator[Any]:
    """A frame for each, those of two fields made whole by FFmpeg's bwdif, others untouched."""
    graph = av.filter.Graph()
    source = graph.add_buffer(template=stream)
    deinterlacer = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(deinterlacer)
    deinterlacer.link_to(sink)
    graph.configure()
    for frame in frames:
        graph.vpush(frame)
        yield from _ready(graph)
    graph.vpush(None)
    yield from _ready(graph)


def _ready(graph: Any) -> Iterator[Any]:
    while True:
        try:
            yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return


def _check_size(path: Path, size: tuple[int, int], look: Look) -> None:
    if size != look.stored:
        raise UserError(
            f"{path}: the frame size changes from {look.stored[1]}x{look.stored[0]} to {size[1]}x{size[0]}; re-encode "
            "it at one size."
        )
