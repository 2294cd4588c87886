"""The sound beside written frames: copied where the file can hold it as it is, otherwise cut and encoded anew.

Sound at time t of its file is heard while the frame shown at t is. No more than a moment of it is held in memory.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any

import av

from fatezero.clips.source import naming, undecodable
from fatezero.clips.streams import opened
from fatezero.errors import UserError, attempt
from fatezero.types import Sound

_SOUND = "a file of sound"
_RUN_UP = 0.5  # seconds before the first frame that a decoder is given to find its feet; they are not heard
_GAP = 0.02  # seconds: a longer one between two frames of sound is silence, a shorter one the container's rounding
_LONGEST_GAP = 60  # seconds between two packets, as a gap becomes so much silence in memory
_JITTER = 0.002  # seconds by which containers that count in milliseconds misplace a packet
_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")  # by channels, known to both encoders
_BITS = 96_000  # a second and channel: hard to tell from the source


@dataclass(frozen=True)
class _Holds:
    """What a kind of video file holds as sound.

    Attributes:
        codecs: what players expect in it.
        encoder: for all others.
        hides: whether it can say that packets before the first frame are not heard.
    """

    codecs: frozenset[str]
    encoder: str
    hides: bool


_KINDS = {
    ".mp4": _Holds(frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}), "aac", hides=True),
    ".webm": _Holds(frozenset({"opus", "vorbis"}), "libopus", hides=False),
}


@dataclass(frozen=True)
class Soundtrack:
    """A clip's sound, known to be sound as a whole, on its way into a file.

    Attributes:
        sound: which part of which file.
        encoder: FFmpeg's name; None copies the packets as they are.
        rate: samples per second as written.
        layout: channels as written.
        note: one sentence on what becomes of it.
    """

    sound: Sound
    encoder: str | None
    rate: int
    layout: str
    note: str

    def packets(self, container: Any) -> Generator[Any, None, None]:
        """Add a stream to an open output, then yield its packets in order, timed from the clip's first frame."""
        return self._copied(container) if self.encoder is None else self._encoded(container)

    def frames(self) -> Iterator[Any]:
        """Decode what is heard, cut to the sample; gaps inside are filled with silence, none is added around.

        Yields:
            PyAV's frames, at this rate and layout, timed from the clip's first frame in 1 / rate seconds.

        Raises:
            UserError: the sound is damaged.
        """
        graph: Any = None
        with _opened(self.sound) as source:
            for frame in _decoded(source, self.sound):
                graph = graph or self._graph(frame)
                graph.push(frame)
                yield from self._pulled(graph)
            if graph is not None:
                graph.push(None)
                yield from self._pulled(graph)

    def _graph(self, first: Any) -> Any:
        graph = av.filter.Graph()
        cut = {"start_pts": str(round(self.sound.start * self.rate))}
        if self.sound.end is not None:
            cut["end_pts"] = str(round(self.sound.end * self.rate))
        parts = (
            graph.add_abuffer(
                sample_rate=first.sample_rate, format=first.format, layout=first.layout, time_base=first.time_base
            ),
            graph.add("aresample", **{"async": "1", "min_hard_comp": str(_GAP)}),
            graph.add("aformat", sample_rates=str(self.rate), channel_layouts=self.layout),
            graph.add("atrim", **cut),
            graph.add("abuffersink"),
        )
        graph.link_nodes(*parts).configure()
        return graph

    def _pulled(self, graph: Any) -> Iterator[Any]:
        while True:
            try:
                frame = graph.pull()
            except (av.BlockingIOError, EOFError):  # until it is given more
                return
            frame.pts -= round(self.sound.start * self.rate)
            yield frame

    def _encoded(self, container: Any) -> Generator[Any, None, None]:
        stream = container.add_stream(self.encoder, rate=self.rate, options={"flags": "+bitexact"})
        stream.codec_context.layout = self.layout
        stream.codec_context.bit_rate = _BITS * stream.codec_context.layout.nb_channels
        stream.codec_context.thread_count = 1
        for frame in self.frames():
            yield from stream.encode(frame)
        yield from stream.encode()

    def _copied(self, container: Any) -> Generator[Any, None, None]:
        with _opened(self.sound) as source:
            original = source.streams.best("audio")
            stream = container.add_stream_from_template(original)
            samples = original.codec_context.frame_size  # in each packet; 0 where that varies
            at = follows = -sys.maxsize
            for packet in _near(source, self.sound):
                if not packet.size:
                    continue  # the flush at the end
                time = _samples(packet.pts * packet.time_base, self.rate) - _samples(self.sound.start, self.rate)
                at = follows if samples and abs(time - follows) <= _JITTER * self.rate else max(time, at + 1)
                lasts = samples or _samples(packet.duration * packet.time_base, self.rate)
                lasts = lasts or sum(frame.samples for frame in packet.decode())
                packet.stream, packet.time_base = stream, Fraction(1, self.rate)
                packet.pts, packet.dts, packet.duration = at, at, lasts
                follows = at + lasts
                yield packet


def plan_soundtrack(sound: Sound, suffix: str) -> tuple[Soundtrack | None, str]:
    """What becomes of a clip's sound in a file; all of it is decoded once, since an edit must not end at its damage.

    Returns:
        The soundtrack, None where the sound has to be left out, and one sentence that says so.
    """
    if suffix not in _KINDS:
        return None, f"The sound is left out: {suffix} files hold none."
    track = attempt(lambda: _whole(sound, suffix))
    return (None, f"The sound is left out: {track}") if isinstance(track, UserError) else (track, track.note)


def _whole(sound: Sound, suffix: str) -> Soundtrack:
    """The soundtrack, decoded once.

    Raises:
        UserError: the sound is damaged, has too many channels, or there is none to be heard.
    """
    with _opened(sound) as source:
        track = _planned(sound, source, suffix)
    if not sum(frame.samples for frame in track.frames()):
        raise UserError(f"{sound.path} has none while these frames are shown.")
    return track


def _planned(sound: Sound, source: Any, suffix: str) -> Soundtrack:
    kind, stream = _KINDS[suffix], source.streams.best("audio")
    if stream is None or stream.codec_context is None:
        raise undecodable(sound.path, _SOUND, "no sound that can be decoded")
    codec, rate = stream.codec.canonical_name, stream.codec_context.sample_rate
    channels = stream.codec_context.layout.nb_channels
    if not 0 < channels <= len(_LAYOUTS):
        raise UserError(f"{sound.path} has {channels} channels of it (at most {len(_LAYOUTS)} can be written).")
    layout = _LAYOUTS[channels - 1]
    which = f" (stream {stream.index} of the file)" if len(source.streams.audio) > 1 else ""
    if codec in kind.codecs and sound.end is None and (kind.hides or not _begins_before(source, sound)):
        copied = Soundtrack(sound, None, rate, layout, f"The sound{which} is kept as it is ({codec}).")
        if _takes(suffix, copied):
            return copied
    rate = rate if rate in av.Codec(kind.encoder, "w").audio_rates else 48_000
    what = "The sound" if sound.end is None else "The sound of these frames"
    note = f"{what}{which} is kept, encoded anew ({codec} to {kind.encoder.removeprefix('lib')})."
    return Soundtrack(sound, kind.encoder, rate, layout, note)


def _takes(suffix: str, track: Soundtrack) -> bool:
    """Whether a file takes a sound's packets: codecs have kinds that containers refuse, such as MP3 at 8 kHz."""
    with io.BytesIO() as nowhere, closing(av.open(nowhere, "w", format=suffix[1:])) as trial:
        try:
            with closing(track.packets(trial)) as packets:
                for packet in islice(packets, 1):
                    trial.mux(packet)
        except av.FFmpegError:
            return False
    return True


def _begins_before(source: Any, sound: Sound) -> bool:
    """Whether some of the sound belongs before the first frame.

    What a decoder drops at its start does not count where a webm will say how much that is.
    """
    told = source.format.name == "matroska,webm" or source.streams.best("audio").codec.canonical_name == "opus"
    first = next(_decoded(source, sound) if told else _near(source, sound), None)
    return first is not None and float(first.pts * first.time_base) < sound.start - _JITTER


@contextmanager
def _opened(sound: Sound) -> Iterator[Any]:
    with opened(sound.path) as source, naming(sound.path, _SOUND):
        yield source


def _decoded(source: Any, sound: Sound) -> Iterator[Any]:
    """The frames of a sound, each with its time; one without follows on the one before.

    Raises:
        UserError: the first has none.
    """
    end: Fraction | None = None
    for packet in _near(source, sound):
        for frame in packet.decode():
            if frame.pts is None:
                if end is None:
                    raise undecodable(sound.path, _SOUND, "it does not say when it begins")
                frame.pts = round(end / frame.time_base)
            end = frame.pts * frame.time_base + Fraction(frame.samples, frame.sample_rate)
            yield frame


def _near(source: Any, sound: Sound) -> Iterator[Any]:
    """The packets of a sound, from a moment before it is heard to a moment after.

    Raises:
        UserError: one of them is not whole or has no time, or their times are in no order.
    """
    stream = source.streams.best("audio")
    stream.codec_context.thread_count = 1
    before: float | None = None
    for packet in source.demux(stream):
        if packet.is_corrupt and source.format.name != "mpegts":  # where two files are joined there, too
            raise undecodable(sound.path, _SOUND, "a packet is not whole")
        if packet.pts is None and packet.size:
            raise undecodable(sound.path, _SOUND, "a packet does not say when it is heard")
        if packet.pts is not None:
            at = float(packet.pts * packet.time_base)
            if before is not None and not 0 <= at - before <= _LONGEST_GAP:
                raise undecodable(sound.path, _SOUND, f"its times jump from {before:.3f} to {at:.3f} s")
            before = at
            if sound.end is not None and at > sound.end + _RUN_UP:
                return
            if at < sound.start - _RUN_UP:
                continue
        yield packet


def _samples(seconds: float | Fraction, rate: int) -> int:
    return round(seconds * rate)
