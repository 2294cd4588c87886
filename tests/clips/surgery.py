"""Changes of packets and bytes that make files which no encoder of PyAV writes: cuts, edit lists, packed frames."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av

_NOT_CODED = bytes.fromhex("000001b6504f")  # an MPEG-4 frame that says "nothing new", with 25 ticks a second
_PACKED = b"\0\0\x01\xb2DivX503b1393p\0"  # what a decoder knows the layout by
_SHOWN_VP8 = 0x10  # show_frame in the first byte of a frame


def without_first(count: int) -> Callable[[list[Any]], list[Any]]:
    """Leaves packets out at the beginning, as a recorder does that is switched on in the middle of a GOP."""
    return lambda packets: packets[count:]


def from_key_frame(number: int) -> Callable[[list[Any]], list[Any]]:
    """Begins at the key frame of this number, as a cutter does."""

    def cut(packets: list[Any]) -> list[Any]:
        keys = [index for index, packet in enumerate(packets) if packet.is_keyframe]
        return packets[keys[number] :]

    return cut


def packed(packets: list[Any]) -> list[Any]:
    """Puts each B-frame into the packet of the frame that it waits for, and "nothing new" in its own place.

    Takes packets of MPEG-4 with single B-frames: I P B P B …
    """
    content = [bytes(packet) for packet in packets]
    start = content[0].index(b"\0\0\x01\xb6")
    made = [content[0][:start] + _PACKED + content[0][start:]]
    for reference, between in zip(content[1::2], content[2::2], strict=False):
        made += [reference + between, _NOT_CODED]
    made += content[len(made) :]
    times = [packet.dts for packet in packets]
    return [_like(packets[index], data, times[index]) for index, data in enumerate(made)]


def invisible(number: int) -> Callable[[list[Any]], list[Any]]:
    """Hides a VP8 frame that repeats the one before it: the packet goes in, nothing is shown, as an alt-ref frame."""

    def hide(packets: list[Any]) -> list[Any]:
        content = bytearray(bytes(packets[number]))
        content[0] &= ~_SHOWN_VP8
        hidden = _like(packets[number], bytes(content), packets[number - 1].pts)
        for packet in packets[number + 1 :]:
            packet.pts, packet.dts = packet.pts - 1, packet.dts - 1
        return [*packets[:number], hidden, *packets[number + 1 :]]

    return hide


def edit_list(path: Path, edits: Sequence[tuple[int, int]]) -> None:
    """Replace the edit list of an mp4 whose index stands at its end; one track of 25 frames a second.

    Args:
        path: the file.
        edits: frames that are shown and the first of them; -1 is an empty edit, shown for that long.
    """
    content = bytearray(path.read_bytes())
    box = content.index(b"elst")
    (entries,) = struct.unpack_from(">I", content, box + 8)
    (delay,) = struct.unpack_from(">i", content, box + 16)
    made = b"".join(
        struct.pack(">IiI", 40 * frames, -1 if first < 0 else delay + 512 * first, 1 << 16) for frames, first in edits
    )
    content[box + 8 : box + 12 + 12 * entries] = struct.pack(">I", len(edits)) + made
    for name in (b"elst", b"edts", b"trak", b"moov"):
        place = content.index(name) - 4
        (size,) = struct.unpack_from(">I", content, place)
        struct.pack_into(">I", content, place, size + 12 * (len(edits) - entries))
    path.write_bytes(content)


def display_matrix(path: Path, matrix: Sequence[int]) -> None:
    """Put the nine numbers of a display matrix into the head of an mp4's track (ISO 14496-12)."""
    content = bytearray(path.read_bytes())
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, *matrix)
    path.write_bytes(content)


def _like(packet: Any, content: bytes, time: int) -> Any:
    made = av.Packet(content)
    made.stream, made.time_base, made.pts, made.dts = packet.stream, packet.time_base, time, time
    made.is_keyframe, made.duration = packet.is_keyframe, packet.duration
    return made
