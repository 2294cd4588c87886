"""`fatezero evaluate`: score a run, or anyone's videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fatezero.commands.score_words import tell_scores
from fatezero.errors import UserError
from fatezero.shipped import judge_location
from fatezero.system.importing import importing
from fatezero.system.progress import steps_shown
from fatezero.system.terminal import complain, counted, say
from fatezero_eval.options import AskingOptions, EvaluateRun, EvaluateVideos, ScoringOptions

if TYPE_CHECKING:
    from fatezero_eval.scoring.evaluation import Evaluation


def evaluate(
    run: Path | None = None,
    *,
    options: ScoringOptions,
    asking: AskingOptions = AskingOptions(),  # noqa: B008  (frozen)
    manifest: str | None = None,
    root: str | None = None,
    out: Path | None = None,
    method: str | None = None,
    videos: Path | None = None,
    categories: tuple[str, ...] = (),
    resize: bool = False,
    trim: bool = False,
) -> int:
    r"""Score a run folder, or foreign videos; write rows, and say what came out.

    Examples:
        fatezero evaluate runs/edit
        fatezero evaluate runs/edit --judge ViT-B-32/openai --metrics 'warp_*'
        fatezero evaluate --method theirs --videos theirs/ \
            --manifest edits.yaml --out runs/theirs

    Args:
        run: a run folder, runs/<name>.
        options: how clips are scored.
        asking: who answers questions, for the metrics vlm_*.
        manifest: the edits, with what is known of the right results; here, or in an object store.
        root: folder that the manifest's paths start from; by default as the run was made, else its own.
        out: where rows go; <run>/evaluation by default.
        method: what the maker of foreign videos is called.
        videos: folder of foreign videos, in place of a run.
        categories: score foreign videos of these categories alone; all by default.
        resize: scale foreign videos of another size.
        trim: cut foreign videos of another length.

    Returns:
        0 if everything was scored, 1 if anything failed.

    Raises:
        UserError: for options that do not fit each other, and where nothing can be scored.
    """
    with importing():
        from fatezero.picturebook.benchmark.truth import write_truth
        from fatezero_eval.scoring.evaluation import evaluate_run, evaluate_videos

    shown = steps_shown("scoring", "clip")
    shared = vars(replace(options, judge=judge_location(options.judge), asking=asking))
    if run is not None:
        given: dict[str, object] = {"method": method, "videos": videos, "categories": categories or None}
        given |= {"resize": resize or None, "trim": trim or None}
        beside = [name for name, value in given.items() if value is not None]
        if beside:
            raise UserError(
                f"--{beside[0]} was given beside a run folder, but is for foreign videos: leave one of them out."
            )
        ours = EvaluateRun(**shared, run=run, manifest=manifest, root=root, out=out)
        return tell(evaluate_run(ours, write_truth, shown), options.judge)
    needed = {"method": method, "videos": videos, "manifest": manifest, "out": out}
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise UserError(f"--{missing[0]} is missing: give a run folder, or --method, --videos, --manifest and --out.")
    chosen = {"root": root, "categories": categories, "resize": resize, "trim": trim}
    theirs = EvaluateVideos(**shared, **needed, **chosen)  # type: ignore[arg-type]
    return tell(evaluate_videos(theirs, write_truth, shown), options.judge)


def tell(evaluation: Evaluation, judge: str) -> int:
    """Say what came of an evaluation, each thing once; 1 if anything failed."""
    from fatezero_eval.scoring.refusals import told_once, undefined
    from fatezero_eval.tables.notation import markdown
    from fatezero_eval.tables.set_distance_grids import set_distance_grid

    for note in evaluation.notes:
        say(note)
    report = evaluation.match_report
    if report is not None:
        say(report)
    told = {match.problem for match in report.matches} if report else set()
    for sentence in told_once({name: why for name, why in evaluation.failures.items() if why not in told}):
        complain(sentence)
    for sentence in undefined(evaluation.rows):
        say(sentence)
    if evaluation.distances:
        say(markdown(set_distance_grid(evaluation.distances)))
    if evaluation.costs is not None:
        say(evaluation.costs)
    tell_scores(evaluation, judge)
    say(f"{counted(len(evaluation.rows), 'row')} in {evaluation.lines} and {evaluation.table}")
    return 1 if evaluation.failures else 0
