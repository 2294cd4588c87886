"""A contact sheet: some frames of source, edit and, where known, the true edit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fatezero.clips.video import read_clip
from fatezero.data.layout import EVALUATION, inside
from fatezero.data.manifest import read_manifest
from fatezero.errors import UserError, attempt
from fatezero.system.publishing import replacing
from fatezero.types import ClipSpec
from fatezero_eval.file_names import TRUTH
from fatezero_eval.pages.written import Written
from fatezero_eval.scoring.scoring_jobs import Render, ScoringJob, Truths, finished_jobs

HEIGHT = 128  # rows of a frame on the sheet
SHOWN = 2  # frames of each clip
LABEL, GAP = 16, 6

Picture = npt.NDArray[np.uint8]


def write_sheet(
    run: Path,
    manifest: Path | None,
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
        manifest: the benchmark, for the order and the true edits; None takes the folder's order and shows no truth.
        render: makes the files of a truth that a manifest states as a recipe.
        out: PNG to write.
        edits: number of edits shown.
        variant: the variant whose edits are shown.
        root: folder that the manifest's paths start from; the manifest's own by default.

    Returns:
        `out`, and what the sheet leaves out.

    Raises:
        UserError: the run has no such edits that can be read.
    """
    if edits < 1:
        raise UserError(f"edits is {edits}: it is at least 1.")
    known = read_manifest(manifest, root) if manifest else None
    found = finished_jobs(run, Truths(known, render, inside(run, run / EVALUATION) / TRUTH))
    own: dict[str, ScoringJob] = {}
    for job in found.scorable:
        if job.variant == variant:
            own.setdefault(job.request.id, job)  # of several seeds the first
    order = [request.id for request in known.requests] if known else list(own)
    chosen = [own[name] for name in order if name in own][:edits]
    if not chosen:
        raise UserError(f"{run} has no finished edits of a variant called {variant!r}; name one of its folders.")
    problems = [f"{name}: {reason}" for name, reason in found.left_out.items() if name.startswith(f"{variant}/")]
    rows: list[Picture] = []
    for job in chosen:
        row = attempt(partial(_row, job))
        if isinstance(row, UserError):
            problems.append(f"{job.name}: {row}")
        else:
            rows.append(row)
    if not rows:
        raise UserError("\n".join([f"{run}: none of these edits can be read.", *problems]))
    half = (len(rows) + 1) // 2
    columns = [_stacked(rows[:half], half), _stacked(rows[half:], half)] if len(rows) > 1 else [rows[0]]
    with replacing(out) as partial_file:
        Image.fromarray(_beside(columns, 2 * GAP)).save(partial_file, format="PNG", optimize=True)
    return Written(out, tuple(problems))


def _row(job: ScoringJob) -> Picture:
    clips = [job.request.clip, job.edited, *([job.true_edit] if job.true_edit else [])]
    frames = _beside([np.concatenate(_frames(clip), axis=1) for clip in clips], GAP)
    label = Image.new("RGB", (frames.shape[1], LABEL), "white")
    words = f"{job.request.source_prompt}  ->  {job.request.target_prompt}"
    ImageDraw.Draw(label).text((4, 2), words, fill=(40, 40, 40))
    return np.concatenate([np.asarray(label), frames])


def _frames(clip: ClipSpec) -> list[Picture]:
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
