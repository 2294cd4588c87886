"""Do someone else's videos match the edits they are said to be? Found, missing, and how they differ."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal

from fatezero.clips.video import VideoInfo, probe
from fatezero.data.foreign_manifests.lookups import is_there
from fatezero.data.layout import EDITED_VIDEO, FRAMES, result_name, visible
from fatezero.data.manifest import Manifest
from fatezero.data.remote import is_remote
from fatezero.errors import UserError, attempt
from fatezero.system.terminal import shortened
from fatezero.types import EditRequest, Timing

_ROUNDING = 0.002  # seconds: two containers, each to a millisecond
SUFFIXES = (
    *(".mp4", ".m4v", ".webm", ".mov", ".mkv", ".avi", ".gif", ".webp", ".apng"),
    *(".png", ".jpg", ".jpeg", ".bmp"),  # an image is a clip of one frame
)


@dataclass(frozen=True, kw_only=True)
class MatchedVideo:
    """One edit and the video found for it.

    Attributes:
        edit: the request's id.
        video: file or folder of frames; None if there is none.
        source: what the source clip is; None if there is none, or it cannot be read.
        edited: what is taken of the video; None if it cannot be read.
        fit: how it is brought to another size.
        problem: why it cannot be scored as it is; empty if it can.
        notes: differences that do not keep it from being scored.
    """

    edit: str
    video: Path | None
    source: VideoInfo | None
    edited: VideoInfo | None
    problem: str
    notes: tuple[str, ...] = ()
    fit: Literal["right", "stretch"] = "stretch"

    def __str__(self) -> str:
        video = f" {self.video}:" if self.video else ""
        alike = "same frames, size and rate as the source" if self.source else "scored alone"
        words = self.problem or "; ".join(self.notes) or alike
        return f"{'!' if self.problem else ' '} {self.edit}:{video} {words}"


@dataclass(frozen=True)
class MatchReport:
    """What was matched and what is missing.

    Attributes:
        matches: one for each edit of the manifest.
        unused: videos in the folder that belong to no edit.
        example: a file that the folder holds, where no edit's video is found; empty otherwise.
    """

    matches: tuple[MatchedVideo, ...]
    unused: tuple[Path, ...]
    example: str = ""

    def __str__(self) -> str:
        ready = sum(not match.problem for match in self.matches)
        lines = [f"{ready} of {len(self.matches)} edits are ready to be scored; videos unused: {len(self.unused)}"]
        lines += [f"? no edit's video is there; what is there looks like {self.example}"] if self.example else []
        lines += [str(match) for match in self.matches]
        return "\n".join([*lines, *(f"? {path}: belongs to no edit of the manifest" for path in self.unused)])


def match_videos(manifest: Manifest, folder: Path, *, resize: bool = False, trim: bool = False) -> MatchReport:
    """Match the videos of a folder to a manifest's edits.

    An edit's video is where the manifest says (`video`, or as its benchmark lays results out; such a path may begin
    with the folder's own name, or lead there from the root), else `<folder>/<id>`, `<folder>/<result_name of the id>`
    or `<folder>/<clip>/<category>`: a video file, an image, a folder of frames, or one that a run or
    `EditResult.save` wrote, whose lossless frames are taken. Suffixes may be left out, or written in capitals. Of
    pictures side by side in one image, as PnPInversion writes them, the last is the edit.

    Args:
        manifest: the edits.
        folder: where the videos are.
        resize: score videos of another size, scaled to the source's.
        trim: score videos of another length, both cut to the shorter.

    Raises:
        UserError: there is no such folder, or not it but one below has the videos.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of videos on this machine; check the path.")
    places = _places(folder, manifest)
    found = _found(places)
    if not any(found.values()):
        _point_below(folder, manifest)
    matches = [
        _match(request, found[request.id], places[request.id], folder, resize=resize, trim=trim)
        for request in manifest.requests
    ]
    used = {path for paths in found.values() for path in paths}
    return MatchReport(tuple(matches), _unused(folder, used), "" if used else _example(folder))


def _places(folder: Path, manifest: Manifest) -> dict[str, list[_Place]]:
    """By edit, where its video may lie in a folder, the likeliest first."""
    alike = Counter(map(_by_clip, manifest.requests))
    places = {}
    for request in manifest.requests:
        named = _inside(folder, manifest.videos.get(request.id, ()))
        by_clip = [name for name in (_by_clip(request),) if alike[name] == 1]
        by_id = _inside(folder, [request.id, result_name(request.id), *by_clip])
        places[request.id] = [*(_Place(path, True) for path in named), *(_Place(path, False) for path in by_id)]
    return places


def _found(places: Mapping[str, Sequence[_Place]]) -> dict[str, list[Path]]:
    """By edit, what is there at the likeliest place that has anything."""
    shelf = _Shelf()
    return {edit: next(filter(None, map(shelf.at, possible)), []) for edit, possible in places.items()}


def _point_below(folder: Path, manifest: Manifest) -> None:
    """Say where the videos are, if a folder below has some, such as that of one of several methods.

    Raises:
        UserError: it has.
    """
    for below in (path for pattern in ("*", "*/*") for path in visible(folder, pattern) if path.is_dir()):
        found = _found(_places(below, manifest))
        count = sum(any(not _is_source(request, path) for path in found[request.id]) for request in manifest.requests)
        if count:
            raise UserError(
                f"{folder} holds no edit of the manifest, but {below} holds {count} of {len(manifest.requests)}: give "
                "that folder as --videos."
            )


def _by_clip(request: EditRequest) -> str:
    """What an edit's video may be called by its clip, where no other edit is called so too."""
    return f"{Path(request.clip.path).stem}/{request.category}" if request.has_source and request.category else ""


def _inside(folder: Path, places: Sequence[str]) -> list[Path]:
    """Paths that are written from a folder, from the one above it, or from the root, as long as they lie in it."""
    here = folder.absolute()
    named = [Path(place) for place in places if place and ".." not in Path(place).parts]
    from_above = [place.relative_to(folder.name) for place in named if folder.name in place.parts[:1]]
    from_root = [place.relative_to(here) for place in named if place.is_relative_to(here)]
    relative = [place for place in (*named, *from_above, *from_root) if not place.is_absolute() and place.parts]
    return [folder / place for place in relative]


def _example(folder: Path) -> str:
    """The first video or image that a folder holds, at any depth, from there; empty if it holds none."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = sorted(name for name in files if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."))
        if shown:
            return shortened((Path(parent) / shown[0]).relative_to(folder).as_posix(), 200)
    return ""


@dataclass(frozen=True)
class _Place:
    """Where an edit's video may lie.

    Attributes:
        path: without suffix or with it.
        whole: a folder of that very name is the edit, whatever videos lie beside it.
    """

    path: Path
    whole: bool


class _Shelf:
    """What lies in folders, each listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, list[Path]] = {}

    def at(self, place: _Place) -> list[Path]:
        """A path as it stands; otherwise the videos, and the folder, of that name before any suffix."""
        path = place.path
        is_file = path.suffix.lower() in SUFFIXES and is_there(path) and path.is_file()
        if is_file or (place.whole and is_there(path) and path.is_dir()):
            return [path]
        parent = path.parent
        if parent not in self._listed:
            self._listed[parent] = visible(parent, "*") if is_there(parent) and parent.is_dir() else []
        return [found for found in self._listed[parent] if _is_called(found, path.name)]


def _is_called(path: Path, name: str) -> bool:
    if path.is_dir():
        return path.name == name
    suffix = path.suffix
    return suffix.lower() in SUFFIXES and name in {path.name.removesuffix(suffix), path.name}


def _unused(folder: Path, used: set[Path]) -> tuple[Path, ...]:
    parents = {parent for path in used for parent in path.parents}
    videos = (path for path in visible(folder, "*") if path.is_dir() or path.suffix.lower() in SUFFIXES)
    return tuple(path for path in videos if path not in used and path not in parents)


def _match(
    request: EditRequest, found: Sequence[Path], places: Sequence[_Place], folder: Path, *, resize: bool, trim: bool
) -> MatchedVideo:
    def unfit(problem: str) -> MatchedVideo:
        return MatchedVideo(
            edit=request.id, video=found[0] if found else None, source=None, edited=None, problem=problem
        )

    if not found:
        sought = dict.fromkeys(place.path.relative_to(folder).as_posix() for place in places)
        return unfit(f"missing: there is no {shortened(' and no '.join(sought), 300)}, with any suffix")
    if len(found) > 1:
        return unfit(f"ambiguous: {' and '.join(path.name for path in found)} are both there; keep one")
    if _is_source(request, found[0]):
        return unfit("it is the source clip itself; give the folder of edited videos")
    video = _without_loss(found[0])
    infos = attempt(lambda: (probe(request.clip) if request.has_source else None, probe(video)))
    if isinstance(infos, UserError):
        return unfit(str(infos))
    source, edited = infos
    pictures = _side_by_side(source, edited) if source else 1
    edited = replace(edited, width=edited.width // pictures)
    problems, notes = _differences(source, edited, resize=resize, trim=trim) if source else ([], [])
    notes += [f"the last of {pictures} pictures side by side is scored"] * (pictures > 1)
    return MatchedVideo(
        edit=request.id,
        video=video,
        source=source,
        edited=edited,
        problem="; ".join(problems),
        notes=tuple(notes),
        fit="right" if pictures > 1 else "stretch",
    )


def _without_loss(found: Path) -> Path:
    """The frames of an edit whose folder holds them beside its videos; anything else as it is."""
    return found / FRAMES if (found / FRAMES).is_dir() and (found / EDITED_VIDEO).is_file() else found


def _side_by_side(source: VideoInfo, edited: VideoInfo) -> int:
    """How many pictures of the source's size stand side by side in the edit of a single picture; 1 if it is no row."""
    row = source.frames == edited.frames == 1 and source.height == edited.height and edited.width % source.width == 0
    return edited.width // source.width if row else 1


def _is_source(request: EditRequest, path: Path) -> bool:
    return (
        request.has_source and not is_remote(request.clip.path) and path.resolve() == Path(request.clip.path).resolve()
    )


def _differences(source: VideoInfo, edited: VideoInfo, *, resize: bool, trim: bool) -> tuple[list[str], list[str]]:
    problems, notes = [], []
    if (edited.height, edited.width) != (source.height, source.width):
        sizes = f"{edited.width}x{edited.height}, the source {source.width}x{source.height}"
        if resize:
            notes.append(f"stretched from {sizes}")
        else:
            problems.append(f"the video is {sizes}; allow --resize to scale it")
    if edited.frames != source.frames:
        counts = f"the video has {edited.frames} frames, the source {source.frames}"
        if trim:
            notes.append(f"{counts}: the first {min(edited.frames, source.frames)} of both are scored")
        else:
            problems.append(f"{counts}; allow --trim to score what both have")
    if _apart(source.timing, edited.timing):
        varying = " on average" if isinstance(source.timing, tuple) or isinstance(edited.timing, tuple) else ""
        rates = f"{edited.fps:g} frames a second{varying}, the source {source.fps:g}"
        notes.append(f"{rates}, at other times (frames are compared by index)")
    return problems, notes


def _apart(source: Timing, edited: Timing) -> bool:
    """Whether frames of the same index are shown at other times, beyond what containers round."""
    if not isinstance(source, tuple) and not isinstance(edited, tuple):
        return source != edited
    pairs = zip(_starts(source), _starts(edited), strict=False)  # a rate starts frames for ever
    return any(abs(start - other) > _ROUNDING for start, other in pairs)


def _starts(timing: Timing) -> Iterable[float]:
    return timing[:-1] if isinstance(timing, tuple) else (frame / timing for frame in count())
