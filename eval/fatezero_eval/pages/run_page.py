"""One page for a run: every edit as videos in step, scores, plots and provenance, in a single file."""

from __future__ import annotations

from pathlib import Path

from fatezero.data.files import replace_text
from fatezero_eval.file_names import PAGE
from fatezero_eval.pages.document import describe
from fatezero_eval.pages.page import fill
from fatezero_eval.pages.shown_run import read_run
from fatezero_eval.scoring.scoring_jobs import Render


def write_report(run: Path, manifest: Path | None = None, render: Render | None = None) -> Path:
    """Write `index.html` into a run folder; equal runs give equal bytes.

    The page needs nothing beside it and asks no network. Without an evaluation it shows the videos alone.

    Args:
        run: `runs/<name>`, with or without `experiment.json` and `evaluation/rows.jsonl`.
        manifest: the benchmark, for the true edits and masks and to tell what is missing; None takes the one that
            the experiment names, if it lies there.
        render: makes the files of a truth that a manifest states as a recipe.

    Returns:
        Path of the page.

    Raises:
        UserError: there is no finished edit, or the experiment, an edit's record or the rows are damaged.
    """
    path = run / PAGE
    document, media = describe(read_run(run, manifest, render))
    replace_text(path, fill(document, media))
    return path
