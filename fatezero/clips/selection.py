"""Which of a source's frames a clip takes, and when each of them is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fatezero.clips.encode import FASTEST, SLOWEST
from fatezero.clips.source import MAX_FRAMES, Source
from fatezero.data.timecode import parse_time
from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero.types import ClipSpec, Sound, Timing

UNTIMED_FPS = 8.0  # for images, which state no rate
_MILLISECOND = 1e-3  # containers round times, many to this
_SLACK = 0.05  # of a tick, for the same reason


@dataclass(frozen=True)
class Shown:
    """Frames of a source in the order in which they are shown.

    Attributes:
        indices: which they are.
        edges: seconds from the source's first frame to the begin of each, and to the end of the last.
        fps: frames per second, the mean where the rate varies.
        clip_end: seconds to the end of the source.
    """

    indices: Sequence[int]
    edges: npt.NDArray[np.float64]
    fps: float
    clip_end: float

    @property
    def even(self) -> bool:
        """Whether the rate places each frame to a millisecond, which is how finely many files state times."""
        begins = self.edges[:-1] - self.edges[0]
        return bool(np.abs(begins - np.arange(len(begins)) / self.fps).max() <= _MILLISECOND)

    @property
    def rates(self) -> tuple[float, float]:
        """Frames per second where they follow each other slowest and fastest."""
        gaps = np.full(1, 1 / self.fps) if self.even else np.maximum(np.diff(self.edges), 1e-9)
        return float(1 / gaps.max()), float(1 / gaps.min())


def at_rate(source: Source, fps: float | None) -> tuple[Shown, list[str]]:
    """Which frame is on screen at each tick of the wanted rate; the file's own frames if none is wanted.

    Raises:
        UserError: too many ticks.
    """
    count = len(source.times)
    if source.fps is None:
        rate = fps or UNTIMED_FPS
        shown = Shown(range(count), np.arange(count + 1) / rate, rate, count / rate)
        return shown, [f"Images state no rate: taken as {rate:g} frames a second."]
    edges = np.asarray([*source.times, source.duration])
    own = Shown(range(count), edges, source.fps, source.duration)
    if fps is None:
        slowest, fastest = own.rates
        varies = f"The frame rate varies ({slowest:.4g} to {fastest:.4g} a second): times are kept."
        return own, [] if own.even else [varies]
    if own.even and math.isclose(fps, source.fps, rel_tol=1e-3):
        return own, []
    ticks = max(1, math.ceil(source.duration * fps - _SLACK))
    if ticks > MAX_FRAMES:
        raise UserError(
            f"{source.path} lasts {source.duration:g} s, which makes {ticks} frames at {fps:g} a second (at most "
            f"{MAX_FRAMES}); ask for a lower fps, or cut the file into shorter ones."
        )
    on_screen = np.searchsorted(edges[:-1], (np.arange(ticks) + _SLACK) / fps, side="right") - 1
    repeated = ticks - len(np.unique(on_screen))
    note = f"Resampled from {source.fps:g} to {fps:g} frames a second: {count} frames became {ticks}"
    shown = Shown(on_screen.tolist(), np.arange(ticks + 1) / fps, fps, source.duration)
    return shown, [f"{note}, {repeated} of them repeats." if repeated else f"{note}."]


def in_range(spec: ClipSpec, shown: Shown) -> tuple[Shown, list[str]]:
    """The frames that a spec asks for, and a note if they are not all.

    Raises:
        UserError: they are not there.
    """
    count = len(shown.indices)
    start = spec.start if isinstance(spec.start, int) else _frame_at(spec, shown)
    available = range(start, count, spec.stride)
    wanted = _wanted(spec, shown, available)
    if wanted > len(available) or not available:
        at_rate = f" at {spec.fps:g} a second" if spec.fps else ""
        raise UserError(
            f"{spec.path} has {count} frames{at_rate}, which leaves {len(available)} from frame "
            f"{start} with stride {spec.stride}, but {spec.frames or 'some'} are asked for; "
            "ask for fewer, start earlier or take a smaller stride."
        )
    taken = available[:wanted]
    edges = np.append(shown.edges[list(taken)], shown.edges[min(taken[-1] + spec.stride, count)])
    indices = [shown.indices[place] for place in taken]
    chosen = Shown(indices, edges, shown.fps / spec.stride, shown.clip_end)
    if len(taken) == count:
        return chosen, []
    stride = f" with stride {spec.stride}" if spec.stride > 1 else ""
    return chosen, [f"Took frames {start} to {taken[-1]}{stride} ({wanted} of {count})."]


def _frame_at(spec: ClipSpec, shown: Shown) -> int:
    """The frame on screen at the time at which a clip is to start."""
    time = _time(spec, "start")
    if time >= shown.edges[-1]:
        raise UserError(
            f"{spec.path} lasts {shown.edges[-1]:.3f} s, but it is to start at {spec.start}; start earlier."
        )
    return int(np.searchsorted(shown.edges, time + _MILLISECOND / 2, side="right")) - 1


def _wanted(spec: ClipSpec, shown: Shown, available: Sequence[int]) -> int:
    """How many of the available frames are asked for; those that begin within a stated time."""
    if spec.frames is None or not available:
        return len(available)
    if isinstance(spec.frames, int):
        return spec.frames
    begin = shown.edges[available[0]] if isinstance(spec.start, int) else _time(spec, "start")
    end = begin + _time(spec, "frames")
    if end > shown.edges[-1] + _MILLISECOND:
        raise UserError(
            f"{spec.path} lasts {shown.edges[-1]:.3f} s, but {spec.frames} from {begin:.3f} s on are asked "
            "for; ask for less, or start earlier."
        )
    wanted = int(np.sum(shown.edges[list(available)] < end - _MILLISECOND / 2))
    if not wanted:
        raise UserError(f"{spec.path}: no frame begins within {spec.frames} from {begin:.3f} s on; ask for longer.")
    return wanted


def _time(spec: ClipSpec, name: str) -> float:
    try:
        return parse_time(str(getattr(spec, name)))
    except ValueError as error:
        raise UserError(
            f"clip {spec.path}: {name} is {quoted(getattr(spec, name))}; {error}, or count frames."
        ) from None


def timing_of(path: str, shown: Shown) -> Timing:
    """The rate, where it is even; otherwise times.

    Raises:
        UserError: frames are shown faster or slower than video files can.
    """
    slowest, fastest = shown.rates
    if not SLOWEST <= slowest <= fastest <= FASTEST:
        rates = f"{slowest:g}" if shown.even else f"{slowest:g} to {fastest:g}"
        raise UserError(
            f"{path}: {rates} frames a second is no rate of a video ({SLOWEST} to {FASTEST}); ask for another fps or "
            "stride, or re-encode the clip at its true rate."
        )
    return shown.fps if shown.even else tuple((shown.edges - shown.edges[0]).tolist())


def sound_of(source: Source, taken: Shown) -> Sound | None:
    """The sound while the frames are shown; all of it where they are shown to the end."""
    if source.sound is None:
        return None
    start, end = taken.edges[0], taken.edges[-1]
    cut = None if end >= taken.clip_end else source.sound.start + float(end)
    return Sound(source.sound.path, source.sound.start + float(start), cut)
