"""`fatezero evaluate`: score a run, or anyone's videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fatezero.errors import UserError
from fatezero.shipped import judge_location
from fatezero.system.terminal import complain, say
from fatezero_eval.options import EvaluateRun, EvaluateVideos, ScoringOptions

if TYPE_CHECKING:
    from fatezero_eval.scoring.evaluation import Evaluation


def evaluate(
    run: Path | None = None,
    *,
    options: ScoringOptions,
    manifest: Path | None = None,
    root: str | None = None,
    out: Path | None = None,
    method: str | None = None,
    videos: Path | None = None,
    resize: bool = False,
    trim: bool = False,
) -> int:
    """Score a run folder, or foreign videos; write rows, and say what came out.

    Args:
        run: a run folder, runs/<name>.
        options: how clips are scored.
        manifest: the edits, with what is known of the right results.
        root: folder that the manifest's paths start from; its own by default.
        out: where rows go; <run>/evaluation by default.
        method: what the maker of foreign videos is called.
        videos: folder of foreign videos, in place of a run.
        resize: scale foreign videos of another size.
        trim: cut foreign videos of another length.

    Returns:
        0 if everything was scored, 1 if anything failed.

    Raises:
        UserError: for options that do not fit each other, and where nothing can be scored.
    """
    from fatezero.picturebook.benchmark.truth import write_truth
    from fatezero_eval.scoring.evaluation import evaluate_run, evaluate_videos

    shared = vars(replace(options, judge=judge_location(options.judge)))
    if run is not None:
        given = {"method": method, "videos": videos, "resize": resize or None, "trim": trim or None}
        beside = [name for name, value in given.items() if value is not None]
        if beside:
            raise UserError(
                f"--{beside[0]} was given beside a run folder, but is for foreign videos: leave one of them out."
            )
        return tell(evaluate_run(EvaluateRun(**shared, run=run, manifest=manifest, root=root, out=out), write_truth))
    needed = {"method": method, "videos": videos, "manifest": manifest, "out": out}
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise UserError(f"--{missing[0]} is missing: give a run folder, or --method, --videos, --manifest and --out.")
    theirs = EvaluateVideos(**shared, **needed, root=root, resize=resize, trim=trim)  # type: ignore[arg-type]
    return tell(evaluate_videos(theirs, write_truth))


def tell(evaluation: Evaluation) -> int:
    """Say what came of an evaluation; 1 if anything failed."""
    if evaluation.match_report is not None:
        say(evaluation.match_report)
    for name, reason in evaluation.failures.items():
        complain(f"{name}: {reason}")
    say(f"{len(evaluation.rows)} rows in {evaluation.lines} and {evaluation.table}")
    return 1 if evaluation.failures else 0
