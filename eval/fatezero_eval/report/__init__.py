"""One page for a run: every edit as videos in step, scores, plots and provenance, in a single file."""

from __future__ import annotations

from pathlib import Path

from fatezero.data.files import replacing
from fatezero_eval.evaluate import Render
from fatezero_eval.report.document import describe
from fatezero_eval.report.page import fill
from fatezero_eval.report.run import read_run


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
    path = run / "index.html"
    document, media = describe(read_run(run, manifest, render))
    with replacing(path) as partial:
        partial.write_text(fill(document, media), encoding="utf-8", newline="\n")
    return path
