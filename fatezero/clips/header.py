"""What a file's container and its first frame say of the film, so that a file is opened but once for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fatezero.clips.pictures import Look, look_of
from fatezero.clips.source import check_frame_size
from fatezero.clips.streams import stream_note

MATROSKA, AVI, MPEG_TS = "matroska,webm", "avi", "mpegts"


@dataclass(frozen=True)
class Header:
    """What is known of a film before its frames are counted.

    Attributes:
        container: the format's names, as FFmpeg has them.
        codec: its name.
        pixels: the first frame's format.
        interlaced: the first frame is two fields.
        videos: video streams of the file, covers included.
        sound: there is some.
        unit: seconds of a timestamp's unit.
        rate: frames per second; 0 if it is not stated.
        frames: number that is promised; 0 if none is.
        end: seconds at which the file is said to end; 0 if it is not.
        look: how frames are shown.
        kind: codec, pixels and container for people.
        notes: a sentence for each thing that is done to every frame.
    """

    container: str
    codec: str
    pixels: str
    interlaced: bool
    videos: int
    sound: bool
    unit: float
    rate: float
    frames: int
    end: float
    look: Look
    kind: str
    notes: tuple[str, ...]


def header_of(path: Path, container: Any, stream: Any, first: Any) -> Header:
    """Reads what is stated.

    Args:
        path: the file.
        container: PyAV's.
        stream: the film.
        first: its first frame that is shown.

    Raises:
        UserError: frames are too large, or of a kind that is not converted.
    """
    look = look_of(path, stream, first)
    check_frame_size(path, look.height, look.width)  # the header's size need not be the frames'
    codec = stream.codec_context
    names, suffix = container.format.name.split(","), path.suffix.lower().removeprefix(".")
    return Header(
        container=container.format.name,
        codec=codec.codec.canonical_name,
        pixels=first.format.name,
        interlaced=first.interlaced_frame,
        videos=len(container.streams.video),
        sound=bool(container.streams.audio),
        unit=float(stream.time_base),
        rate=float(stream.average_rate or stream.guessed_rate or 0),
        frames=stream.frames,
        end=(container.duration or 0) / 1e6,
        look=look,
        kind=f"{codec.codec.canonical_name} ({first.format.name}) in {suffix if suffix in names else names[0]}",
        notes=tuple(_notes(container, stream, look)),
    )


def _notes(container: Any, stream: Any, look: Look) -> Iterator[str]:
    if note := stream_note(container, stream):
        yield note
    yield from look.notes()
    if stream.metadata.get("alpha_mode") == "1":
        yield "The file's transparency is left out: its colours are shown alone."
