"""`fatezero study`: a page on which people compare edits without knowing who made them."""

from __future__ import annotations

from pathlib import Path

from fatezero.errors import UserError
from fatezero.system.importing import importing
from fatezero.system.terminal import complain, quoted, say
from fatezero_eval.people.study_options import StudyOptions, TheirVideos

MB = 1e6
LARGE = 150 * MB  # of a page: browsers take long to open it


def study(
    runs: tuple[Path, ...] = (),
    *,
    options: StudyOptions,
    videos: tuple[str, ...] = (),
    manifest: str | None = None,
    root: str | None = None,
    out: Path = Path("study"),
) -> int:
    """Write the page and its key, and say where they are.

    Args:
        runs: run folders; none where all videos are named by --videos.
        options: what is shown and asked.
        videos: other methods and the folders of their videos, as NAME=FOLDER; they need a manifest.
        manifest: the edits, here or in an object store; by default what the runs' records say.
        root: folder that the manifest's paths start from; its own by default.
        out: folder of the study.

    Returns:
        0, or 1 if something could not be read and is left out.
    """
    with importing():
        from fatezero_eval.people.study_page import write_study

    written = write_study(runs, [_theirs(stated) for stated in videos], options, out, manifest, root)
    for problem in written.problems:
        complain(problem)
    for note in written.notes:
        say(note)
    size = written.page.stat().st_size
    say(f"{written.page}: {written.pairs} pairs for each rater, {size / MB:.1f} MB. Give raters this file alone.")
    if size > LARGE:
        say("It is large: show fewer --edits or a smaller --height, or give raters several studies.")
    say(f"{written.key}: keep it; fatezero votes needs it.")
    return 1 if written.problems else 0


def _theirs(stated: str) -> TheirVideos:
    method, equals, folder = stated.partition("=")
    if not equals or not folder:
        raise UserError(f"videos has {quoted(stated)}: write NAME=FOLDER.")
    return TheirVideos(method=method.strip(), folder=Path(folder))
