"""Do someone else's videos match the edits they are said to be? Found, missing, and how they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from fatezero.clips.video import VideoInfo, probe
from fatezero.data.layout import visible
from fatezero.data.manifest import Manifest
from fatezero.errors import UserError, attempt
from fatezero.types import EditRequest, Timing

_ROUNDING = 0.002  # seconds: two containers, each to a millisecond
SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif", ".webp")


@dataclass(frozen=True, kw_only=True)
class MatchedVideo:
    """One edit and the video found for it.

    Attributes:
        edit: the request's id.
        video: file or folder of frames; None if there is none.
        source: what the source clip is; None if it cannot be read.
        edited: what the video is; None if it cannot be read.
        problem: why it cannot be scored as it is; empty if it can.
        notes: differences that do not keep it from being scored.
    """

    edit: str
    video: Path | None
    source: VideoInfo | None
    edited: VideoInfo | None
    problem: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        video = f" {self.video}" if self.video else ""
        words = self.problem or "; ".join(self.notes) or "same frames, size and rate as the source"
        return f"{'!' if self.problem else ' '} {self.edit}:{video}: {words}"


@dataclass(frozen=True)
class MatchReport:
    """What was matched and what is missing.

    Attributes:
        matches: one for each edit of the manifest.
        unused: videos in the folder that belong to no edit.
    """

    matches: tuple[MatchedVideo, ...]
    unused: tuple[Path, ...]

    def __str__(self) -> str:
        ready = sum(not match.problem for match in self.matches)
        lines = [f"{len(self.matches)} edits, {ready} ready to be scored, {len(self.unused)} videos unused"]
        lines += [str(match) for match in self.matches]
        return "\n".join([*lines, *(f"? {path}: belongs to no edit of the manifest" for path in self.unused)])


def match_videos(manifest: Manifest, folder: Path, *, resize: bool = False, trim: bool = False) -> MatchReport:
    """Match the videos of a folder to a manifest's edits.

    An edit's video is `<folder>/<id>.<suffix>`, a folder of frames `<folder>/<id>/`, or
    `<folder>/<clip>/<category>` with either form (the layout of the TGVE competition).

    Args:
        manifest: the edits.
        folder: where the videos are.
        resize: score videos of another size, scaled to the source's.
        trim: score videos of another length, both cut to the shorter.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of videos; check the path.")
    used: dict[Path, str] = {}
    matches = []
    for request in manifest.requests:
        found = [path for path in _candidates(folder, request) if path.exists()]
        used.update(dict.fromkeys(found, request.id))
        matches.append(_match(request, found, resize=resize, trim=trim))
    return MatchReport(tuple(matches), _unused(folder, used))


def _candidates(folder: Path, request: EditRequest) -> list[Path]:
    stems = [folder / request.id]
    if request.category:
        stems.append(folder / Path(request.clip.path).stem / request.category)
    return [path for stem in stems for path in (*(stem.with_name(stem.name + suffix) for suffix in SUFFIXES), stem)]


def _unused(folder: Path, used: Mapping[Path, str]) -> tuple[Path, ...]:
    parents = {parent for path in used for parent in path.parents}
    videos = (path for path in visible(folder, "*") if path.is_dir() or path.suffix.lower() in SUFFIXES)
    return tuple(path for path in videos if path not in used and path not in parents)


def _match(request: EditRequest, found: list[Path], *, resize: bool, trim: bool) -> MatchedVideo:
    def match(problem: str = "", notes: tuple[str, ...] = (), *infos: VideoInfo) -> MatchedVideo:
        source, edited = (*infos, None, None)[:2]
        video = found[0] if found else None
        return MatchedVideo(edit=request.id, video=video, source=source, edited=edited, problem=problem, notes=notes)

    if not found:
        return match("missing: no video or folder of that name")
    if len(found) > 1:
        return match(f"ambiguous: {' and '.join(path.name for path in found)} are both there; keep one")
    infos = attempt(lambda: (probe(request.clip), probe(found[0])))
    if isinstance(infos, UserError):
        return match(str(infos))
    problems, notes = _differences(*infos, resize=resize, trim=trim)
    return match("; ".join(problems), tuple(notes), *infos)


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
