"""Finished segments of a long clip on disk, and the clip's result that they make together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
from fatezero.runs.segments import Segment
from fatezero.system.publishing import replacing
from fatezero.system.terminal import complain

ABOUT = "about"  # what a segment is and took, as JSON beside its tensors, so that their digest covers it


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
            source=replace(last.source, frames=joined["source_frames"].numpy()),
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
