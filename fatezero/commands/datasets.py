"""`fatezero datasets`: check a manifest and its clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fatezero.clips.video import probe
from fatezero.data.manifest import TRUTH_PATHS, Manifest, read_manifest
from fatezero.data.remote import open_input
from fatezero.errors import UserError
from fatezero.system.terminal import say
from fatezero.types import ClipSpec


def check(manifest: str, *, root: str | None = None) -> int:
    """Say what is there and what is missing.

    Args:
        manifest: a manifest in any of the known formats, or a DAVIS folder.
        root: folder that clip paths start from.

    Returns:
        0 if every edit is ready, 1 if not.
    """
    found = check_manifest(manifest, root)
    say(found)
    return 1 if found.problems else 0


@dataclass(frozen=True)
class ManifestReport:
    """What `check_manifest` found; as a text, one line for each edit.

    Attributes:
        manifest: as it was read.
        clips: by request id, what the clip is: frames, size, rate, and what is done to it.
        problems: by request id, a sentence for each thing that is missing, unreadable or too short.
    """

    manifest: Manifest
    clips: Mapping[str, str]
    problems: Mapping[str, tuple[str, ...]]

    def __str__(self) -> str:
        requests = self.manifest.requests
        lines = [f"{self.manifest.name}: {len(requests) - len(self.problems)} of {len(requests)} edits are ready."]
        for request in requests:
            if request.id in self.problems:
                lines += [f"! {request.id}: {problem}" for problem in self.problems[request.id]]
            else:
                lines.append(f"  {request.id}: {self.clips[request.id]}")
        return "\n".join([*lines, *(f"  {note}" for note in self.manifest.notes)])


def check_manifest(path: str | Path, root: str | Path | None = None) -> ManifestReport:
    """Says of every edit whether its clip and its truth are there, without decoding whole clips.

    Raises:
        UserError: the manifest itself cannot be read.
    """
    manifest = read_manifest(path, root)
    probed: dict[ClipSpec, str | UserError] = {}
    clips: dict[str, str] = {}
    problems: dict[str, tuple[str, ...]] = {}
    for request in manifest.requests:
        if request.clip not in probed:
            probed[request.clip] = _in_words(request.clip)
        clip = probed[request.clip]
        found = [str(clip)] if isinstance(clip, UserError) else []
        for key, value in manifest.truth.get(request.id, {}).items():
            if key in TRUTH_PATHS:
                found += _missing(key, value)
        if found:
            problems[request.id] = tuple(found)
        else:
            clips[request.id] = str(clip)
    return ManifestReport(manifest, clips, problems)


def _missing(key: str, path: str) -> list[str]:
    try:
        open_input(path)
    except UserError as error:
        return [f"truth, {key}: {error}"]
    return []


def _in_words(clip: ClipSpec) -> str | UserError:
    try:
        info = probe(clip)
    except UserError as error:
        return error
    size = f"{info.frames} frames of {info.width}x{info.height}, {info.fps:g} a second."
    return " ".join((size, *info.notes))
