"""`fatezero status`: what a run folder holds and lacks."""

from __future__ import annotations

from pathlib import Path

from fatezero.system.terminal import counted, say


def status(run: Path, *, forget: bool = False) -> int:
    """Say what a run folder holds and lacks.

    Examples:
        fatezero status runs/edit
        fatezero status runs/edit --forget

    Args:
        run: a run folder.
        forget: take what failed off the list, as where it was a typing error and will not be asked for again.

    Returns:
        0 if everything that was asked for is there, 1 if not.
    """
    from fatezero.runs.state import forget_failures, read_status

    if forget:
        say(f"{counted(forget_failures(run), 'failed edit')} forgotten")
    found = read_status(run)
    say(found)
    return 0 if found.complete else 1
