"""One process at a time works on a job; and whether the others are still at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from fatezero.data.layout import lock_file, process_lock
from fatezero.runs.jobs import EditJob
from fatezero.system.locking import locked


def working_on(job: EditJob) -> AbstractContextManager[None]:
    """Keep other processes off a job, or its segment; they wait.

    Raises:
        UserError: the folder cannot be written.
    """
    return locked(lock_file(job.folder, job.segment.start if job.segment else None))


@contextmanager
def at_work(run: Path, group: str, place: int, processes: int) -> Iterator[None]:
    """Be known to be at work; the first process leaves when no other is, however they end.

    All must have entered before the first leaves.

    Args:
        run: the run's folder.
        group: what these processes have in common, and no others.
        place: of this process among them.
        processes: their number.
    """
    with locked(process_lock(run, group, place)):
        yield
    if place == 0:
        for other in range(1, processes):
            with locked(process_lock(run, group, other)):
                pass
