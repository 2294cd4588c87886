"""Several processes on a CPU begin as copies of one that has imported everything, once."""

from __future__ import annotations

import multiprocessing
from multiprocessing.forkserver import ensure_running

PRELOADED = "fatezero.lightning.preloaded"


def start_fork_server() -> None:
    """Start the process that others are copies of; its imports go on beside this one's.

    It has no other thread and has touched no GPU, so a copy of it is whole; copies of this process, whose threads they
    would lack, might not be. One server serves all runs of a process.
    """
    multiprocessing.set_forkserver_preload([PRELOADED])
    ensure_running()
