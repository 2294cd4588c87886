"""The rows of each finished job in a small file named by the content of everything that goes into them.

So a run that was killed goes on where it stopped, an edit that was made again is scored again, and processes never
write to the same file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from fatezero.data.files import json_digest, read_text
from fatezero.errors import UnforeseenError, UserError
from fatezero.system.publishing import replace_text
from fatezero.system.terminal import printable
from fatezero_eval.file_names import FAILED, LOG
from fatezero_eval.scoring.rows import Row, from_json, lines_of, to_json
from fatezero_eval.scoring.scoring_jobs import ScoringJob, clip_name, content_of


def fingerprint(job: ScoringJob, setting: str) -> str:
    """Digest of everything a score depends on, and of the names its rows carry; not of where files lie."""
    values = asdict(job)
    values["clip"] = clip_name(job.request.clip)
    for owner, key in (
        (values["request"], "clip"),
        *((values, key) for key in ("edited", "own_mask", "mask", "true_edit")),
    ):
        if owner[key]:
            owner[key]["path"] = content_of(owner[key]["path"])
    values["true_flow"] = content_of(str(job.true_flow)) if job.true_flow else None
    return json_digest([setting, values])


def keep_rows(file: Path, rows: Iterable[Row]) -> None:
    """Write a job's rows; a reason for its failing before goes."""
    replace_text(file, "".join(f"{to_json(row)}\n" for row in rows))
    for suffix in (FAILED, LOG):
        file.with_suffix(suffix).unlink(missing_ok=True)


def kept_rows(file: Path, job: ScoringJob, metrics: Sequence[str]) -> list[Row] | None:
    """A job's rows; None where there are none yet, or others than one for each metric: it must be scored again.

    Args:
        file: where they are kept.
        job: what they are of.
        metrics: ids of the metrics, in their order.
    """
    try:
        rows = [from_json(line) for line in lines_of(read_text(file))]
    except (OSError, ValueError, TypeError):
        return None
    expected = [(job.variant, job.request.id, job.request.seed, metric) for metric in metrics]
    return rows if [(row.variant, row.edit, row.seed, row.metric) for row in rows] == expected else None


def keep_failure(file: Path, failure: UserError) -> None:
    """Write why a job cannot be scored; the trace of what nobody foresaw beside it."""
    reason = printable(str(failure))
    if isinstance(failure, UnforeseenError):
        log = file.with_suffix(LOG)
        replace_text(log, failure.trace)
        reason += f" Its trace is in {log}."
    replace_text(file.with_suffix(FAILED), reason)


def kept_failure(file: Path) -> str:
    """Why a job has no rows."""
    try:
        return read_text(file.with_suffix(FAILED)) or "no reason was written down"
    except (OSError, ValueError):
        return "its process ended before it was scored"
