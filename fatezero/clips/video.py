"""Clips in and out: the door to decoding, choosing, scaling and encoding frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from fatezero.clips.encode import FASTEST, SLOWEST, write_frames, write_video
from fatezero.clips.masks import open_mask
from fatezero.clips.opening import open_source
from fatezero.clips.panels import side_by_side
from fatezero.clips.selection import at_rate, in_range, sound_of, timing_of
from fatezero.clips.source import Frame, Source, naming
from fatezero.errors import UserError
from fatezero.types import Clip, ClipSpec, CompanionSpec, Frames, Sound, Timing, mean_rate

__all__ = ["VideoInfo", "iter_frames", "probe", "read_clip", "side_by_side", "write_frames", "write_video"]

MAX_ASKED_SIDE = 8192  # rows or columns asked for: 8K video, more than any checkpoint takes
MEMORY_SHARE = 0.5  # of the memory that is available, for a decoded clip: the work needs the rest


@dataclass(frozen=True)
class VideoInfo:
    """What a clip will be once it is read.

    Attributes:
        kind: what the file is, such as "h264 in mp4".
        frames: their number.
        height: rows.
        width: columns.
        timing: when each is shown.
        indices: which of the file's own frames they are.
        file_frames: how many the file has.
        notes: one sentence for each thing that is done to the file's own frames.
        sound: None where there is none, or it is dropped.
    """

    kind: str
    frames: int
    height: int
    width: int
    timing: Timing
    indices: Sequence[int]
    file_frames: int
    notes: tuple[str, ...] = ()
    sound: Sound | None = None

    @property
    def fps(self) -> float:
        """Frames per second, the mean where the rate varies."""
        return mean_rate(self.timing)


def probe(clip: str | Path | ClipSpec | CompanionSpec) -> VideoInfo:
    """What `read_clip` would return, from headers and index; of some kinds all frames are decoded for that.

    Raises:
        UserError: as `read_clip`, as far as it shows.
    """
    plan = _plan(clip)
    return VideoInfo(
        kind=plan.source.kind,
        frames=len(plan.indices),
        height=plan.height,
        width=plan.width,
        timing=plan.timing,
        indices=plan.indices,
        file_frames=len(plan.source.times),
        notes=plan.notes,
        sound=plan.sound,
    )


def read_clip(spec: ClipSpec | CompanionSpec) -> Clip:
    """Decodes the frames that a spec names, at the size it names.

    Returns:
        uint8 frames F,H,W,3 RGB with their times and sound, and notes that say how they came about.

    Raises:
        UserError: the file is missing, not readable, not a video or damaged; it has too few frames, or more than
            the memory holds; the spec is impossible.
    """
    plan = _plan(spec)
    _check_memory(plan, len(plan.indices))
    frames = np.empty((len(plan.indices), plan.height, plan.width, 3), dtype=np.uint8)
    for index, frame in enumerate(plan.decoded()):
        frames[index] = frame
    return Clip(frames, plan.timing, plan.notes, plan.sound, str(plan.source.path))


def iter_frames(clip: str | Path | ClipSpec | CompanionSpec, chunk: int) -> Iterator[Frames]:
    """The frames of a file, or those a spec names, `chunk` at a time: memory does not grow with the clip.

    Yields:
        uint8 frames f,H,W,3 RGB with f = chunk, less at the end.

    Raises:
        UserError: as `read_clip`.
    """
    plan = _plan(clip)
    _check_memory(plan, min(chunk, len(plan.indices)))
    frames: list[Frame] = []
    for frame in plan.decoded():
        frames.append(frame)
        if len(frames) == chunk:
            yield _handed_over(frames)
    if frames:
        yield _handed_over(frames)


def _handed_over(frames: list[Frame]) -> Frames:
    """All frames of a list, which is empty then: whoever waits for the next ones holds none of these twice."""
    stacked = np.stack(frames)
    frames.clear()
    return stacked


@dataclass(frozen=True)
class _Plan:
    source: Source
    indices: Sequence[int]
    timing: Timing
    height: int
    width: int
    fit: str
    scale: Callable[[Frame], Frame]
    notes: tuple[str, ...]
    sound: Sound | None

    def decoded(self) -> Iterator[Frame]:
        """The frames, at their size; decoders' errors, whatever they are, name the file."""
        with naming(self.source.path, "a clip"):
            yield from map(self.scale, self.source.decode(self.indices))


def _plan(clip: str | Path | ClipSpec | CompanionSpec) -> _Plan:
    if isinstance(clip, CompanionSpec):
        content = clip.content
        return _beside(_plan(clip.clip), open_source(content) if isinstance(content, str) else open_mask(content))
    spec = clip if isinstance(clip, ClipSpec) else ClipSpec(path=str(clip))
    _check(spec)
    with naming(spec.path, "a clip"):
        source = open_source(spec.path, spec.stream)
    shown, rate_notes = at_rate(source, spec.fps)
    taken, range_notes = in_range(spec, shown)
    height, width = spec.height or source.height, spec.width or source.width
    scale, size_notes = _to_size(source, height, width, spec.fit)
    timing = timing_of(spec.path, taken)
    notes = (source.reader(taken.indices), *source.notes, *rate_notes, *range_notes, *size_notes)
    sound = sound_of(source, taken) if spec.audio == "keep" else None
    return _Plan(source, taken.indices, timing, height, width, spec.fit, scale, notes, sound)


def _beside(plan: _Plan, other: Source) -> _Plan:
    """The plan of a clip carried out on what lies beside it.

    Raises:
        UserError: it does not have the frames, or the size, that the clip has.
    """
    own = plan.source
    if len(other.times) <= max(plan.indices):
        raise UserError(
            f"{other.path} has {_frames(len(other.times))}, but frame {max(plan.indices)} of {own.path.name} (counted "
            "from 0) is taken too: give it a frame for each of the clip's."
        )
    if len(other.times) > len(own.times):
        raise UserError(
            f"{other.path} has {_frames(len(other.times))}, {own.path} only {len(own.times)}: give its own."
        )
    if (other.height, other.width) not in {(own.height, own.width), (plan.height, plan.width)}:
        raise UserError(
            f"{other.path} is {other.width}x{other.height}, the clip {own.width}x{own.height}: bring both to one size."
        )
    scale, _ = _to_size(other, plan.height, plan.width, plan.fit)
    return replace(plan, source=other, scale=scale, notes=other.notes, sound=None)


def _frames(count: int) -> str:
    return f"{count} frame{'s' if count > 1 else ''}"


def _check(spec: ClipSpec) -> None:
    for name in ("frames", "stride", "fps", "height", "width"):
        value = getattr(spec, name)
        if value is not None and not isinstance(value, str) and not 0 < value < math.inf:
            raise UserError(f"clip {spec.path}: {name} is {value}; it must be above zero.")
    for name in ("height", "width"):
        if (getattr(spec, name) or 0) > MAX_ASKED_SIDE:
            raise UserError(f"clip {spec.path}: {name} is {getattr(spec, name)}; ask for at most {MAX_ASKED_SIDE}.")
    if spec.fps is not None and not SLOWEST <= spec.fps <= FASTEST:
        raise UserError(f"clip {spec.path}: fps is {spec.fps}; choose between {SLOWEST} and {FASTEST}.")
    for name in ("start", "stream"):
        value = getattr(spec, name)
        if isinstance(value, int) and value < 0:
            raise UserError(f"clip {spec.path}: {name} is {value}; it is counted from 0.")
    for name, choices in (("fit", ("crop", "right", "stretch")), ("audio", ("keep", "drop"))):
        value = getattr(spec, name)
        if value not in choices:
            raise UserError(f"clip {spec.path}: {name} is {value!r}; choose one of {', '.join(choices)}.")


def _check_memory(plan: _Plan, frames: int) -> None:
    """Refuse, before anything is allocated, what would not fit into the memory beside the work."""
    needed, available = frames * plan.height * plan.width * 3, MEMORY_SHARE * psutil.virtual_memory().available
    if needed > available:
        raise UserError(
            f"{plan.source.path}: {frames} frames of {plan.width}x{plan.height} need {needed / 1e9:.1f} GB, but "
            f"{available / 1e9:.1f} GB may be used (half of what is free); ask for fewer frames or a smaller size."
        )


def _to_size(source: Source, height: int, width: int, fit: str) -> tuple[Callable[[Frame], Frame], list[str]]:
    """Scales (antialiased bicubic) and crops the centre or the right; leaves frames of that size alone."""
    if (height, width) == (source.height, source.width):
        return lambda frame: frame, []
    before, after = f"{source.width}x{source.height}", f"{width}x{height}"
    if fit == "stretch":
        box = (0.0, 0.0, float(source.width), float(source.height))
        return _resampler(box, height, width), [f"Stretched from {before} to {after}."]
    kept_part = "right" if fit == "right" else "centre"
    factor = max(height / source.height, width / source.width)
    if factor == 1:
        row, column = (source.height - height) // 2, (source.width - width) // (1 if fit == "right" else 2)
        note = f"Cropped the {kept_part} {after} of {before}."
        return lambda frame: frame[row : row + height, column : column + width], [note]
    kept_height, kept_width = min(height / factor, source.height), min(width / factor, source.width)
    top, left = (source.height - kept_height) / 2, (source.width - kept_width) / (1 if fit == "right" else 2)
    box = (left, top, left + kept_width, top + kept_height)
    kept = f"{kept_width:.0f}x{kept_height:.0f}"
    part = "" if kept == before else f"the {kept_part} {kept} of "
    return _resampler(box, height, width), [f"Scaled {part}{before} to {after}."]


def _resampler(box: tuple[float, float, float, float], height: int, width: int) -> Callable[[Frame], Frame]:
    def scale(frame: Frame) -> Frame:
        image = Image.fromarray(np.ascontiguousarray(frame))
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box))

    return scale
