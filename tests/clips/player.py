"""What FFmpeg shows of a file, read through PyAV in the plainest way, to hold the project's reading against."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from fatezero.types import Frames


@dataclass(frozen=True)
class Playback:
    """What is seen of a file.

    Attributes:
        frames: F,H,W,3 RGB, upright, of the file's own pixels, square or not.
        seconds: from the first frame to each; None where the file does not state them, or begins anew.
    """

    frames: Frames
    seconds: tuple[float, ...] | None


def shown_by_ffmpeg(path: Path, chosen: int | None = None) -> Playback:
    """Decode the best video stream, or that of a number, from beginning to end, as FFmpeg's player does."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video") if chosen is None else container.streams.video[chosen]
        stream.codec_context.thread_count = 1
        pictures = [picture for packet in container.demux(stream) for picture in _decoded(packet)]
    if any(picture.interlaced_frame for picture in pictures):
        pictures = _deinterlaced(pictures)
    frames = np.stack([_upright(picture.to_ndarray(format="rgb24"), _matrix(picture)) for picture in pictures])
    return Playback(frames, _seconds(pictures))


def _decoded(packet: Any) -> list[Any]:
    """A packet's pictures; none of one that the decoder refuses, which a player passes over."""
    try:
        return list(packet.decode())
    except av.InvalidDataError:
        return []


def _seconds(pictures: list[Any]) -> tuple[float, ...] | None:
    if any(picture.pts is None for picture in pictures):
        return None
    times = [float((picture.pts - pictures[0].pts) * picture.time_base) for picture in pictures]
    rising = all(before < after for before, after in pairwise(times))
    return tuple(times) if rising else None


def _matrix(picture: Any) -> list[int]:
    """The display matrix (ISO 14496-12); the one that changes nothing where the file has none."""
    for data in picture.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return [int(number) for number in np.frombuffer(bytes(data), np.int32)]
    return [1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30]


def _upright(frame: npt.NDArray[np.uint8], matrix: list[int]) -> npt.NDArray[np.uint8]:
    """The matrix sends the stored (x, y) to the shown (a x + c y, b x + d y)."""
    a, b, _, c, d = matrix[:5]
    if a == 0:
        turned = frame.swapaxes(0, 1)
        return turned[:: 1 if b > 0 else -1, :: 1 if c > 0 else -1]
    return frame[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1]


def _deinterlaced(pictures: list[Any]) -> list[Any]:
    graph = av.filter.Graph()
    first = pictures[0]
    source = graph.add_buffer(width=first.width, height=first.height, format=first.format, time_base=first.time_base)
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame"), graph.add("buffersink")).configure()
    for picture in [*pictures, None]:
        graph.push(picture)
    made = []
    while True:
        try:
            made.append(graph.pull())
        except (av.EOFError, av.BlockingIOError):
            return made
