"""Which manifest a run folder goes with, and where its paths start: as the user says, else as the run does."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from fatezero.data.files import content_digest
from fatezero.data.layout import EVALUATION, inside, lies_inside
from fatezero.data.manifest import Manifest, read_manifest
from fatezero.data.remote import is_remote, open_input
from fatezero.errors import UserError, attempt
from fatezero.system.terminal import quoted
from fatezero_eval.file_names import TRUTH
from fatezero_eval.scoring.records import Experiment, read_experiment
from fatezero_eval.scoring.scoring_jobs import Render, Truths


def named_manifest(run: Path, manifest: Path | str, root: str | None) -> Manifest:
    """The manifest that the user names for a run.

    Args:
        run: the run folder.
        manifest: a path, or an address in a store.
        root: the folder that its paths start from; by default the one that the run was made with, if that was of a
            manifest of this content, else the manifest's own.

    Raises:
        UserError: it cannot be read.
    """
    if root is None and not is_remote(manifest):
        root = _root_of(run, manifest)
    return read_manifest(manifest, root)


def _root_of(run: Path, manifest: Path | str) -> str | None:
    """The root that a run states for a manifest; an address is not taken from it, since nothing is fetched for it.

    Raises:
        UserError: there is no such folder here.
    """
    stated = attempt(partial(read_experiment, run))
    if isinstance(stated, UserError) or not stated.root or is_remote(stated.root):
        return None
    if content_digest(open_input(manifest)) != stated.manifest_digest:
        return None
    return _found(run, stated.root)


def _found(run: Path, root: str) -> str:
    if not Path(root).is_dir():
        raise UserError(
            f"{run} was made with --root {quoted(root)}, and there is no such folder here: give --manifest, and "
            "--root, where its paths start."
        )
    return root


def is_here(experiment: Experiment) -> bool:
    """Whether the manifest that an experiment names may be looked for, and lies there: nothing is fetched."""
    path = Path(experiment.manifest)
    try:
        return not is_remote(experiment.manifest) and (path.is_file() or path.is_dir())
    except OSError:  # such as a name too long
        return False


def truths_of(run: Path, manifest: Manifest | None, render: Render | None) -> Truths:
    """The truths of a manifest that the user names; without one nothing is known."""
    return Truths(manifest, render, inside(run, run / EVALUATION) / TRUTH)


def stated_truths(run: Path, experiment: Experiment, render: Render | None) -> Truths:
    """The truths of the manifest that the run's experiment names, if it lies in the run or is the one that was used.

    Raises:
        UserError: it cannot be read, or is another.
    """
    path, root = Path(experiment.manifest), experiment.root or None
    if root is not None and is_remote(root):
        raise UserError(
            f"The root {root} is not fetched, as the run alone names it, so no truth is shown; name it with --manifest "
            "and --root."
        )
    own = lies_inside(run, path)
    if not own and (not experiment.manifest_digest or content_digest(path) != experiment.manifest_digest):
        raise UserError(
            f"The manifest {path} is another than the run was made with, so no truth is shown; name the right one "
            "with --manifest."
        )
    known = read_manifest(inside(run, path) if own else path, root and _found(run, root))
    return replace(truths_of(run, known, render), run=run if own else None, named=False)
