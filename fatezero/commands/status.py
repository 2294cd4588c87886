"""`fatezero status`: what a run folder holds and lacks."""

from __future__ import annotations

from pathlib import Path

from fatezero.system.terminal import say


def status(run: Path) -> int:
    """Say what a run folder holds and lacks.

    Args:
        run: a run folder.

    Returns:
        0 if everything that was asked for is there, 1 if not.
    """
    from fatezero.runs.state import read_status

    found = read_status(run)
    say(found)
    return 0 if found.complete else 1
