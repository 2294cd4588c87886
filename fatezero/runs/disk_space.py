"""Whether the results of a run fit the disk, before it starts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fatezero.config import GB
from fatezero.data.files import existing_parent
from fatezero.errors import UserError
from fatezero.runs.jobs import EditJob, clip_length

PIXEL_BYTES = 5  # at most: a result's frames and masks as PNGs of noise, and both again as videos


def result_bytes(jobs: Sequence[EditJob]) -> int:
    """The most that results can take on disk."""
    clips = [job.request.clip for job in jobs]
    return sum(PIXEL_BYTES * clip_length(clip) * (clip.height or 0) * (clip.width or 0) for clip in clips)


def check_disk(jobs: Sequence[EditJob], run: Path, budget: int | None) -> None:
    """Refuse a run whose results may not fit, before it starts.

    Raises:
        UserError: saying what would fit.
    """
    needed, free = result_bytes(jobs), shutil.disk_usage(existing_parent(run)).free
    limit = free if budget is None else min(budget, free)
    if needed > limit:
        raise UserError(
            f"{len(jobs)} results may take {needed / GB:.3f} GB in {run}, more than the {limit / GB:.3f} GB there: "
            f"about {int(len(jobs) * limit / needed)} would fit; take fewer edits or frames, a smaller size, or raise "
            "--disk-gb."
        )
