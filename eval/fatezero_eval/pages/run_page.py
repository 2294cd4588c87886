"""One page for a run: every edit as videos in step, scores, plots and provenance, in a single file."""

from __future__ import annotations

from pathlib import Path

from fatezero.system.publishing import replace_text
from fatezero_eval.file_names import PAGE
from fatezero_eval.pages.document import describe
from fatezero_eval.pages.page import fill
from fatezero_eval.pages.shown_run import read_run
from fatezero_eval.pages.written import Written
from fatezero_eval.scoring.run_manifests import named_manifest
from fatezero_eval.scoring.scoring_jobs import Render


def write_report(
    run: Path, manifest: str | Path | None = None, render: Render | None = None, root: str | None = None
) -> Written:
    """Write `index.html` into a run folder; equal runs give equal bytes.

    The page needs nothing beside it and asks no network. Without an evaluation it shows the videos alone. What of the
    run cannot be read is left out, and said on the page.

    Args:
        run: `runs/<name>`, with or without `experiment.json` and `evaluation/rows.jsonl`.
        manifest: the benchmark, for the true edits and masks and to tell what is missing; None takes the one that
            the experiment names, if it lies there unchanged.
        render: makes the files of a truth that a manifest states as a recipe.
        root: folder that the manifest's paths start from; by default the one that the run was made with, if that
            was of this manifest, else the manifest's own.

    Returns:
        The page, and what it leaves out.

    Raises:
        UserError: there is no finished edit that can be read, or the manifest cannot be.
    """
    path = run / PAGE
    known = named_manifest(run, manifest, root) if manifest else None
    document, media, left_out = describe(read_run(run, known, render))
    replace_text(path, fill(document, media))
    return Written(path, left_out)
