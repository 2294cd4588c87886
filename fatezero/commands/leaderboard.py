"""`fatezero leaderboard`: join scored runs into tables."""

from __future__ import annotations

from pathlib import Path

from fatezero.system.importing import importing
from fatezero.system.terminal import complain, say


def leaderboard(
    runs: tuple[Path, ...], *, out: Path | None = None, reference: str | None = None, weights: Path | None = None
) -> int:
    """Write the tables and print them in short.

    Examples:
        fatezero leaderboard runs/ablation
        fatezero leaderboard runs/ours runs/theirs published.csv --out runs/board

    Args:
        runs: run folders, folders of scored foreign videos, and csv files of published scores (edit, metric, value).
        out: where the tables go; the first run by default.
        reference: the variant that others are compared to.
        weights: a YAML file of metrics with their weights, worst and best values, for weighted scores.

    Returns:
        0, or 1 if a run or a result could not be read and is left out.
    """
    with importing():
        import fatezero_eval.scoring.suite  # noqa: F401  (which the tables ask about metrics)
        from fatezero_eval.tables.leaderboard_files import write_leaderboard

    board = write_leaderboard(runs, out or _first_run(runs), reference, weights)
    for problem in board.problems:
        complain(problem)
    say(board)
    return 1 if board.problems else 0


def _first_run(runs: tuple[Path, ...]) -> Path:
    return next((run for run in runs if run.suffix.lower() != ".csv"), runs[0].parent)
