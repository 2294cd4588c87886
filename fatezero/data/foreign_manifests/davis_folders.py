"""DAVIS 2016 and 2017: a folder of sequences with their masks, and its lists of sequences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fatezero.data.entry import Entry, read_text
from fatezero.data.files import open_local
from fatezero.data.foreign_manifests.lookups import first_there, is_there
from fatezero.errors import UserError

_FRAMES, _LISTS = "JPEGImages", "ImageSets"
_MASKS = ("Annotations", "Annotations_unsupervised")
_RESOLUTIONS = ("480p", "1080p", "Full-Resolution")  # the first that is there: metrics are computed at 480p


def is_davis(folder: Path) -> bool:
    """Whether a folder holds DAVIS's frames."""
    return _resolution(folder) is not None


def is_davis_list(path: Path) -> bool:
    """Whether a path is one of DAVIS's lists, such as `DAVIS/ImageSets/2017/val.txt`."""
    return path.suffix == ".txt" and _LISTS in path.parts


def davis_of_list(path: Path) -> Path:
    """The folder of DAVIS that one of its lists belongs to."""
    return next(folder.parent for folder in path.parents if folder.name == _LISTS)


def davis(folder: Path) -> Iterator[Entry]:
    """All sequences of a DAVIS folder. DAVIS knows clips and masks but no edits: its prompts are empty."""
    resolution = _resolution(folder)
    if resolution is None:
        raise UserError(
            f"{folder} holds no {_FRAMES}/{_RESOLUTIONS[0]}, and no videos: name a manifest file, the folder of DAVIS "
            "or one of its lists, or a folder of videos that are named by their prompts."
        )
    frames = folder / _FRAMES / resolution
    open_local(frames)
    for sequence in sorted(path.name for path in frames.iterdir() if path.is_dir()):
        yield _sequence(Entry(folder, f"sequence {sequence!r}", {}), folder, resolution, sequence)


def davis_list(path: Path, folder: Path) -> Iterator[Entry]:
    """The sequences of one of DAVIS's lists.

    Args:
        path: a list of names (`ImageSets/2016` and `2017`), or of frames with their masks (DAVIS 2016's
            `ImageSets/480p` and `1080p`, of that resolution).
        folder: the folder of DAVIS.
    """
    stated = path.parent.name
    resolution = stated if stated in _RESOLUTIONS else _resolution(folder) or _RESOLUTIONS[0]
    listed: dict[str, Entry] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if words := line.split():
            parts = PurePosixPath(words[0].lstrip("/")).parts
            sequence = parts[2] if parts[0] == _FRAMES and len(parts) > 2 else words[0]
            listed.setdefault(sequence, Entry(path, f"line {number}", {}))
    for sequence, entry in listed.items():
        yield _sequence(entry, folder, resolution, sequence)


def _sequence(entry: Entry, folder: Path, resolution: str, sequence: str) -> Entry:
    masks = first_there(folder, *(f"{name}/{resolution}/{sequence}" for name in _MASKS))
    return entry.restated(
        id=sequence,
        clip=f"{_FRAMES}/{resolution}/{sequence}",
        source_prompt="",
        target_prompt="",
        truth={"mask": masks} if is_there(folder / masks) else {},
    )


def _resolution(folder: Path) -> str | None:
    return next((name for name in _RESOLUTIONS if is_there(folder / _FRAMES / name)), None)
