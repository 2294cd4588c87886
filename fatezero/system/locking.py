"""Locks on files, which the system lets go of when their process ends, however it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path

from fatezero.errors import UserError
from fatezero.system.stopping import stopping_later, stopping_now

try:
    import fcntl
except ImportError as error:  # all that writes files comes by here
    raise UserError(
        "FateZero runs on Linux and macOS, whose locks on files it needs: on Windows run it in WSL (Windows Subsystem "
        "for Linux)."
    ) from error

POLLING = 0.02  # seconds; a signal is heard between two tries


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold a lock file, which is made here and goes with the lock; whoever comes second waits.

    Raises:
        UserError: the folder cannot be written.
    """
    with stopping_later(), _waited_for(lock):  # a signal between two of these lines would leave the file
        try:
            with stopping_now():
                yield
        finally:
            with suppress(OSError):  # a folder that became read-only keeps an empty file, which nobody holds
                lock.unlink()


def try_lock(lock: Path) -> TextIOWrapper | None:
    """The open file of a lock, held until it is closed; None where another process holds it.

    Raises:
        OSError: the lock file cannot be made.
    """
    while True:
        file = lock.open("w", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        with suppress(FileNotFoundError):  # another process may have taken it away between opening and locking
            if os.fstat(file.fileno()).st_ino == lock.stat().st_ino:
                return file
        file.close()


def is_held(lock: Path) -> bool:
    """Whether another process holds a lock just now."""
    if not lock.exists():
        return False
    with suppress(OSError):
        file = try_lock(lock)
        if file is None:
            return True
        lock.unlink(missing_ok=True)
        file.close()
    return False


def _waited_for(lock: Path) -> TextIOWrapper:
    """The open file of a lock, once no other process holds it."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        while (file := try_lock(lock)) is None:
            with stopping_now():
                time.sleep(POLLING)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{lock} cannot be written ({reason}); free some space or choose another folder.") from error
    return file
