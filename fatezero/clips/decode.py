"""Opens video files, with decord or PyAV.

Which of the two serves a file follows from the file alone, never from a first attempt that failed,
and is said in the notes. decord is the default; PyAV takes what decord cannot read or would decode
to other bytes. Both convert with the matrix and range that the file states (swscale's default,
BT.601, where it states none), so their frames are equal to the bit.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from fatezero.clips.source import (
    MAX_FRAMES,
    MAX_PIXELS,
    ON_WHITE,
    Frame,
    Source,
    check_frame_size,
    naming,
    on_white,
    undecodable,
)
from fatezero.clips.wholeness import check_end
from fatezero.errors import UserError

_VIDEO = "a video"
# Containers that hold frames of their own: a playlist names other files, which must not be opened.
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,asf,flv,ogg,mxf,ivf,h264,hevc,m4v,mpegvideo,yuv4mpegpipe"
_DECORD_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_DECORD_CODECS = ("h264", "hevc", "vp8", "vp9")
_DECORD_PIXELS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p")


def open_video(path: Path) -> Source:
    """Reads a video file's header, first frame and index.

    Raises:
        UserError: not a video, audio only, too large, or damaged so that the header's promise cannot be kept.
    """
    with _opened(path) as container:
        says_its_end = check_end(path)
        stream = container.streams.video[0]
        first = next(container.decode(stream), None)
        if first is None:
            raise UserError(f"{path} is damaged: no frame can be decoded; copy or download it again.")
        refusal = _decord_refusal(container.format.name, stream.codec.canonical_name, first, says_its_end)
        notes = list(_notes(stream, first))
        rate = float(stream.average_rate or 0)
        turned = _quarter_turns(first) % 2 == 1
        height, width = (first.width, first.height) if turned else (first.height, first.width)
        check_frame_size(path, height, width)  # the header's size need not be the frames'
    with _opened(path) as container:
        index = _read_index(path, container, rate)
        fps = _mean_rate(index.times, rate)
    if not (says_its_end and index.counted):
        notes.append("The file does not say how many frames it has: it would not show if some were missing at its end.")
    if refusal is None and index.hides_frames:
        refusal = "the file's edit list hides frames"
    reader = _decode_by_decord if refusal is None else _decode_by_pyav
    notes.insert(0, "Decoded by decord." if refusal is None else f"Decoded by PyAV, since {refusal}.")

    def decode(indices: Sequence[int]) -> Iterator[Frame]:
        count = 0
        for frame in reader(path, indices):
            if frame.shape != (height, width, 3):
                raise UserError(
                    f"{path}: the frame size changes from {width}x{height} to "
                    f"{frame.shape[1]}x{frame.shape[0]}; re-encode it at one size."
                )
            count += 1
            yield frame
        if count < len(indices):
            raise UserError(
                f"{path} is damaged: it promises {len(index.times)} frames but frame {indices[count]} "
                "cannot be decoded; copy or download it again."
            )

    return Source(path, height, width, index.times, index.duration, fps, decode, tuple(notes))


def _decord_refusal(container: str, codec: str, first: Any, says_its_end: bool) -> str | None:
    """Why PyAV must decode; None where decord does. Measured with decord 0.6.0 and PyAV 18."""
    pixels = first.format.name
    reasons = {
        "decord is not installed on this machine": importlib.util.find_spec("decord") is None,
        f"decord does not read {container} files": container not in _DECORD_CONTAINERS,
        "decord needs a file that says where it ends": not says_its_end,
        # AV1 fails; the two decode MPEG-4 part 2 one level apart.
        f"decord does not decode {codec} to the same bytes": codec not in _DECORD_CODECS,
        # Deeper colours are dithered, transparency is dropped.
        f"decord does not convert {pixels} to the same bytes": pixels not in _DECORD_PIXELS,
        "decord misplaces the colours of odd sizes": first.height % 2 or first.width % 2,
        "decord turns small frames into four channels": _quarter_turns(first),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _notes(stream: Any, first: Any) -> Iterator[str]:
    if _quarter_turns(first):
        yield f"Turned by {360 - 90 * _quarter_turns(first)} degrees clockwise, as the file says."
    if _has_alpha(first):
        yield ON_WHITE
    if stream.metadata.get("alpha_mode") == "1":
        yield "The file's transparency is left out: its colours are shown alone."
    if stream.sample_aspect_ratio not in (None, 0, 1):
        yield f"Pixels are taken as square, although the file says {stream.sample_aspect_ratio}."


@dataclass(frozen=True)
class _Index:
    times: tuple[float, ...]  # seconds from the first frame to each
    duration: float  # seconds from the first frame to the end of the last
    counted: bool  # the header says how many frames there are, or where they end
    hides_frames: bool  # by an edit list


def _read_index(path: Path, container: Any, rate: float) -> _Index:
    """Reads all packets, without decoding.

    Raises:
        UserError: the file ends before its header says it does, holds half a frame, or too many of them.
    """
    stream = container.streams.video[0]
    shown: list[tuple[int | None, int]] = []
    packets, hidden, end = 0, 0, 0.0
    for packet in container.demux():
        if packet.dts is None and not packet.size:
            continue  # the flush at the end of each stream
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index == stream.index:
            packets += 1
            hidden += packet.is_discard
            if packet.is_corrupt and container.format.name != "mpegts":  # where two files are joined there, too
                raise UserError(f"{path} is damaged: frame {len(shown)} is not whole; copy or download it again.")
            if packet.size and not packet.is_discard:
                shown.append((packet.pts, packet.duration or 0))
            if packets > MAX_FRAMES:
                raise UserError(f"{path} has more than {MAX_FRAMES} frames; cut it into shorter files first.")
    if packets < stream.frames:
        raise UserError(
            f"{path} is damaged: its header promises {stream.frames} frames but it holds {packets}; "
            "copy or download it again."
        )
    # Matroska states no number of frames, but where it ends.
    matroska = container.format.name == "matroska,webm"
    promised_end = (container.duration or 0) / 1e6
    if matroska and end < promised_end - 0.1 - 2 / (rate or 10):
        raise UserError(
            f"{path} is damaged: it ends after {end:.2f} s although its header promises "
            f"{promised_end:.2f} s; copy or download it again."
        )
    counted = matroska or packets == stream.frames
    stamps = sorted((stamp, length) for stamp, length in shown if stamp is not None)
    if len(stamps) < len(shown):  # AVI with reordered frames states no presentation times
        step = 1 / (rate or 25)
        return _Index(tuple(step * index for index in range(len(shown))), step * len(shown), counted, hidden > 0)
    times = tuple(float((stamp - stamps[0][0]) * stream.time_base) for stamp, _ in stamps)
    last = float(stamps[-1][1] * stream.time_base) or 1 / (rate or 25)
    return _Index(times, times[-1] + last, counted, hidden > 0)


def _mean_rate(times: Sequence[float], stated: float) -> float | None:
    """The stated rate where the times bear it out (it is exact where they are rounded), otherwise theirs."""
    if len(times) < 2 or times[-1] <= 0:
        return stated or None
    measured = (len(times) - 1) / times[-1]
    return stated if abs(stated / measured - 1) < 0.01 else measured


def _decode_by_decord(path: Path, indices: Sequence[int]) -> Iterator[Frame]:
    """Decodes frame after frame: decord's seeking and skipping return wrong frames of open-GOP files."""
    import decord  # noqa: PLC0415 (has no wheels for every platform)

    decord.logging.set_level(decord.logging.QUIET)
    with naming(path, _VIDEO):
        try:
            # Opened here, never kept: a reader made before a fork hangs after it.
            reader = decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1)
            position = -1
            current: Any = None
            for index in indices:
                while position < index:
                    current = reader.next()
                    position += 1
                yield current.asnumpy()
        except StopIteration:
            return
        except decord.DECORDError as error:  # its own words name a line of its source
            raise undecodable(path, _VIDEO, "decord found damaged data") from error


def _decode_by_pyav(path: Path, indices: Sequence[int]) -> Iterator[Frame]:
    with _opened(path) as container:
        decoded = iter(container.decode(container.streams.video[0]))
        position, current = -1, None
        for index in indices:
            while position < index:
                current = next(decoded, None)
                if current is None:
                    return
                position += 1
            yield _to_rgb(current)


def _to_rgb(frame: Any) -> Frame:
    alpha = _has_alpha(frame)
    rgb = on_white(frame.to_ndarray(format="rgba")) if alpha else frame.to_ndarray(format="rgb24")
    return np.rot90(rgb, _quarter_turns(frame))


def _quarter_turns(frame: Any) -> int:
    """Counter-clockwise quarter turns that the file asks a player for."""
    return int(round(frame.rotation / 90) % 4)


def _has_alpha(frame: Any) -> bool:
    return any(component.is_alpha for component in frame.format.components)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """PyAV's container with at least one video stream, one thread; its errors become sentences."""
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
    with naming(path, _VIDEO):
        try:  # by a whole path, since FFmpeg takes what stands before a colon for a protocol
            opened = av.open(str(path.absolute()), options=options, metadata_errors="replace")
        except av.ArgumentError as error:  # what FFmpeg says of a format outside the list
            raise undecodable(path, _VIDEO, "no video format known here") from error
        with opened as container:
            if not container.streams.video:
                kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
                raise UserError(f"{path} holds no video, only {kinds}; name a file with pictures.")
            codec = container.streams.video[0].codec_context
            if codec is None:  # a torn index can name a stream without saying how it is coded
                raise undecodable(path, _VIDEO, "its video stream names no codec")
            check_frame_size(path, codec.height, codec.width)
            codec.thread_count = 1
            yield container
