"""What a file says of its own length, so that a missing end shows even where what is left can be decoded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from fatezero.errors import UserError

_BOXES = (
    *(b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"free", b"skip", b"wide", b"uuid", b"meta"),
    *(b"udta", b"pdin", b"pnot", b"prft", b"emsg"),
)
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_CLUSTER = b"\x1f\x43\xb6\x75"
# Parts of a segment, and of a cluster.
_ELEMENTS = (
    *(b"\x11\x4d\x9b\x74", b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b", _CLUSTER, b"\x1c\x53\xbb\x6b"),
    *(b"\x12\x54\xc3\x67", b"\x19\x41\xa4\x69", b"\x10\x43\xa7\x70", b"\xec", b"\xbf"),
    *(b"\xe7", b"\x58\x54", b"\xa7", b"\xab", b"\xa3", b"\xa0", b"\xaf"),
)
_GIF_EXTENSION, _GIF_IMAGE, _GIF_END = b"!", b",", b";"


def check_end(path: Path) -> bool:
    """Compare where a video file's own sizes say that it ends with where it does.

    Returns:
        Whether it says so: ISO media (mp4, mov), Matroska and AVI do, unless they were never finished.

    Raises:
        UserError: the file ends earlier.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(12)
        file.seek(0)
        if start[4:8] in _BOXES:
            promised = _end_of_boxes(file)
        elif start.startswith(_EBML):
            promised = _end_of_segments(path, file)
        elif start[:4] == b"RIFF":
            promised = _end_of_chunks(file)
        else:
            promised = None
        held = _size(file)
    if promised is not None and held < promised:
        raise UserError(
            f"{path} is damaged: it ends after {held} bytes although its header promises {promised}; "
            "copy or download it again."
        )
    return promised is not None


def gif_frames(path: Path, limit: int) -> int:
    """The number of frames of a GIF, from its blocks alone, without decoding; counting stops above a limit.

    Raises:
        UserError: the file ends before its end mark.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        _skip_colours(file, file.read(13)[10:11])
        frames = 0
        while (kind := file.read(1)) in (_GIF_EXTENSION, _GIF_IMAGE):
            if kind == _GIF_IMAGE:
                frames += 1
                _skip_colours(file, file.read(9)[8:9])
            file.seek(1, os.SEEK_CUR)  # the extension's label, or the size of the image's codes
            while length := file.read(1):
                if not length[0]:
                    break
                file.seek(length[0], os.SEEK_CUR)
            if frames > limit:
                return frames
    if kind != _GIF_END:
        raise UserError(f"{path} is damaged: it ends, or breaks off, before its end mark; copy or download it again.")
    return frames


def webp_frames(path: Path) -> int:
    """The number of frames of a WebP, from its chunks alone, without decoding.

    Raises:
        UserError: something else stands between the chunks.
        OSError: it cannot be read.
    """
    frames, end = 0, path.stat().st_size
    with path.open("rb") as file:
        end = min(end, 8 + int.from_bytes(file.read(8)[4:], "little"))
        file.seek(12)
        while (place := file.tell()) + 8 <= end:
            name, size = file.read(4), int.from_bytes(file.read(4), "little")
            if not all(0x20 <= letter < 0x7F for letter in name):
                raise UserError(
                    f"{path} is damaged: at byte {place} no part of a WebP begins; copy or download it again."
                )
            frames += name == b"ANMF"
            file.seek(size + size % 2, os.SEEK_CUR)
    return max(frames, 1)


def _skip_colours(file: BinaryIO, flags: bytes) -> None:
    """Pass over a colour table, if a GIF's flags say that there is one."""
    if flags and flags[0] & 0x80:
        file.seek(3 << (flags[0] & 7) + 1, os.SEEK_CUR)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _end_of_boxes(file: BinaryIO) -> int | None:
    """ISO 14496-12: each box begins with its size; 1 means that 64 bits of it follow, 0 that it goes on to the end.

    What is no box, such as zeros behind the last one, promises nothing.
    """
    end = 0
    while (header := file.read(8))[4:] in _BOXES:
        size = int.from_bytes(header[:4])
        if size == 1:
            size = int.from_bytes(file.read(8))
        if size == 0:
            return None
        if size < 8:
            break
        end += size
        if end >= _size(file):
            break
        file.seek(end)
    return end


def _end_of_segments(path: Path, file: BinaryIO) -> int | None:
    """Matroska's header and segments, whose elements follow each other without a hole (RFC 8794).

    A segment of unknown size was written live, or never finished: then nothing is promised.

    Raises:
        UserError: something else stands between the elements.
    """
    end: int | None = 0
    while file.tell() < _size(file):
        place = file.tell()
        element, size = _element(file)
        if element == _SEGMENT:
            end = None if size is None else file.tell() + size
        elif element not in (_EBML, *_ELEMENTS) or (size is None and element != _CLUSTER):
            if end is not None and place >= end:  # behind the segment: no part of it
                break
            raise UserError(
                f"{path} is damaged: at byte {place} no part of a Matroska file begins; copy or download it again."
            )
        elif element != _CLUSTER:  # whose parts are looked at in turn
            file.seek(size or 0, os.SEEK_CUR)
    return end


def _element(file: BinaryIO) -> tuple[bytes, int | None]:
    """The head of an element: its name, and its size; None where that is unknown."""
    first = file.read(1)
    name = first + file.read(8 - first[0].bit_length() if first[0] else 8)
    first = file.read(1)
    if not first or not first[0]:
        return b"", None
    more = 8 - first[0].bit_length()
    bits = 7 * (more + 1)
    size = int.from_bytes(first + file.read(more)) & (1 << bits) - 1
    return name, None if size == (1 << bits) - 1 else size


def _end_of_chunks(file: BinaryIO) -> int | None:
    """RIFF: chunks with their size, of which a long AVI has several; 0 was never filled in.

    Some programs count the eight bytes of the size itself, too: those are not insisted on.
    """
    end = 0
    while (header := file.read(8))[:4] == b"RIFF":
        size = int.from_bytes(header[4:8], "little")
        if size == 0:
            return None
        end = file.tell() + size
        if end >= _size(file):
            break
        file.seek(end + size % 2)
    return end - 8
