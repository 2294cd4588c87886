"""Degraded true edits as a run folder, which is scored, shown and compared like any other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fatezero.clips.encode import write_frames
from fatezero.clips.video import read_clip
from fatezero.data.files import content_digest, json_digest
from fatezero.data.layout import EXPERIMENT, FRAMES, RECORD, result_name, result_records
from fatezero.data.manifest import request_to_json
from fatezero.data.remote import open_input
from fatezero.errors import UserError, attempt
from fatezero.system.publishing import replace_text, replacing
from fatezero.system.terminal import quoted
from fatezero.types import EditRequest, Frames
from fatezero_eval.scoring.companions import companions_of
from fatezero_eval.scoring.scoring_jobs import Truths, content_of
from fatezero_eval.validity.degradations import DEGRADATIONS, UNDEGRADED, KnownEdit, degraded


@dataclass(frozen=True)
class DegradedRun:
    """What was written.

    Attributes:
        results: how many edits, all versions counted.
        problems: by request id, why there is nothing of it.
    """

    results: int
    problems: Mapping[str, str]


def write_degraded_run(
    run: Path, requests: Sequence[EditRequest], truths: Truths, *, manifest: str, root: str | None = None
) -> DegradedRun:
    """Write `<run>/<degradation>/<result_name of the edit>/` for each edit whose true edit is known.

    Args:
        run: folder of the run; other edits that were degraded into it stay.
        requests: whose true edits.
        truths: knows them; its manifest's other edits of a clip are the clip's wrong edits.
        manifest: path or address of that manifest.
        root: the folder that its paths start from; None for its own.

    Raises:
        UserError: no true edit is known, or the folder is another run's or cannot be written.
    """
    others = sorted({record.parent.parent.name for record in result_records(run)} - {*DEGRADATIONS})
    if others:
        raise UserError(f"{run} has results of {quoted(others[0])}, which degrades nothing: name another --out.")
    results, problems = 0, {}
    for request in requests:
        known = attempt(partial(_known, request, truths))
        if isinstance(known, UserError):
            problems[request.id] = str(known)
        else:
            results += _write(run, request, known)
    if not results:
        raise UserError("\n".join(["There is no true edit to degrade.", *map(": ".join, problems.items())]))
    replace_text(run / EXPERIMENT, _experiment(run, manifest, root))
    return DegradedRun(results, problems)


def _known(request: EditRequest, truths: Truths) -> KnownEdit:
    true_edit = _true_edit(request, truths)
    if true_edit is None:
        raise UserError("its true edit is not known: give a manifest that states it.")
    source = read_clip(request.clip).frames
    if source.shape != true_edit.shape:
        raise UserError(f"its true edit is {_size(true_edit)}, the clip {_size(source)}: make them alike.")
    return KnownEdit(source=source, true_edit=true_edit, wrong_edit=_wrong_edit(request, truths, true_edit))


def _true_edit(request: EditRequest, truths: Truths) -> Frames | None:
    companion = companions_of(request, truths.of(request)).get("true_edit")
    return None if companion is None else read_clip(companion).frames


def _wrong_edit(request: EditRequest, truths: Truths, true_edit: Frames) -> Frames | None:
    """The true edit of the next edit of the same clip, if it shows something else."""
    everything = truths.manifest.requests if truths.manifest else ()
    place = next((i for i, other in enumerate(everything) if other.id == request.id), 0)
    for other in (*everything[place + 1 :], *everything[:place]):
        if other.clip.path == request.clip.path:
            found = _true_edit(EditRequest(**{**vars(other), "clip": request.clip}), truths)
            if found is not None and found.shape == true_edit.shape and (found != true_edit).any():
                return found
    return None


def _size(frames: Frames) -> str:
    return f"{len(frames)} frames of {frames.shape[2]}x{frames.shape[1]}"


def _write(run: Path, request: EditRequest, known: KnownEdit) -> int:
    """Write every version of one edit, each folder whole; how many they are."""
    values = {"request": request_to_json(request), "clip_digest": content_of(request.clip.path)}
    record = json.dumps({**values, "frames": len(known.true_edit)}, indent=1, ensure_ascii=False) + "\n"
    written = 0
    for name in DEGRADATIONS:
        frames = degraded(known, name, seed=int(json_digest([request.id, name], 8), 16))
        if frames is None:
            continue
        with replacing(run / name / result_name(request.id)) as partial_folder:
            partial_folder.mkdir()
            write_frames(partial_folder / FRAMES, frames)
            replace_text(partial_folder / RECORD, record)
        written += 1
    return written


def _experiment(run: Path, manifest: str, root: str | None) -> str:
    """What is compared, for whoever reads the run."""
    values = {
        "name": run.name,
        "reference": UNDEGRADED,
        "manifest": manifest,
        "manifest_digest": content_digest(open_input(manifest)),
        "root": root or "",
        "variants": {name: {} for name in DEGRADATIONS if (run / name).is_dir()},
    }
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"
