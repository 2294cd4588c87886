"""Encodes clips with PyAV alone, whose frames tell their own number by their brightness, and by a moving edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt

from fatezero.types import Frames
from tests.data.conftest import same_priority

DARKEST, STEP = 20, 5  # of all but the top: enough for 48 frames, too much for a codec's loss to hide
TINY = (48, 64)  # rows, columns
Pictures = Frames | npt.NDArray[np.uint16]  # F,H,W,3 RGB, or planes F,H*3/2,W of 4:2:0 with 10 bits


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How frames are put into a file.

    Attributes:
        codec: FFmpeg's name of the encoder.
        pixels: FFmpeg's name of the pixel format.
        options: of the encoder.
        muxer: options of the container.
        container: its format; by default as the file's suffix says.
        colours: tags of ITU-T H.273 by field of the codec: colorspace, color_primaries, color_trc, color_range.
        aspect: width of a pixel against its height.
        matrix: the nine numbers of a display matrix.
        rate: ticks a second.
        ticks: when each frame is shown; one after another by default.
        seconds_of_sound: length of a tone beside the pictures.
        change: what becomes of the packets before they are written.
    """

    codec: str = "libx264"
    pixels: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    muxer: Mapping[str, str] = field(default_factory=dict)
    container: str | None = None
    colours: Mapping[str, int] = field(default_factory=dict)
    aspect: Fraction | None = None
    matrix: Sequence[int] | None = None
    rate: int = 25
    ticks: Sequence[int] | None = None
    seconds_of_sound: float = 0.0
    change: Callable[[list[Any]], list[Any]] = list


class ForwardOnly:
    """A file that can be written on but not back, as a browser's recorder or a pipe is."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write


def numbered_frames(count: int, height: int = TINY[0], width: int = TINY[1]) -> Frames:
    """Frames F,H,W,3 RGB: grey by number, below red and blue whose border moves two columns a frame."""
    frames = np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        frames[number] = DARKEST + STEP * number
        border = (8 + 2 * number) % width
        frames[number, : height // 4, :border] = (200, 30, 40)
        frames[number, : height // 4, border:] = (20, 60, 210)
    return frames


def woven_frames(count: int, *, top_first: bool) -> Frames:
    """Numbered frames whose rows come alternately from two moments: what an interlaced camera delivers."""
    first, second = numbered_frames(2 * count)[::2], numbered_frames(2 * count)[1::2]
    frames = (first if top_first else second).copy()
    frames[:, 1::2] = (second if top_first else first)[:, 1::2]
    frames[:, TINY[0] // 4 :] = numbered_frames(count)[:, TINY[0] // 4 :]  # below the moving edge, to be counted by
    return frames


def numbers_of(frames: Frames) -> list[int]:
    """Reads each frame's number back from the brightness of the middle, however it is turned."""
    rows, columns = (slice(2 * side // 5, 3 * side // 5) for side in frames.shape[1:3])
    values = frames[:, rows, columns].mean(axis=(1, 2, 3))
    return [round(float(value - DARKEST) / STEP) for value in values]


def encode(target: Path | ForwardOnly, frames: Pictures, coding: Coding) -> None:
    """Write one video, with a tone beside it where that is asked for."""
    place = str(target) if isinstance(target, Path) else target
    with same_priority(), av.open(place, "w", format=coding.container, options=dict(coding.muxer)) as container:
        stream = add_video(container, frames, coding)
        sound = _add_sound(container) if coding.seconds_of_sound else None
        for packet in packets_of(stream, frames, coding):
            container.mux(packet)
        if sound is not None:
            _mux_tone(container, sound, coding.seconds_of_sound)


def add_video(container: Any, frames: Pictures, coding: Coding) -> Any:
    """A video stream for these frames."""
    stream = container.add_stream(coding.codec, rate=coding.rate, options=dict(coding.options))
    rows = frames.shape[1] * 2 // 3 if frames.dtype == np.uint16 else frames.shape[1]  # planes of 4:2:0
    stream.height, stream.width, stream.pix_fmt = rows, frames.shape[2], coding.pixels
    context = stream.codec_context
    context.thread_count = 1
    context.time_base = Fraction(1, coding.rate)
    for name, value in coding.colours.items():
        setattr(context, name, value)
    if coding.aspect is not None:
        context.sample_aspect_ratio = coding.aspect
    if coding.matrix is not None:
        stream.set_display_matrix(coding.matrix)
    return stream


def packets_of(stream: Any, frames: Pictures, coding: Coding) -> list[Any]:
    """Encodes frames; packets in decoding order, changed as the coding says."""
    ticks = range(len(frames)) if coding.ticks is None else coding.ticks
    packets = []
    for tick, frame in zip(ticks, frames, strict=True):
        picture = to_picture(frame, coding)
        picture.pts, picture.time_base = tick, Fraction(1, coding.rate)
        packets += stream.encode(picture)
    return coding.change(packets + stream.encode())


def to_picture(frame: Any, coding: Coding) -> Any:
    """A frame in the pixel format, matrix and range that a coding states; 16-bit planes are taken as they are."""
    if frame.dtype == np.uint16:
        return av.VideoFrame.from_ndarray(frame, format=coding.pixels)
    return av.VideoFrame.from_ndarray(frame).reformat(
        format=coding.pixels,
        dst_colorspace=coding.colours.get("colorspace"),
        dst_color_range=coding.colours.get("color_range"),
    )


def _add_sound(container: Any) -> Any:
    codec = "libopus" if "webm" in container.format.name else "aac"
    return container.add_stream(codec, rate=48_000, layout="mono")


def _mux_tone(container: Any, stream: Any, seconds: float) -> None:
    samples = np.sin(np.arange(int(48_000 * seconds)) * (2 * np.pi * 440 / 48_000)).astype(np.float32) / 4
    whole = len(samples) // 960 * 960
    for start in range(0, whole, 960):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 960], format="flt", layout="mono")
        frame.rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
