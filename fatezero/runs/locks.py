"""One process at a time works on a job: others wait."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from fatezero.data.layout import lock_file
from fatezero.errors import UserError
from fatezero.runs.jobs import EditJob


@contextmanager
def working_on(job: EditJob) -> Iterator[None]:
    """Keep other processes off a job, or its segment; they wait.

    The system lets go when the process ends, however it ends.

    Raises:
        UserError: the folder cannot be written.
    """
    lock = lock_file(job.folder, job.segment.start if job.segment else None)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(lock)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{lock} cannot be written ({reason}); free some space or choose another folder.") from error
    with file:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _locked(lock: Path) -> TextIOWrapper:
    """The open lock file; another process may have taken it away between opening and locking."""
    while True:
        file = lock.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        if lock.exists() and os.fstat(file.fileno()).st_ino == lock.stat().st_ino:
            return file
        file.close()
