"""How work is shared out: what all verbs that edit take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fatezero.errors import UserError


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """How the work is shared out, and what it may take.

    Attributes:
        devices: processes on this machine, one device each.
        num_nodes: machines; SLURM or torchrun starts the processes on them.
        segment: longer clips are cut into segments of this many frames, which processes share; needs norm_scope
            'frame' and key frames of self, first, middle, last. By default a clip is one process's.
        threads: CPU threads of each process; by default the cores are shared out. Equal numbers give equal bytes.
        cache: folder in which inversions are kept and found again; none are kept by default.
        cache_gb: bound of that folder in units of 1e9 bytes; the least recently used go first.
        disk_gb: what results may take in units of 1e9 bytes; by default what is free.
        dry_run: say what would be done, what it takes and how long, and stop.
    """

    devices: int = 1
    num_nodes: int = 1
    segment: int | None = None
    threads: int | None = None
    cache: Path | None = None
    cache_gb: float | None = None
    disk_gb: float | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes", "segment", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}: it is at least 1.")
        for name in ("cache_gb", "disk_gb"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"--{name.replace('_', '-')} is {value}: a budget is more than nothing.")
        if self.cache_gb is not None and self.cache is None:
            raise UserError("--cache-gb was given without --cache, the folder it bounds.")
