"""The rows of each finished job in a small file named by the content of everything that goes into them.

So a run that was killed goes on where it stopped, an edit that was made again is scored again, and processes never
write to the same file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from fatezero.data.files import content_digest, json_digest, replace_text
from fatezero_eval.file_names import FAILED
from fatezero_eval.scoring.rows import Row, from_json, to_json
from fatezero_eval.scoring.scoring_jobs import ScoringJob, clip_name


def fingerprint(job: ScoringJob, setting: str) -> str:
    """Digest of everything a score depends on, and of the names its rows carry; not of where files lie."""
    values = asdict(job)
    values["clip"] = clip_name(job.request.clip)
    for owner, key in (
        (values["request"], "clip"),
        *((values, key) for key in ("edited", "own_mask", "mask", "true_edit")),
    ):
        if owner[key]:
            owner[key]["path"] = content_digest(Path(owner[key]["path"]))
    values["true_flow"] = content_digest(job.true_flow) if job.true_flow else None
    return json_digest([setting, values])


def keep_rows(file: Path, rows: Iterable[Row]) -> None:
    """Write a job's rows; a reason for its failing before goes."""
    replace_text(file, "".join(f"{to_json(row)}\n" for row in rows))
    file.with_suffix(FAILED).unlink(missing_ok=True)


def kept_rows(file: Path) -> list[Row] | None:
    """A job's rows; None where there are none yet, or damaged ones: it must be scored again."""
    try:
        return [from_json(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError):
        return None


def keep_failure(file: Path, reason: str) -> None:
    """Write why a job cannot be scored."""
    replace_text(file.with_suffix(FAILED), reason)


def kept_failure(file: Path) -> str:
    """Why a job has no rows."""
    reason = file.with_suffix(FAILED)
    return reason.read_text(encoding="utf-8") if reason.is_file() else "its process ended before it was scored"
