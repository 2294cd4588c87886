"""How work is shared out: what all verbs that edit take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fatezero.config import MAX_FRAMES, MAX_GB, MAX_THREADS, check_number
from fatezero.errors import UserError

MAX_PROCESSES = 1024
LEAST_GB = 1e-9  # a byte


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """How the work is shared out, and what it may take.

    Attributes:
        devices: processes on this machine, one device each.
        num_nodes: machines; SLURM or torchrun starts the processes on them.
        segment: longer clips are cut into segments of this many frames, which processes share; needs norm_scope
            'frame' and key frames of self, first, middle, last. By default a clip is one process's.
        threads: CPU threads of each process. One by default: sums are rounded otherwise by another number of
            threads, so the bytes of a result would follow from the machine; more processes give the same bytes.
        cache: folder in which inversions are kept and found again; none are kept by default.
        cache_gb: bound of that folder in units of 1e9 bytes; the least recently used go first.
        disk_gb: what results may take in units of 1e9 bytes; by default what is free.
        dry_run: say what would be done, what it takes and how long, and stop.
        verbose: also say how the work is done: network calls, where the source's attention is kept, bytes.
    """

    devices: int = 1
    num_nodes: int = 1
    segment: int | None = None
    threads: int = 1
    cache: Path | None = None
    cache_gb: float | None = None
    disk_gb: float | None = None
    dry_run: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        check_number("--devices", self.devices, 1, MAX_PROCESSES)
        check_number("--num-nodes", self.num_nodes, 1, MAX_PROCESSES)
        check_number("--segment", self.segment, 1, MAX_FRAMES)
        check_number("--threads", self.threads, 1, MAX_THREADS)
        check_number("--cache-gb", self.cache_gb, LEAST_GB, MAX_GB)
        check_number("--disk-gb", self.disk_gb, LEAST_GB, MAX_GB)
        if self.cache_gb is not None and self.cache is None:
            raise UserError("--cache-gb was given without --cache, the folder it bounds.")
