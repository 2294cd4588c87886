"""`fatezero report`: a page of a run's videos, tables and plots."""

from __future__ import annotations

from pathlib import Path


def report(run: Path, *, manifest: Path | None = None) -> int:
    """Write the page and say where it is; returns 0.

    Args:
        run: a run folder.
        manifest: the edits, with what is known of the right results.
    """
    from fatezero.picturebook.benchmark.truth import write_truth
    from fatezero_eval.pages.run_page import write_report

    print(write_report(run, manifest, write_truth))
    return 0
