"""`fatezero sheet`: a picture of a run's first edits."""

from __future__ import annotations

from pathlib import Path


def sheet(
    run: Path,
    *,
    manifest: Path | None = None,
    out: Path = Path("sheet.png"),
    edits: int = 10,
    variant: str = "fatezero",
) -> int:
    """Write the picture and say where it is; returns 0.

    Args:
        run: a run folder.
        manifest: the edits, with what is known of the right results.
        out: the PNG to write.
        edits: how many edits are shown.
        variant: whose edits.
    """
    from fatezero.picturebook.benchmark.truth import write_truth
    from fatezero_eval.pages.contact_sheet import write_sheet

    print(write_sheet(run, manifest, write_truth, out, edits, variant))
    return 0
