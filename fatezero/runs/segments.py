"""Long clips in segments that can be worked on apart, where frames meet only through anchors.

A segment is a shorter clip: its own frames and the anchors. What an anchor becomes depends on the anchors alone, so
every segment works it out alike, and together they are the edit of the whole clip, to rounding.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fatezero.attention.key_frames import anchor_frames, cut_into_chunks, middle_frame
from fatezero.config import MethodConfig
from fatezero.data.files import parse_json
from fatezero.data.layout import segment_folder
from fatezero.errors import UserError
from fatezero.results import EditResult
from fatezero.runs.kept_tensors import (
    DamagedFileError,
    check_numbers,
    opened_tensors,
    remove_whatever,
    shapes_in,
    whole_tensors,
    write_tensors,
)
from fatezero.system.publishing import replacing
from fatezero.system.terminal import complain
from fatezero.types import Frames

ABOUT = "about"  # what a segment is and took, as JSON beside its tensors, so that their digest covers it


@dataclass(frozen=True)
class Segment:
    """Part of a clip.

    Attributes:
        start: index of its first own frame.
        size: own frames of a segment; the last has what is left.
        length: frames of the whole clip.
    """

    start: int
    size: int
    length: int

    @property
    def stop(self) -> int:
        """Index after its last own frame."""
        return min(self.start + self.size, self.length)

    @property
    def all(self) -> list[Segment]:
        """Every segment of the clip, in order."""
        return [replace(self, start=start) for start in range(0, self.length, self.size)]

    def frames(self, method: MethodConfig) -> list[int]:
        """The clip's frames that are needed: its own and the anchors, rising."""
        return sorted(anchor_frames(method.key_frames, self.length) | set(range(self.start, self.stop)))

    def middle(self, method: MethodConfig) -> int | None:
        """Where the clip's middle frame is among them; None where nothing asks for it."""
        needed, middle = self.frames(method), middle_frame(self.length)
        return needed.index(middle) if middle in needed else None

    def own(self, method: MethodConfig) -> list[int]:
        """Where its own frames are among them."""
        return [place for place, frame in enumerate(self.frames(method)) if self.start <= frame < self.stop]


def cut_clip(length: int, size: int, method: MethodConfig) -> list[Segment]:
    """A clip's segments; none where it is no longer than one.

    Args:
        length: frames of the clip.
        size: own frames of a segment.
        method: says how frames meet.

    Raises:
        UserError: if frames meet in other ways than through anchors.
    """
    if length <= size:
        return []
    cut_into_chunks(length, method.key_frames, method.norm_scope, size)  # refuses what ties all frames together
    return Segment(0, size, length).all


def own_part(result: EditResult, segment: Segment) -> EditResult:
    """Drop the anchor frames from a segment's result."""
    own = segment.own(result.target.method)
    return replace(
        result,
        frames=result.frames[own],
        source_frames=result.source_frames[own],
        latents=result.latents[own],
        masks=None if result.masks is None else result.masks[own],
        attention={word: maps[own] for word, maps in result.attention.items()},
    )


class SegmentFolder:
    """Finished segments of one result, kept until all are there."""

    def __init__(self, result: Path, digest: str) -> None:
        """Take the result's folder and the digest of its job."""
        self._folder = segment_folder(result, digest)
        self._digest = digest

    def holds(self, segment: Segment) -> bool:
        """Whether a segment is there, whole; a damaged one counts as missing, and the user is told once."""
        path = self._file(segment)
        try:
            status = path.stat()
            return _is_whole(path, self._digest, segment, (status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            return False

    def keep(self, segment: Segment, result: EditResult) -> None:
        """Put a segment's own part away.

        Raises:
            UserError: it cannot be written.
        """
        about = {
            **_identity(self._digest, segment),
            "seconds": dict(result.seconds),
            "kept": dict(result.bytes_kept),
            "peak": result.peak_memory_bytes,
        }
        written = torch.frombuffer(bytearray(json.dumps(about).encode()), dtype=torch.uint8)
        with replacing(self._file(segment)) as partial:
            write_tensors(partial, {**_tensors(result), ABOUT: written}, {})

    def assemble(self, segments: Sequence[Segment], last: EditResult) -> EditResult:
        """The result of the whole clip.

        Args:
            segments: all of the clip's, which are there.
            last: any segment's result, for what they share.

        Raises:
            UserError: one is damaged by now; it is taken away.
        """
        loaded = [self._load(segment, last) for segment in segments]
        joined = {name: torch.cat([tensors[name] for tensors, _ in loaded]) for name in _tensors(last)}
        about = [about for _, about in loaded]
        return replace(
            last,
            frames=joined["frames"].numpy(),
            source_frames=joined["source_frames"].numpy(),
            latents=joined["latents"],
            masks=joined["masks"].numpy() if "masks" in joined else None,
            attention={word: joined[f"attention {word}"].numpy() for word in last.attention},
            bytes_kept=reduce(_largest, (entry["kept"] for entry in about)),
            seconds={stage: sum(entry["seconds"][stage] for entry in about) for stage in last.seconds},
            peak_memory_bytes=max(entry["peak"] for entry in about),
        )

    def discard(self) -> None:
        """Take the segments away."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _load(self, segment: Segment, like: EditResult) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A segment's tensors, in shapes and dtypes as another's, and what it took."""
        path = self._file(segment)
        try:
            return _read(path, self._digest, segment, like)
        except (DamagedFileError, OSError) as error:
            with suppress(OSError):
                remove_whatever(path)
            raise UserError(f"{path} was damaged ({error}) and is taken away; run again to make it again.") from error

    def _file(self, segment: Segment) -> Path:
        return self._folder / f"{segment.start:06d}-{segment.stop:06d}.safetensors"


def _identity(digest: str, segment: Segment) -> dict[str, Any]:
    """Which segment of which job a file holds."""
    return {"job": digest, "start": segment.start, "stop": segment.stop}


def _tensors(result: EditResult) -> dict[str, Tensor]:
    """What is kept of a result, frames first in every shape."""
    tensors = {"frames": torch.from_numpy(result.frames), "source_frames": torch.from_numpy(result.source_frames)}
    if result.masks is not None:
        tensors["masks"] = torch.from_numpy(result.masks)
    tensors |= {f"attention {word}": torch.from_numpy(maps) for word, maps in result.attention.items()}
    return {"latents": result.latents} | tensors


@lru_cache(maxsize=4096)
def _is_whole(path: Path, digest: str, segment: Segment, version: tuple[int, ...]) -> bool:  # noqa: ARG001
    """Whether a file is sound; read once for each version of it, as every segment's job asks for all of them."""
    try:
        _read(path, digest, segment)
    except DamagedFileError as error:
        complain(f"{path} is damaged ({error}) and counts for nothing: its frames are edited again.")
        return False
    return True


def _read(
    path: Path, digest: str, segment: Segment, like: EditResult | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A segment's tensors and what it took.

    Raises:
        DamagedFileError: they are not what they should be.
        OSError: they cannot be read.
    """
    count = segment.stop - segment.start
    with opened_tensors(path) as file:
        shapes = shapes_in(file)
        shapes.pop(ABOUT, None)
        expected = {name: (count, *tensor.shape[1:]) for name, tensor in _tensors(like).items()} if like else shapes
        if shapes != expected or not shapes or any(shape[:1] != (count,) for shape in shapes.values()):
            raise DamagedFileError(f"it holds tensors of {shapes}")
        tensors = whole_tensors(file)
        about = parse_json(bytes(tensors.pop(ABOUT).numpy()).decode())
        if _identity(digest, segment) != {name: about[name] for name in _identity(digest, segment)}:
            raise DamagedFileError("it belongs to another edit or to other frames")
        if like is not None:
            _check_took(about, like)
            for name, tensor in _tensors(like).items():
                check_numbers(name, tensors[name], tensor.dtype)
    return tensors, about


def _check_took(about: Mapping[str, Any], like: EditResult) -> None:
    """Refuse what a segment took where it is not told in numbers of the same things as another's."""
    seconds, kept = dict(about["seconds"]), dict(about["kept"])
    numbers = (*seconds.values(), *kept.values(), about["peak"])
    same = seconds.keys() == like.seconds.keys() and kept.keys() == like.bytes_kept.keys()
    if not same or not all(isinstance(number, int | float) for number in numbers):
        raise DamagedFileError("it does not say what it took")


def _largest(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one[name], other[name]) for name in one}


def needed_frames(frames: Frames, segment: Segment, method: MethodConfig) -> Frames:
    """Of a clip's frames, those that a segment needs."""
    return frames[segment.frames(method)]
