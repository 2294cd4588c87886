"""`fatezero datasets`: check a manifest and its clips, or clips alone."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from pathlib import Path

from fatezero.clips.images import CLIP_SUFFIXES, IMAGE_SUFFIXES
from fatezero.clips.video import VideoInfo, probe
from fatezero.commands.truths import check_truth
from fatezero.data.manifest import is_manifest, read_manifest
from fatezero.data.remote import open_input
from fatezero.errors import UserError, attempt
from fatezero.system.terminal import say
from fatezero.types import ClipSpec, Timing

_WIDTH = 120


def check(path: str, *, root: str | None = None) -> int:
    """Say what clips are, how they would be read, and what is missing; nothing is edited.

    Examples:
        fatezero datasets check edits.yaml
        fatezero datasets check clips/

    Args:
        path: a manifest in any of the known formats, a DAVIS folder, a clip, or a folder of clips.
        root: folder that a manifest's clip paths start from.

    Returns:
        0 if every edit, or clip, is ready, 1 if not.

    Raises:
        UserError: nothing is there, the manifest cannot be read, or a root is given for clips.
    """
    if is_manifest(open_input(path)):
        found = check_manifest(path, root)
    elif root is None:
        found = check_clips(path)
    else:
        raise UserError(f"--root was given, but {path} is a clip; leave it out, or name a manifest.")
    say(found)
    return 1 if found.problems else 0


@dataclass(frozen=True)
class DatasetReport:
    """What was found; as a text, a block for each clip.

    Attributes:
        summary: how many edits or clips are ready.
        blocks: of each clip, what it is, how it would be read, the edits that start from it, and problems, which
            begin with "!".
        problems: by request id, or by path, a sentence for each thing that is missing, unreadable or too short.
        notes: what holds for all.
    """

    summary: str
    blocks: Sequence[str]
    problems: Mapping[str, tuple[str, ...]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        return "\n\n".join([self.summary, *self.blocks, *(["\n".join(self.notes)] if self.notes else [])])


def check_manifest(path: str | Path, root: str | Path | None = None) -> DatasetReport:
    """Says of every edit whether its clip and its truth are there, and of every clip what it is.

    Raises:
        UserError: the manifest itself cannot be read.
    """
    manifest = read_manifest(path, root)
    edits: dict[ClipSpec, list[str]] = {}
    for request in manifest.requests:
        edits.setdefault(request.clip, []).append(request.id)
    found = {clip: attempt(partial(probe, clip)) if clip.path else None for clip in edits}
    lacking = {
        request.id: _reason(attempt(partial(check_truth, request, manifest.truth[request.id])))
        for request in manifest.requests
        if request.id in manifest.truth and isinstance(found[request.clip], VideoInfo)
    }
    blocks = [_block(clip, found[clip], names, lacking) for clip, names in edits.items()]
    problems = {
        request.id: (*_reason(found[request.clip]), *lacking.get(request.id, ())) for request in manifest.requests
    }
    problems = {name: sentences for name, sentences in problems.items() if sentences}
    count = len(manifest.requests)
    summary = f"{manifest.name}: {count - len(problems)} of {count} edits are ready."
    return DatasetReport(summary, blocks, problems, manifest.notes)


def check_clips(path: str | Path) -> DatasetReport:
    """Says what a clip is, or each of a folder, and how it would be read.

    A folder that holds images is a clip; of any other, the video files are, or else the folders in it.

    Raises:
        UserError: nothing is there.
    """
    local = open_input(path)
    inside = sorted(file for file in local.iterdir() if not file.name.startswith(".")) if local.is_dir() else []
    videos = [file for file in inside if file.suffix.lower() in CLIP_SUFFIXES]
    images = any(file.suffix.lower() in IMAGE_SUFFIXES for file in inside)
    taken = videos or ([] if images else [file for file in inside if file.is_dir()])
    clips = [ClipSpec(path=str(file)) for file in taken or [local]]
    found = {clip: attempt(partial(probe, clip)) for clip in clips}
    problems = {clip.path: reason for clip in clips if (reason := _reason(found[clip]))}
    left_out = [file.name for file in inside if file not in taken] if taken else []
    notes = [f"Left out, since they are no {'video files' if videos else 'folders'}: {', '.join(left_out)}."]
    summary = f"{path}: {len(clips) - len(problems)} of {len(clips)} clips are ready."
    blocks = [_block(clip, found[clip], [], {}) for clip in clips]
    return DatasetReport(summary, blocks, problems, notes if left_out else [])


def _block(
    clip: ClipSpec, found: VideoInfo | UserError | None, edits: Sequence[str], lacking: Mapping[str, Iterable[str]]
) -> str:
    """A clip in words: the file and what is taken of it, what that is, its edits, and what is wrong."""
    taken = [
        f"{field.name} {getattr(clip, field.name)}"
        for field in fields(ClipSpec)
        if field.name != "path" and getattr(clip, field.name) != field.default
    ]
    lines = [", ".join((clip.path or "no source clip: such edits can be scored, but not made", *taken))]
    if isinstance(found, VideoInfo):
        lines += [f"  {_in_words(found, clip)}", *(f"  {note}" for note in found.notes)]
    if edits:
        lines += textwrap.wrap(
            f"edits: {', '.join(edits)}",
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    lines += [f"! {reason}" for reason in _reason(found)]
    lines += [f"! {name}: its truth cannot be used: {reason}" for name in edits for reason in lacking.get(name, ())]
    return "\n".join(lines)


def _in_words(info: VideoInfo, clip: ClipSpec) -> str:
    sound = "sound dropped" if clip.audio == "drop" else "with sound" if info.sound else "no sound"
    frames = f"{info.frames} frame{'s' if info.frames > 1 else ''} of {info.width}x{info.height}"
    return f"{info.kind}: {frames}, {_rate(info.timing)}, {_length(info)}, {sound}."


def _rate(timing: Timing) -> str:
    if isinstance(timing, tuple):
        rates = [1 / (after - before) for before, after in pairwise(timing)]
        return f"{min(rates):.4g} to {max(rates):.4g} a second"
    return f"{timing:.5g} a second"


def _length(info: VideoInfo) -> str:
    """How long it lasts, as `--start` and `--frames` take it."""
    seconds = info.frames / info.fps
    if seconds < 60:
        return f"{seconds:.3f}s"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{int(minutes // 60):02}:{int(minutes % 60):02}:{rest:06.3f}"


def _reason(found: object) -> tuple[str, ...]:
    return (str(found),) if isinstance(found, UserError) else ()
