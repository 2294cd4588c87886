"""Writes clips: video files for looking at, PNG frames for measuring.

The same frames give the same bytes: one encoder thread, no dates, no random identifiers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from heapq import merge
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from fatezero.clips.animations import FASTEST_FRAMES, write_animation
from fatezero.clips.soundtrack import Soundtrack, plan_soundtrack
from fatezero.clips.source import Frame
from fatezero.errors import UserError
from fatezero.system.publishing import replacing
from fatezero.types import Sound, Timing, mean_rate

# H.264 High and VP9 with 4:2:0 colours play in every browser; the losses are hard to see.
# x264's macroblock tree reads memory that nobody wrote, so that it is left out.
_X264 = {"crf": "12", "preset": "medium", "profile": "high", "x264-params": "mbtree=0"}
_CODECS = {
    ".mp4": ("libx264", _X264, {"movflags": "faststart"}),
    ".webm": ("libvpx-vp9", {"crf": "20", "b": "0", "cpu-used": "4"}, {}),
}
VIDEO_KINDS = (*_CODECS, *FASTEST_FRAMES)  # suffixes of what can be written
# Without B-frames the file's own sum of durations, from which players take the mean rate, is that of the frames.
_UNEVEN = {"x264-params": "mbtree=0:bframes=0"}
# Numbers of ITU-T H.273, stated in the file so that every player converts back alike.
_BT709, _LIMITED_RANGE = 1, 1
_TICKS = 90_000  # a second, where times are uneven: what players know, and fine enough for any of them
_LARGEST = 16_382  # rows or columns of what plays: the most, in even numbers, that H.264 and WebP can state
SLOWEST, FASTEST = 0.01, 1000  # frames a second of a video file; a frame of a GIF lasts at most ten minutes
_ROUNDING = 1e-5  # seconds: half a tick of 1/90000 and the last digits of a difference


def write_video(
    path: str | Path, frames: Iterable[Frame], timing: Timing, crf: int | None = None, sound: Sound | None = None
) -> tuple[str, ...]:
    """Writes an mp4 (H.264 High, 4:2:0, index in front), webm (VP9), gif or webp, by the suffix.

    The file appears whole or not at all. Video files need even sizes: an odd one gets its last row or
    column twice, so that nothing is lost to the eye.

    Args:
        path: file to write; its folder is made.
        frames: uint8 H,W,3 RGB, one at a time or as an array F,H,W,3.
        timing: frames per second; or when each is shown and the last ends, kept to 1 ms (a gif: 5 ms).
        crf: constant rate factor of an mp4 or webm, 0 (best) to 51; None is hard to tell from the frames.
        sound: heard beside the frames; one that is damaged is left out.

    Returns:
        One sentence for each way in which the file differs from the frames in number, size or time; where there is
        sound, the last says what became of it.

    Raises:
        UserError: another suffix, no frames, frames of several sizes or too large, impossible times, or a place that
            cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in VIDEO_KINDS:
        raise UserError(
            f"{path}: the suffix says how to write; choose {', '.join(VIDEO_KINDS[:-1])} or {VIDEO_KINDS[-1]}."
        )
    _check_timing(path, timing, FASTEST_FRAMES.get(suffix, FASTEST))
    with replacing(path) as partial:
        same_size = _as_many(path, _small_enough(path, _same_size(path, frames)), timing)
        track, heard = plan_soundtrack(sound, suffix) if sound else (None, "")
        if suffix in _CODECS:
            seen = _encode(partial, same_size, timing, crf, track)
        else:
            seen = write_animation(partial, same_size, timing)
        return (*seen, heard) if heard else seen


def write_frames(folder: str | Path, frames: Iterable[npt.NDArray[np.uint8]]) -> None:
    """Writes 00000.png, 00001.png, … without loss; the folder appears whole and replaces older frames.

    Args:
        folder: where they go; made if need be.
        frames: uint8 H,W,3 RGB or H,W grey, one at a time or as one array.

    Raises:
        UserError: no frames, a place that cannot be written, or a folder that holds anything else.
    """
    for path in Path(folder).glob("*"):
        if not re.fullmatch(r"\d{5,}\.png", path.name):
            raise UserError(f"{path} is no frame and would be lost; write the frames to a folder of their own.")
    with replacing(folder) as partial:
        partial.mkdir()
        for index, frame in enumerate(_same_size(folder, frames)):
            Image.fromarray(np.ascontiguousarray(frame)).save(partial / f"{index:05d}.png", compress_level=3)


def _same_size(path: str | Path, frames: Iterable[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.uint8]]:
    """Passes frames on and sees to it that there are some and that they fit together."""
    shape = None
    for frame in frames:
        shape = shape or frame.shape
        if frame.dtype != np.uint8 or frame.shape != shape:
            raise UserError(f"{path}: a frame is {frame.shape} {frame.dtype}, not {shape} uint8.")
        if not frame.size:
            raise UserError(f"{path}: a frame is {frame.shape}: it has no pixels.")
        yield frame
    if shape is None:
        raise UserError(f"{path}: there are no frames to write.")


def _check_timing(path: str | Path, timing: Timing, fastest: float) -> None:
    """Refuse what a file cannot say, or players would show otherwise."""
    if not isinstance(timing, tuple):
        if not SLOWEST <= timing <= fastest:
            raise UserError(
                f"{path}: {timing} frames a second cannot be written; choose between {SLOWEST} and {fastest}."
            )
        return
    lasting = [end - start for start, end in pairwise(timing)]
    if not lasting or timing[0] != 0 or not all(length > 0 for length in lasting):
        raise UserError(f"{path}: the times of frames do not rise from 0; give one for each, and the last one's end.")
    shortest, longest = 1 / fastest - _ROUNDING, 1 / SLOWEST + _ROUNDING
    if not shortest <= min(lasting) <= max(lasting) <= longest:
        raise UserError(
            f"{path}: frames that last {min(lasting):g} to {max(lasting):g} s cannot be written ({1 / fastest:g} to "
            f"{1 / SLOWEST:g} s can); resample the clip with --fps, or choose another suffix."
        )


def _as_many(path: str | Path, frames: Iterator[Frame], timing: Timing) -> Iterator[Frame]:
    """Passes frames on as long as there are times for them."""
    count = 0
    for frame in frames:
        count += 1
        if not isinstance(timing, tuple) or count < len(timing):
            yield frame
    if isinstance(timing, tuple) and count != len(timing) - 1:
        raise UserError(f"{path}: there are {count} frames, but times for {len(timing) - 1}.")


def _small_enough(path: str | Path, frames: Iterator[Frame]) -> Iterator[Frame]:
    """Passes frames on that a video file can hold."""
    for frame in frames:
        height, width = frame.shape[:2]
        if max(height, width) > _LARGEST:
            raise UserError(
                f"{path}: frames of {width}x{height} pixels cannot be written (at most {_LARGEST} a side); "
                "ask for a smaller size."
            )
        yield frame


@dataclass(frozen=True)
class _Clock:
    """When frames are shown.

    Attributes:
        rate: frames per second, the mean where it varies.
        tick: seconds.
        starts: of each frame, then the end of the last, in ticks.
    """

    rate: Fraction
    tick: Fraction
    starts: Sequence[int]

    @classmethod
    def of(cls, timing: Timing) -> _Clock:
        rate = Fraction(mean_rate(timing)).limit_denominator(1001)
        if not isinstance(timing, tuple):
            return cls(rate, 1 / rate, range(sys.maxsize))
        return cls(rate, Fraction(1, _TICKS), [round(time * _TICKS) for time in timing])


def _encode(
    path: Path, frames: Iterator[Frame], timing: Timing, crf: int | None, track: Soundtrack | None
) -> tuple[str, ...]:
    first = next(frames)
    height, width = first.shape[0] + first.shape[0] % 2, first.shape[1] + first.shape[1] % 2
    uneven = isinstance(timing, tuple)
    codec, encoding, muxing = _CODECS[path.suffix.lower()]
    if crf is not None:
        encoding = encoding | {"crf": str(crf)}
    if uneven and codec == "libx264":
        encoding = encoding | _UNEVEN
    if (uneven or track) and codec == "libx264":
        muxing = muxing | {
            "movie_timescale": str(_TICKS)
        }  # by default an mp4 states when streams begin in milliseconds
    try:
        # bitexact leaves out dates, versions and random identifiers.
        with av.open(str(path), "w", options={"fflags": "+bitexact", **muxing}) as container:
            clock = _Clock.of(timing)
            stream: Any = container.add_stream(codec, rate=clock.rate, options=encoding)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            context = stream.codec_context
            context.thread_count = 1
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED_RANGE
            if uneven:
                context.time_base = clock.tick
            seen, heard = _encoded(stream, chain([first], frames), clock), track.packets(container) if track else ()
            # Each is asked for its first packet before one is written: by then all streams must be there.
            for packet in merge(seen, heard, key=lambda packet: packet.dts * packet.time_base):
                container.mux(packet)
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error  # `replacing` names the file
    if first.shape[:2] == (height, width):
        return ()
    padded = f"{first.shape[1]}x{first.shape[0]} to {width}x{height}"
    return (f"Padded from {padded} by repeating the edge, since video files need even sizes.",)


def _encoded(stream: Any, frames: Iterable[Frame], clock: _Clock) -> Iterator[Any]:
    """The packets of frames; each says how long its frame is shown, as nothing follows the last that would."""
    ends = {}
    for index, frame in enumerate(frames):
        margins = ((0, stream.height - frame.shape[0]), (0, stream.width - frame.shape[1]), (0, 0))
        picture = av.VideoFrame.from_ndarray(np.pad(frame, margins, mode="edge")).reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE
        )
        picture.pts, picture.time_base = clock.starts[index], clock.tick
        ends[picture.pts] = clock.starts[index + 1]
        for packet in stream.encode(picture):
            packet.duration = ends.pop(packet.pts) - packet.pts
            yield packet
    for packet in stream.encode():
        packet.duration = ends.pop(packet.pts) - packet.pts
        yield packet
