"""Which frames a player shows of a video file, and when.

Where each packet holds one frame that is shown, the packets say it all, and nothing has to be decoded. Everything else
(invisible frames, edit lists, cuts into a group of pictures, fields, dropped frames) is decoded once for it.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import numpy as np

from fatezero.clips.header import AVI, MATROSKA, MPEG_TS, Header, header_of
from fatezero.clips.source import MAX_FRAMES
from fatezero.clips.streams import film_of, opened
from fatezero.clips.wholeness import check_end
from fatezero.errors import UserError

# A packet of these holds one frame that is shown, or says by itself that it holds none.
_ONE_EACH = (
    *("h264", "hevc", "av1", "vp8", "vp9", "mjpeg", "prores", "ffv1", "rawvideo", "dnxhd", "png", "huffyuv", "ffvhuff"),
    "utvideo",
)
_LONGEST_GAP = 10.0  # seconds between frames of a broadcast; players take more for a jump, too
_TIMES_OF_PACKETS = (AVI, "asf")  # states times of packets, not of pictures
_COPY = "copy or download it again."
_HIDDEN = "the file's edit list hides frames"
_INTERLACED = "the clip is interlaced"


@dataclass(frozen=True)
class Index:
    """What a player shows of a file.

    Attributes:
        header: what the file states.
        times: seconds from the first frame to each.
        duration: seconds from the first frame to the end of the last.
        start: the first frame's time in seconds of the file.
        fps: frames per second: the stated rate where the times bear it out, else the mean; None where unknown.
        stamps: the file's own time of each frame, in its units; None where it states none of pictures.
        entries: positions of frames at which decoding can begin.
        keyed: decoding has to begin at a key frame.
        decoded: why frames had to be decoded to be counted; None where packets said it all.
        interlaced: some frames are two fields.
        invisible: some packets hold frames that are never shown.
        counted: the file says how many frames it has, or where it ends.
        notes: what is left out or timed otherwise.
    """

    header: Header
    times: tuple[float, ...]
    duration: float
    start: float
    fps: float | None
    stamps: Sequence[int | None] | None
    entries: Sequence[int]
    keyed: bool
    decoded: str | None
    interlaced: bool
    invisible: bool
    counted: bool
    notes: tuple[str, ...]


def index_of(path: Path, chosen: int | None) -> Index:
    """The index of a file's film, or of the chosen stream; kept for as long as the file stays as it is.

    Raises:
        UserError: the file is damaged, or not a video.
    """
    status = path.stat()
    return _index_of(path, chosen, (status.st_ino, status.st_size, status.st_mtime_ns))


def forget_indices() -> None:
    """Have files looked at anew, such as to time it."""
    _index_of.cache_clear()


@lru_cache(maxsize=4)
def _index_of(path: Path, chosen: int | None, _: tuple[int, int, int]) -> Index:
    says_its_end = check_end(path)
    header, packets = _read_packets(path, chosen)
    reason = _reason_to_decode(header, packets)
    frames = _frames_of(packets) if reason is None else _decode_all(path, chosen, header, packets)
    stated = header.container == MATROSKA or packets.total + packets.empty >= header.frames > 0 or packets.hidden > 0
    return _assembled(header, packets, frames, reason, counted=says_its_end and stated)


@dataclass
class _Packets:
    """What a file's packets say of one stream, in their order; of those alone that are to be shown, unless stated.

    Attributes:
        codec: its name.
        stamps: presentation times.
        steps: decoding times, where they are stated.
        durations: 0 where none is stated.
        keys: whether decoding can begin there.
        first: presentation time of the first frame that could be decoded.
        untimed: number without presentation time.
        total: number of all.
        hidden: number hidden by an edit list.
        empty: number of dropped ones: the frame before is shown longer.
        invisible: number of those that other frames alone refer to.
    """

    codec: str
    stamps: array[int] = field(default_factory=partial(array, "q"))
    steps: array[int] = field(default_factory=partial(array, "q"))
    durations: array[int] = field(default_factory=partial(array, "q"))
    keys: bytearray = field(default_factory=bytearray)
    first: int | None = None
    untimed: int = 0
    total: int = 0
    hidden: int = 0
    empty: int = 0
    invisible: int = 0

    def add(self, path: Path, packet: Any) -> None:
        """Count a packet of the stream.

        Raises:
            UserError: it is half a frame, or one too many.
        """
        self.total += 1
        whole = not packet.is_corrupt or packet.stream.container.format.name == MPEG_TS  # it marks joined files so
        if not whole:
            raise UserError(f"{path} is damaged: frame {len(self.stamps)} is not whole; {_COPY}")
        if self.total > MAX_FRAMES:
            raise UserError(f"{path} has more than {MAX_FRAMES} frames; cut it into shorter files first.")
        self.hidden += packet.is_discard
        self.empty += not packet.size
        invisible = packet.size > 0 and _is_invisible(self.codec, packet)
        self.invisible += invisible
        if packet.size and not packet.is_discard and not invisible:
            self.untimed += packet.pts is None
            self.stamps.append(packet.pts or 0)
            if packet.dts is not None:
                self.steps.append(packet.dts)
            self.durations.append(packet.duration or 0)
            self.keys.append(packet.is_keyframe)


def _read_packets(path: Path, chosen: int | None) -> tuple[Header, _Packets]:
    """Read all packets, without decoding more than the first frame.

    Raises:
        UserError: the file ends before its header says it does, holds half a frame, or too many of them.
    """
    end = 0.0

    def counted() -> Iterator[Any]:
        nonlocal end
        for packet in container.demux():
            flush = packet.dts is None and not packet.size  # at the end of each stream
            if not flush and packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream.index == stream.index:
                if not flush:
                    found.add(path, packet)
                yield packet

    with opened(path) as container:
        stream = film_of(path, container, chosen)
        found = _Packets(stream.codec_context.codec.canonical_name)
        packets = counted()
        first = next(shown_frames(path, packets, keyed=True), None) or _first_of_keyless(path, chosen)
        header = header_of(path, container, stream, first)
        found.first = first.pts
        deque(packets, maxlen=0)
    _check_count(path, chosen, header, found)
    if header.container == MATROSKA and end < header.end - 0.1 - 2 / (header.rate or 10):  # it states no number
        raise UserError(
            f"{path} is damaged: it ends after {end:.2f} s although its header promises {header.end:.2f} s; {_COPY}"
        )
    return header, found


def _is_invisible(codec: str, packet: Any) -> bool:
    """Whether a packet of VP8 (RFC 6386, 9.1) or VP9 (its specification, 6.2) holds nothing that is shown."""
    data = memoryview(packet)
    if codec == "vp8":
        return not data[0] & 0x10
    if codec != "vp9" or data[-1] & 0xE0 == 0xC0:  # a superframe holds what is shown as well
        return False
    head = data[0] << (1 if data[0] & 0x30 == 0x30 else 0)  # profile 3 has a bit more
    return not head & 0x08 and not head & 0x02


def _first_of_keyless(path: Path, chosen: int | None) -> Any:
    """The first frame of a film in which no packet is a key frame, by its own account."""
    with opened(path) as container:
        first = next(shown_frames(path, container.demux(film_of(path, container, chosen)), keyed=False), None)
    if first is None:
        raise UserError(f"{path} is damaged: no frame can be decoded; {_COPY}")
    return first


def _check_count(path: Path, chosen: int | None, header: Header, found: _Packets) -> None:
    """Fewer packets than promised are missing, unless an edit list leaves them out."""
    if found.total >= header.frames:
        return
    if header.container == AVI:  # its timestamps count what was dropped, too
        found.empty += max(found.steps, default=-1) + 1 - found.total
        held = found.total + found.empty
        if held < header.frames:
            raise UserError(
                f"{path} is damaged: its header promises {header.frames} frames but it holds {held}; {_COPY}"
            )
        return
    with opened(path, ignore_editlist="1") as container:
        stream = film_of(path, container, chosen)
        held = sum(1 for packet in container.demux(stream) if packet.dts is not None or packet.size)
    if held < header.frames:
        raise UserError(f"{path} is damaged: its header promises {header.frames} frames but it holds {held}; {_COPY}")
    found.hidden += held - found.total


def _reason_to_decode(header: Header, found: _Packets) -> str | None:
    """Why packets do not say which frames are shown; None where they do."""
    stamps, steps = np.asarray(found.stamps), np.asarray(found.steps)
    one_each = header.codec in _ONE_EACH
    reasons = {
        "the file's edit list hides frames": found.hidden > 0,
        "the file drops frames": found.empty > 0,
        f"packets of {header.codec} need not hold one frame each": not one_each,
        "the file states no time for some frames": found.untimed > 0 or not len(stamps),
        "the file's timestamps jump": len(np.unique(stamps)) < len(stamps) or bool((np.diff(steps) <= 0).any()),
        "the file starts in the middle of a group of pictures": not any(found.keys[:1])
        or found.first != stamps.min(initial=stamps[0]),
        "the clip is interlaced": header.interlaced,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


@dataclass(frozen=True)
class _Frames:
    """Frames as they are shown, in order."""

    stamps: Sequence[int | None]
    durations: Sequence[int]
    interlaced: bool
    left_out: int = 0  # at the beginning, since what they refer to is missing
    silent: int = 0  # packets that show nothing


def _frames_of(packets: _Packets) -> _Frames:
    order = np.argsort(np.asarray(packets.stamps))
    stamps, durations = np.asarray(packets.stamps)[order], np.asarray(packets.durations)[order]
    return _Frames(stamps.tolist(), durations.tolist(), interlaced=False)


def _decode_all(path: Path, chosen: int | None, header: Header, packets: _Packets) -> _Frames:
    """Decode every frame, to count.

    Raises:
        UserError: a frame cannot be decoded, although what it needs is there.
    """
    stamps: list[int | None] = []
    durations: list[int] = []
    interlaced = False
    with opened(path) as container:
        all_packets = container.demux(film_of(path, container, chosen))
        for frame in shown_frames(path, all_packets, keyed=any(packets.keys)):
            stamps.append(frame.pts)
            durations.append(frame.duration or 0)
            interlaced |= frame.interlaced_frame
    left_out = _left_out(stamps, packets, header)
    missing = len(packets.stamps) - left_out - len(stamps)
    if missing > 0 and header.codec in _ONE_EACH and not interlaced:  # of which packets can hold one field
        raise UserError(f"{path} is damaged: {missing} of its {len(packets.stamps)} frames cannot be decoded; {_COPY}")
    if header.container in _TIMES_OF_PACKETS:
        known = missing == 0 and not packets.untimed
        stamps = [*sorted(packets.stamps)[left_out:]] if known else [None] * len(stamps)
    return _Frames(stamps, durations, interlaced, left_out, 0 if interlaced else max(missing, 0))


def _left_out(stamps: Sequence[int | None], packets: _Packets, header: Header) -> int:
    """How many frames at the beginning are not shown: those of packets before the first that is."""
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) == len(stamps) and not packets.untimed and header.container not in _TIMES_OF_PACKETS:
        return sum(stamp < min(known) for stamp in packets.stamps)
    begins = packets.keys.find(1)  # the times of its packets do not tell
    return max(0, len(packets.stamps) - len(stamps)) if begins > 0 else 0


def shown_frames(path: Path, packets: Iterable[Any], *, keyed: bool) -> Iterator[Any]:
    """The frames that a player shows, decoded in order.

    What cannot be decoded before the first good frame is left out, as recordings start anywhere.

    Args:
        path: the file, for messages.
        packets: of one stream.
        keyed: begin at a key frame, without which some decoders draw on grey.

    Raises:
        UserError: a frame after the first is damaged.
    """
    begun = False
    for packet in packets:
        keyed = keyed and not packet.is_keyframe
        if keyed or (not packet.size and packet.dts is not None):
            continue  # the latter is a dropped frame, which the decoder would take for the end
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if begun:
                raise
            continue
        for frame in frames:
            if frame.is_corrupt and begun:
                raise UserError(f"{path} is damaged: the frame at {frame.time or 0:.3f} s is not whole; {_COPY}")
            if not frame.is_corrupt:
                begun = True
                yield frame


def _assembled(header: Header, packets: _Packets, frames: _Frames, reason: str | None, *, counted: bool) -> Index:
    gaps, jumps = _gaps(header, frames)
    times = (0.0, *accumulate(gaps[:-1]))
    told = header.container not in _TIMES_OF_PACKETS and None not in frames.stamps
    return Index(
        header=header,
        times=times,
        duration=times[-1] + gaps[-1],
        start=next((stamp for stamp in frames.stamps if stamp is not None), 0) * header.unit,
        fps=_rate(times, header.rate),
        stamps=frames.stamps if told else None,
        entries=_entries(packets, frames) if told else (),
        keyed=any(packets.keys),
        decoded=reason,
        interlaced=frames.interlaced,
        invisible=packets.invisible > 0,
        counted=counted,
        notes=tuple(_notes(packets, frames, jumps)),
    )


def _gaps(header: Header, frames: _Frames) -> tuple[list[float], int]:
    """For how many seconds each frame is shown; and how often timestamps jump, where the usual time is taken."""
    step = 1 / (header.rate or 25)
    if None in frames.stamps:
        return [step] * len(frames.stamps), 0
    stamps = np.asarray(frames.stamps, dtype=np.int64)
    gaps = np.diff(stamps) * header.unit
    jumps = (gaps <= 0) | ((gaps > _LONGEST_GAP) & (header.container == MPEG_TS))
    usual = float(np.median(gaps[~jumps])) if (~jumps).any() else step
    gaps[jumps] = usual
    last = frames.durations[-1] * header.unit
    shortest = float(gaps.min()) if len(gaps) else 0.0
    return [*gaps.tolist(), last if last > shortest / 2 else usual], int(jumps.sum())


def _rate(times: Sequence[float], stated: float) -> float | None:
    """The stated rate where the times bear it out (it is exact where they are rounded), otherwise theirs."""
    if len(times) < 2:
        return stated or None
    measured = (len(times) - 1) / times[-1]
    return stated if abs(stated / measured - 1) < 0.01 else measured


def _entries(packets: _Packets, frames: _Frames) -> tuple[int, ...]:
    """Positions of key frames; none where times do not tell frames apart."""
    stamps = np.asarray(frames.stamps, dtype=np.int64)
    if (np.diff(stamps) <= 0).any():
        return ()
    keys = np.asarray(packets.stamps)[np.asarray(packets.keys, dtype=bool)]
    return tuple(np.flatnonzero(np.isin(stamps, keys)).tolist())


def _notes(packets: _Packets, frames: _Frames, jumps: int) -> Iterator[str]:
    if packets.hidden:
        total = packets.hidden + len(frames.stamps)
        yield f"The file's edit list leaves out {packets.hidden} of {total} frames."
    if frames.left_out:
        one = frames.left_out == 1
        count, were, refer = (
            ("1 frame", "was", "it refers") if one else (f"{frames.left_out} frames", "were", "they refer")
        )
        yield f"{count} at the beginning {were} left out: what {refer} to is not in the file."
    if frames.silent:
        yield f"{frames.silent} of the file's {len(packets.stamps)} packets show nothing."
    if packets.empty:
        yield f"The file drops {packets.empty} frames: those before them are shown longer."
    if jumps:
        often = "once" if jumps == 1 else f"{jumps} times"
        yield f"The file's timestamps jump {often}: the usual time between frames is taken there."
