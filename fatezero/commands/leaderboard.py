"""`fatezero leaderboard`: join scored runs into tables."""

from __future__ import annotations

from pathlib import Path


def leaderboard(runs: tuple[Path, ...], *, out: Path | None = None, reference: str | None = None) -> int:
    """Write the tables and print them in short; returns 0.

    Args:
        runs: run folders, and folders of scored foreign videos.
        out: where the tables go; the first run by default.
        reference: the variant that others are compared to.
    """
    from fatezero_eval.tables.leaderboard_files import write_leaderboard

    print(write_leaderboard(runs, out or runs[0], reference))
    return 0
