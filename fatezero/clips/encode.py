"""Writes clips: video files for looking at, PNG frames for measuring, panels side by side.

The same frames give the same bytes: one encoder thread, no dates, no random identifiers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fatezero.clips.source import Frame
from fatezero.errors import UserError
from fatezero.system.publishing import replacing
from fatezero.types import Frames

# H.264 High and VP9 with 4:2:0 colours play in every browser; the losses are hard to see.
# x264's macroblock tree reads memory that nobody wrote, so that it is left out.
_X264 = {"crf": "12", "preset": "medium", "profile": "high", "x264-params": "mbtree=0"}
_CODECS = {
    ".mp4": ("libx264", _X264, {"movflags": "faststart"}),
    ".webm": ("libvpx-vp9", {"crf": "20", "b": "0", "cpu-used": "4"}, {}),
}
# Numbers of ITU-T H.273, stated in the file so that every player converts back alike.
_BT709, _LIMITED_RANGE = 1, 1
_GAP = 4
_LARGEST = 16_382  # rows or columns of what plays: the most, in even numbers, that H.264 and WebP can state
SLOWEST, FASTEST = 0.01, 1000  # frames a second of a video file; a frame of a GIF lasts at most ten minutes


def write_video(path: str | Path, frames: Iterable[Frame], fps: float, crf: int | None = None) -> tuple[str, ...]:
    """Writes an mp4 (H.264 High, 4:2:0, index in front), webm (VP9), gif or webp, by the suffix.

    The file appears whole or not at all. Video files need even sizes: an odd one gets its last row or
    column twice, so that nothing is lost to the eye.

    Args:
        path: file to write; its folder is made.
        frames: uint8 H,W,3 RGB, one at a time or as an array F,H,W,3.
        fps: frames per second.
        crf: constant rate factor of an mp4 or webm, 0 (best) to 51; None is hard to tell from the frames.

    Returns:
        One sentence for each way in which the file differs from the frames in number or size.

    Raises:
        UserError: another suffix, no frames, frames of several sizes or too large, an impossible rate, or a place
            that cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (*_CODECS, ".gif", ".webp"):
        raise UserError(f"{path}: the suffix says how to write; choose .mp4, .webm, .gif or .webp.")
    fastest = FASTEST if suffix in _CODECS else 50  # players show animations of 100 frames a second at 10
    if not SLOWEST <= fps <= fastest:
        raise UserError(f"{path}: {fps} frames a second cannot be written; choose between {SLOWEST} and {fastest}.")
    with replacing(path) as partial:
        same_size = _small_enough(path, _same_size(path, frames))
        if suffix in _CODECS:
            return _encode(partial, same_size, Fraction(fps).limit_denominator(1001), crf)
        return _animate(partial, same_size, fps)


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


def side_by_side(panels: Sequence[tuple[str, Frames]]) -> Frames:
    """Joins clips left to right at the height of the tallest, each under its label; both sizes come out even.

    Args:
        panels: labels with uint8 frames F,H,W,3 RGB of one common F.

    Raises:
        UserError: the panels differ in their number of frames, or there is none.
    """
    if len({len(frames) for _, frames in panels}) != 1:
        stated = ", ".join(f"{label} {len(frames)}" for label, frames in panels) or "none"
        raise UserError(f"clips side by side need the same number of frames, but these have: {stated}.")
    height = max(frames.shape[1] for _, frames in panels)
    widths = [round(frames.shape[2] * height / frames.shape[1]) for _, frames in panels]
    band = _label_band([label for label, _ in panels], widths, max(16, height // 20))
    top, bottom, right = band.shape[0], band.shape[0] + height, band.shape[1]
    size = (bottom + bottom % 2, right + right % 2)
    joined = np.full((len(panels[0][1]), *size, 3), 255, dtype=np.uint8)
    joined[:, :top, :right] = band
    left = 0
    for (_, frames), width in zip(panels, widths, strict=True):
        for target, frame in zip(joined, frames, strict=True):
            target[top:bottom, left : left + width] = _scaled(frame, height, width)
        left += width + _GAP
    return joined


def _label_band(labels: Sequence[str], widths: Sequence[int], height: int) -> Frame:
    band = Image.new("RGB", (sum(widths) + _GAP * (len(widths) - 1), height), "white")
    font = ImageFont.load_default(size=height * 0.7)
    left = 0
    for label, width in zip(labels, widths, strict=True):
        panel = Image.new("RGB", (width, height), "white")
        text = _shortened(label, font, width - 6)
        ImageDraw.Draw(panel).text((3, height / 2), text, "black", font, anchor="lm")
        band.paste(panel, (left, 0))
        left += width + _GAP
    return np.asarray(band)


def _shortened(label: str, font: Any, width: int) -> str:
    text = " ".join(label.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _scaled(frame: Frame, height: int, width: int) -> Frame:
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


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


def _encode(path: Path, frames: Iterator[Frame], fps: Fraction, crf: int | None) -> tuple[str, ...]:
    codec, codec_options, container_options = _CODECS[path.suffix.lower()]
    if crf is not None:
        codec_options = codec_options | {"crf": str(crf)}
    first = next(frames)
    height, width = first.shape[0] + first.shape[0] % 2, first.shape[1] + first.shape[1] % 2
    try:
        # bitexact leaves out dates, versions and random identifiers.
        with av.open(str(path), "w", options={"fflags": "+bitexact", **container_options}) as container:
            stream: Any = container.add_stream(codec, rate=fps, options=codec_options)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            context = stream.codec_context
            context.thread_count = 1
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED_RANGE
            for index, frame in enumerate(chain([first], frames)):
                margins = ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0))
                picture = av.VideoFrame.from_ndarray(np.pad(frame, margins, mode="edge")).reformat(
                    format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE
                )
                picture.pts, picture.time_base = index, 1 / fps
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error  # `replacing` names the file
    if first.shape[:2] == (height, width):
        return ()
    padded = f"{first.shape[1]}x{first.shape[0]} to {width}x{height}"
    return (f"Padded from {padded} by repeating the edge, since video files need even sizes.",)


def _animate(path: Path, frames: Iterator[Frame], fps: float) -> tuple[str, ...]:
    images = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    unit = 10 if path.suffix.lower() == ".gif" else 1  # gif counts in hundredths of a second
    # Rounding the running time, not each duration, keeps the clip's length.
    ends = [unit * round(1000 * index / fps / unit) for index in range(len(images) + 1)]
    durations = [end - start for start, end in pairwise(ends)]
    first, rest = images[0], images[1:]
    if path.suffix.lower() == ".gif":
        first.save(path, save_all=True, append_images=rest, duration=durations, loop=0)
    else:
        first.save(path, save_all=True, append_images=rest, duration=durations, loop=0, quality=90, method=4)
    with Image.open(path) as written:
        stored = getattr(written, "n_frames", 1)
    if stored == len(images):
        return ()
    repeats = len(images) - stored
    return (f"Frames equal to the one before ({repeats}) are stored as a longer duration of it.",)
