"""`fatezero sheet`: a picture of a run's first edits."""

from __future__ import annotations

from pathlib import Path

from fatezero.system.importing import importing
from fatezero.system.terminal import complain, say


def sheet(
    run: Path,
    *,
    manifest: str | None = None,
    root: str | None = None,
    out: Path = Path("sheet.png"),
    edits: int = 10,
    variant: str = "fatezero",
) -> int:
    """Write the picture and say where it is.

    Args:
        run: a run folder.
        manifest: the edits, with what is known of the right results; by default those that the run was made of.
        root: folder that the manifest's paths start from; by default as the run was made, else its own.
        out: the picture to write, *.png or *.jpg.
        edits: how many edits are shown.
        variant: whose edits.

    Returns:
        0, or 1 if an edit could not be read and is left out.
    """
    with importing():
        from fatezero.picturebook.benchmark.truth import write_truth
        from fatezero_eval.pages.contact_sheet import write_sheet

    picture = write_sheet(run, manifest, write_truth, out, edits, variant, root)
    for problem in picture.problems:
        complain(problem)
    say(picture.path)
    return 1 if picture.problems else 0
