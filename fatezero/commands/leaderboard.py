"""`fatezero leaderboard`: join scored runs into tables."""

from __future__ import annotations

from pathlib import Path

from fatezero.system.terminal import complain, say


def leaderboard(runs: tuple[Path, ...], *, out: Path | None = None, reference: str | None = None) -> int:
    """Write the tables and print them in short.

    Args:
        runs: run folders, and folders of scored foreign videos.
        out: where the tables go; the first run by default.
        reference: the variant that others are compared to.

    Returns:
        0, or 1 if a run or a result could not be read and is left out.
    """
    from fatezero_eval.tables.leaderboard_files import write_leaderboard

    board = write_leaderboard(runs, out or runs[0], reference)
    for problem in board.problems:
        complain(problem)
    say(board)
    return 1 if board.problems else 0
