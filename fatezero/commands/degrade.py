"""`fatezero degrade`: true edits, spoilt by known amounts, as a run folder to test metrics on."""

from __future__ import annotations

from pathlib import Path

from fatezero.system.terminal import complain, say


def degrade(
    manifest: str,
    *,
    out: Path,
    root: str | None = None,
    categories: tuple[str, ...] = (),
    edits: int | None = None,
    frames: int | None = None,
) -> int:
    """Write the run folder and say what comes next.

    Args:
        manifest: the edits, with what is known of the right results; here, or in an object store.
        out: folder of the run.
        root: folder that the manifest's paths start from; its own by default.
        categories: take edits of these categories alone; all by default.
        edits: how many edits of each category are taken, the first ones; all by default.
        frames: how many frames of each clip are taken; all by default.

    Returns:
        0, or 1 if the true edit of some edit is not known or cannot be read.
    """
    from fatezero.data.layout import EVALUATION
    from fatezero.data.manifest import read_manifest
    from fatezero.picturebook.benchmark.truth import write_truth
    from fatezero.runs.variants import choose_edits
    from fatezero_eval.file_names import TRUTH
    from fatezero_eval.scoring.scoring_jobs import Truths
    from fatezero_eval.validity.degraded_run import write_degraded_run

    known = read_manifest(manifest, root)
    chosen = choose_edits(known, categories, edits, frames)
    truths = Truths(known, write_truth, out / EVALUATION / TRUTH)
    written = write_degraded_run(out, chosen, truths, manifest=manifest, root=root)
    for name, problem in written.problems.items():
        complain(f"{name}: {problem}")
    say(f"{written.results} degraded edits in {out}")
    say(f"next: fatezero evaluate {out} --manifest {manifest}, then fatezero trust {out}")
    return 1 if written.problems else 0
