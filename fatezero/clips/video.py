"""Clips in and out: the door to decoding, choosing, scaling and encoding frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from fatezero.clips.decode import open_video
from fatezero.clips.encode import FASTEST, SLOWEST, side_by_side, write_frames, write_video
from fatezero.clips.images import ANIMATION_SUFFIXES, IMAGE_SUFFIXES, open_animation, open_folder
from fatezero.clips.source import MAX_FRAMES, Frame, Source, naming
from fatezero.data.remote import open_input
from fatezero.errors import UserError
from fatezero.types import Clip, ClipSpec, Frames

__all__ = ["VideoInfo", "iter_frames", "probe", "read_clip", "side_by_side", "write_frames", "write_video"]

UNTIMED_FPS = 8.0  # for images, which state no rate
MAX_ASKED_SIDE = 8192  # rows or columns asked for: 8K video, more than any checkpoint takes
MEMORY_SHARE = 0.5  # of the memory that is available, for a decoded clip: the work needs the rest


@dataclass(frozen=True)
class VideoInfo:
    """What a clip will be once it is read.

    Attributes:
        frames: their number.
        height: rows.
        width: columns.
        fps: frames per second, the mean where the rate varies.
        notes: one sentence for each thing that is done to the file's own frames.
    """

    frames: int
    height: int
    width: int
    fps: float
    notes: tuple[str, ...] = ()


def probe(clip: str | Path | ClipSpec) -> VideoInfo:
    """What `read_clip` would return, from headers and index; of animations alone all frames are decoded.

    Raises:
        UserError: as `read_clip`, as far as it shows.
    """
    plan = _plan(clip)
    return VideoInfo(len(plan.indices), plan.height, plan.width, plan.fps, plan.notes)


def read_clip(spec: ClipSpec) -> Clip:
    """Decodes the frames that a spec names, at the size it names.

    Returns:
        uint8 frames F,H,W,3 RGB with their rate, and notes that say how they came about.

    Raises:
        UserError: the file is missing, not readable, not a video or damaged; it has too few frames, or more than
            the memory holds; the spec is impossible.
    """
    plan = _plan(spec)
    _check_memory(plan, len(plan.indices))
    frames = np.empty((len(plan.indices), plan.height, plan.width, 3), dtype=np.uint8)
    for index, frame in enumerate(plan.decoded()):
        frames[index] = frame
    return Clip(frames, plan.fps, plan.notes)


def iter_frames(clip: str | Path | ClipSpec, chunk: int) -> Iterator[Frames]:
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
            yield np.stack(frames)
            frames.clear()
    if frames:
        yield np.stack(frames)


@dataclass(frozen=True)
class _Plan:
    source: Source
    indices: Sequence[int]
    fps: float
    height: int
    width: int
    scale: Callable[[Frame], Frame]
    notes: tuple[str, ...]

    def decoded(self) -> Iterator[Frame]:
        """The frames, at their size; decoders' errors, whatever they are, name the file."""
        with naming(self.source.path, "a clip"):
            yield from map(self.scale, self.source.decode(self.indices))


def _plan(clip: str | Path | ClipSpec) -> _Plan:
    spec = clip if isinstance(clip, ClipSpec) else ClipSpec(path=str(clip))
    _check(spec)
    with naming(spec.path, "a clip"):
        source = _open(spec.path)
    shown, fps, rate_notes = _at_rate(source, spec.fps)
    indices, range_notes = _in_range(spec, shown)
    height, width = spec.height or source.height, spec.width or source.width
    scale, size_notes = _to_size(source, height, width, spec.fit)
    if not SLOWEST <= fps / spec.stride <= FASTEST:
        raise UserError(
            f"{spec.path}: {fps / spec.stride:g} frames a second is no rate of a video ({SLOWEST} to {FASTEST}); ask "
            "for another fps or stride, or re-encode the clip at its true rate."
        )
    notes = (*source.notes, *rate_notes, *range_notes, *size_notes)
    return _Plan(source, indices, fps / spec.stride, height, width, scale, notes)


def _open(path: str) -> Source:
    local = open_input(path)
    if local.is_dir():
        return open_folder(local)
    if local.stat().st_size == 0:
        raise UserError(f"{path} is empty; copy or download it again.")
    if local.suffix.lower() in {*IMAGE_SUFFIXES, *ANIMATION_SUFFIXES}:
        return open_animation(local)
    return open_video(local)


def _check(spec: ClipSpec) -> None:
    for name in ("frames", "stride", "fps", "height", "width"):
        value = getattr(spec, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"clip {spec.path}: {name} is {value}; it must be above zero.")
    for name in ("height", "width"):
        if (getattr(spec, name) or 0) > MAX_ASKED_SIDE:
            raise UserError(f"clip {spec.path}: {name} is {getattr(spec, name)}; ask for at most {MAX_ASKED_SIDE}.")
    if spec.fps is not None and not SLOWEST <= spec.fps <= FASTEST:
        raise UserError(f"clip {spec.path}: fps is {spec.fps}; choose between {SLOWEST} and {FASTEST}.")
    if spec.start < 0:
        raise UserError(f"clip {spec.path}: start is {spec.start}; frames are counted from 0.")
    if spec.fit not in ("crop", "stretch"):
        raise UserError(f"clip {spec.path}: fit is {spec.fit!r}; choose 'crop' or 'stretch'.")


def _check_memory(plan: _Plan, frames: int) -> None:
    """Refuse, before anything is allocated, what would not fit into the memory beside the work."""
    needed, available = frames * plan.height * plan.width * 3, MEMORY_SHARE * psutil.virtual_memory().available
    if needed > available:
        raise UserError(
            f"{plan.source.path}: {frames} frames of {plan.width}x{plan.height} need {needed / 1e9:.1f} GB, but "
            f"{available / 1e9:.1f} GB may be used (half of what is free); ask for fewer frames or a smaller size."
        )


def _at_rate(source: Source, fps: float | None) -> tuple[Sequence[int], float, list[str]]:
    """Which frame is on screen at each tick of the wanted rate; the file's own frames if none is wanted."""
    count = len(source.times)
    if source.fps is None:
        rate = fps or UNTIMED_FPS
        return range(count), rate, [f"Images state no rate: taken as {rate:g} frames a second."]
    if fps is None or math.isclose(fps, source.fps, rel_tol=1e-3):
        return range(count), source.fps, []
    slack = 0.05  # of a tick: containers round times, many to milliseconds
    ticks = max(1, math.ceil(source.duration * fps - slack))
    if ticks > MAX_FRAMES:
        raise UserError(
            f"{source.path} lasts {source.duration:g} s, which makes {ticks} frames at {fps:g} a second (at most "
            f"{MAX_FRAMES}); ask for a lower fps, or cut the file into shorter ones."
        )
    shown = np.searchsorted(np.asarray(source.times), (np.arange(ticks) + slack) / fps, side="right") - 1
    repeated = ticks - len(np.unique(shown))
    note = f"Resampled from {source.fps:g} to {fps:g} frames a second: {count} frames became {ticks}"
    return shown.tolist(), fps, [f"{note}, {repeated} of them repeats." if repeated else f"{note}."]


def _in_range(spec: ClipSpec, shown: Sequence[int]) -> tuple[Sequence[int], list[str]]:
    available = shown[spec.start :: spec.stride]
    wanted = len(available) if spec.frames is None else spec.frames
    if wanted > len(available) or not available:
        at_rate = f" at {spec.fps:g} a second" if spec.fps else ""
        raise UserError(
            f"{spec.path} has {len(shown)} frames{at_rate}, which leaves {len(available)} from frame "
            f"{spec.start} with stride {spec.stride}, but {spec.frames or 'some'} are asked for; "
            "ask for fewer, start earlier or take a smaller stride."
        )
    taken = available[:wanted]
    if len(taken) == len(shown):
        return taken, []
    last = spec.start + (wanted - 1) * spec.stride
    stride = f" with stride {spec.stride}" if spec.stride > 1 else ""
    return taken, [f"Took frames {spec.start} to {last}{stride} ({wanted} of {len(shown)})."]


def _to_size(source: Source, height: int, width: int, fit: str) -> tuple[Callable[[Frame], Frame], list[str]]:
    """Scales (antialiased bicubic) and crops the centre; leaves frames alone that have the size already."""
    if (height, width) == (source.height, source.width):
        return lambda frame: frame, []
    before, after = f"{source.width}x{source.height}", f"{width}x{height}"
    if fit == "stretch":
        box = (0.0, 0.0, float(source.width), float(source.height))
        return _resampler(box, height, width), [f"Stretched from {before} to {after}."]
    factor = max(height / source.height, width / source.width)
    if factor == 1:
        row, column = (source.height - height) // 2, (source.width - width) // 2
        note = f"Cropped the centre {after} of {before}."
        return lambda frame: frame[row : row + height, column : column + width], [note]
    kept_height, kept_width = min(height / factor, source.height), min(width / factor, source.width)
    top, left = (source.height - kept_height) / 2, (source.width - kept_width) / 2
    box = (left, top, left + kept_width, top + kept_height)
    kept = f"{kept_width:.0f}x{kept_height:.0f}"
    part = "" if kept == before else f"the centre {kept} of "
    return _resampler(box, height, width), [f"Scaled {part}{before} to {after}."]


def _resampler(box: tuple[float, float, float, float], height: int, width: int) -> Callable[[Frame], Frame]:
    def scale(frame: Frame) -> Frame:
        image = Image.fromarray(np.ascontiguousarray(frame))
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box))

    return scale
