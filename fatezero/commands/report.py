"""`fatezero report`: a page of a run's videos, tables and plots."""

from __future__ import annotations

from pathlib import Path

from fatezero.system.importing import importing
from fatezero.system.terminal import complain, say


def report(run: Path, *, manifest: str | None = None, root: str | None = None) -> int:
    """Write the page and say where it is.

    Examples:
        fatezero report runs/edit

    Args:
        run: a run folder.
        manifest: the edits, with what is known of the right results; by default those that the run was made of.
        root: folder that the manifest's paths start from; by default as the run was made, else its own.

    Returns:
        0, or 1 if something of the run could not be read and is left out.
    """
    with importing():
        from fatezero.picturebook.benchmark.truth import write_truth
        from fatezero_eval.pages.run_page import write_report

    page = write_report(run, manifest, write_truth, root)
    for problem in page.problems:
        complain(problem)
    say(page.path)
    return 1 if page.problems else 0
