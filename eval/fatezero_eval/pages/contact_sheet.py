"""A contact sheet: some frames of source, edit and, where known, the true edit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fatezero.clips.video import read_clip
from fatezero.data.manifest import Manifest
from fatezero.errors import UserError, attempt
from fatezero.system.publishing import replacing
from fatezero.system.terminal import quoted
from fatezero.types import ClipSpec, CompanionSpec
from fatezero_eval.pages.written import Written
from fatezero_eval.scoring.records import read_experiment
from fatezero_eval.scoring.run_manifests import is_here, named_manifest, stated_truths, truths_of
from fatezero_eval.scoring.scoring_jobs import FinishedJobs, Render, ScoringJob, Truths, finished_jobs

HEIGHT = 128  # rows of a frame on the sheet
SHOWN = 2  # frames of each clip
LABEL, GAP = 16, 6
FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG", "optimize": True},
    ".jpg": {"format": "JPEG", "quality": 92},
}

Picture = npt.NDArray[np.uint8]


def write_sheet(
    run: Path,
    manifest: str | Path | None,
    render: Render | None,
    out: Path,
    edits: int,
    variant: str,
    root: str | None = None,
) -> Written:
    """Write the sheet of a run's first edits, in two columns, in the manifest's order.

    What cannot be read is left out.

    Args:
        run: a run folder.
        manifest: the benchmark, for the order and the true edits; None takes the one that the experiment names, if it
            lies there, else the folder's order and no truth.
        render: makes the files of a truth that a manifest states as a recipe.
        out: the picture to write, *.png or *.jpg.
        edits: number of edits shown.
        variant: the variant whose edits are shown.
        root: folder that the manifest's paths start from; by default the one that the run was made with, if that
            was of this manifest, else the manifest's own.

    Returns:
        `out`, and what the sheet leaves out.

    Raises:
        UserError: the run has no such edits that can be read, or `out` is named as another kind of file.
    """
    if edits < 1:
        raise UserError(f"edits is {edits}: it is at least 1.")
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"out is {out}: a sheet is a picture, named *.png or *.jpg.")
    problems: list[str] = []
    truths = _truths(run, named_manifest(run, manifest, root) if manifest else None, render, problems)
    found = finished_jobs(run, truths)
    problems += [f"{name}: {reason}" for name, reason in found.left_out.items() if name.startswith(f"{variant}/")]
    rows: list[Picture] = []
    for job in _shown(found, variant, truths.manifest)[:edits]:
        row = attempt(partial(_row, job))
        if isinstance(row, UserError):
            problems.append(f"{job.name}: {row}")
        else:
            rows.append(row)
    if not rows:
        raise UserError("\n".join([_nothing_of(run, found, variant), *problems]))
    half = (len(rows) + 1) // 2
    columns = [_stacked(rows[:half], half), _stacked(rows[half:], half)] if len(rows) > 1 else [rows[0]]
    with replacing(out) as partial_file:
        Image.fromarray(_beside(columns, 2 * GAP)).save(partial_file, **FORMATS[out.suffix.lower()])
    return Written(out, tuple(problems))


def _shown(found: FinishedJobs, variant: str, known: Manifest | None) -> list[ScoringJob]:
    """A variant's edits that can be read, of several seeds the first; in the manifest's order, then any others."""
    own: dict[str, ScoringJob] = {}
    for job in found.scorable:
        if job.variant == variant:
            own.setdefault(job.request.id, job)
    asked = [request.id for request in known.requests] if known else []
    return [own[name] for name in dict.fromkeys([*asked, *own]) if name in own]


def _nothing_of(run: Path, found: FinishedJobs, variant: str) -> str:
    there = sorted({name.partition("/")[0] for name in (*found.records, *found.problems)})
    if variant in there:
        return f"{run}: none of the edits of {variant} can be shown."
    return f"{run} has no finished edits of a variant {quoted(variant)}: it has {', '.join(there)}."


def _truths(run: Path, named: Manifest | None, render: Render | None, problems: list[str]) -> Truths:
    """What is known of a run's right results, by the manifest that the user names, else by the experiment's."""
    nothing = truths_of(run, named, render)
    if named is not None:
        return nothing
    experiment = attempt(partial(read_experiment, run))
    if isinstance(experiment, UserError):
        problems.append(str(experiment))
        return nothing
    if not experiment.manifest or not is_here(experiment):
        return nothing
    stated = attempt(partial(stated_truths, run, experiment, render))
    if isinstance(stated, UserError):
        problems.append(str(stated))
        return nothing
    return stated


def _row(job: ScoringJob) -> Picture:
    clips: list[ClipSpec | CompanionSpec] = [job.request.clip, job.edited, *filter(None, [job.true_edit])]
    frames = _beside([np.concatenate(_frames(clip), axis=1) for clip in clips], GAP)
    label = Image.new("RGB", (frames.shape[1], LABEL), "white")
    words = f"{job.request.source_prompt}  ->  {job.request.target_prompt}"
    ImageDraw.Draw(label).text((4, 2), words, fill=(40, 40, 40))
    return np.concatenate([np.asarray(label), frames])


def _frames(clip: ClipSpec | CompanionSpec) -> list[Picture]:
    frames = read_clip(clip).frames
    places = np.linspace(0, len(frames) - 1, SHOWN).round().astype(int)
    width = round(frames.shape[2] * HEIGHT / frames.shape[1])
    return [np.asarray(Image.fromarray(frames[place]).resize((width, HEIGHT))) for place in places]


def _stacked(rows: Sequence[Picture], count: int) -> Picture:
    """Rows under each other, each as wide as the widest, filled up with white to a number of rows."""
    width, height = max(row.shape[1] for row in rows), rows[0].shape[0]
    sheet = np.full((count * height, width, 3), 255, np.uint8)
    for number, row in enumerate(rows):
        sheet[number * height : (number + 1) * height, : row.shape[1]] = row
    return sheet


def _beside(pictures: Sequence[Picture], gap: int) -> Picture:
    white = np.full((pictures[0].shape[0], gap, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, white)][:-1]
    return np.concatenate(parts, axis=1)
