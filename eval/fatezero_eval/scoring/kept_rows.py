"""The rows of each finished job in a small file named by the content of everything that goes into them.

So a run that was killed goes on where it stopped, an edit that was made again is scored again, and processes never
write to the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fatezero.data.files import json_digest, parse_json, read_text
from fatezero.errors import UnforeseenError, UserError
from fatezero.system.publishing import replace_text
from fatezero.system.terminal import printable
from fatezero_eval.file_names import ANSWERS, FAILED, LOG, SAID
from fatezero_eval.scoring.clip_names import unit_name
from fatezero_eval.scoring.rows import MAX_BYTES, Row, from_json, lines_of, to_json
from fatezero_eval.scoring.scoring_jobs import ScoringJob, content_of
from fatezero_eval.vlm.answer_log import AnswerCosts, costs_of


def fingerprint(job: ScoringJob, setting: str) -> str:
    """Digest of everything a score depends on, and of the names its rows carry; not of where files lie."""
    values = asdict(job)
    values["clip"] = unit_name(job.request)
    files = [values["request"]["clip"], values["edited"]]
    for companion in filter(None, (values[name] for name in ("own_mask", "mask", "target_mask", "true_edit"))):
        files.append(companion["clip"])
        if isinstance(companion["content"], str):
            companion["content"] = content_of(companion["content"])
        else:
            files.append(companion["content"])
    for file in files:
        file["path"] = content_of(file["path"])
    values["true_flow"] = content_of(str(job.true_flow)) if job.true_flow else None
    return json_digest([setting, values])


def keep_rows(file: Path, rows: Iterable[Row], traces: Mapping[str, str] | None = None, answers: str = "") -> None:
    """Write a job's rows; what lay there of an earlier try goes.

    Args:
        file: where they are kept.
        rows: of one job.
        traces: by the reason that a row states, the trace of an error that nobody foresaw, for a file beside them.
        answers: what was answered about the job, as lines of JSON, for another.
    """
    replace_text(file, "".join(f"{to_json(row)}\n" for row in rows))
    file.with_suffix(FAILED).unlink(missing_ok=True)
    traced = "\n".join(f"{reason}\n{trace}" for reason, trace in (traces or {}).items())
    for suffix, text in ((LOG, traced), (SAID, answers)):
        if text:
            replace_text(file.with_suffix(suffix), text)
        else:
            file.with_suffix(suffix).unlink(missing_ok=True)


def kept_answers(file: Path) -> list[dict[str, Any]]:
    """What was answered about a job; nothing where the file is gone, or damaged."""
    try:
        return [parse_json(line) for line in lines_of(read_text(file.with_suffix(SAID), MAX_BYTES))]
    except (OSError, ValueError):
        return []


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


def trace_of(file: Path, reason: str) -> Path | None:
    """The file with the trace behind a reason that kept rows state; None where the reason was foreseen."""
    log = file.with_suffix(LOG)
    try:
        return log if reason in lines_of(read_text(log)) else None
    except (OSError, ValueError):
        return None


def kept_failure(file: Path) -> str:
    """Why a job has no rows."""
    try:
        return read_text(file.with_suffix(FAILED)) or "no reason was written down"
    except (OSError, ValueError):
        return "its process ended before it was scored"


def write_answers(folder: Path, files: Mapping[str, Path]) -> AnswerCosts | None:
    """Write what was answered about all jobs into one file; none where nothing was asked.

    Args:
        folder: gets `answers.jsonl`.
        files: by job, where its rows are kept.

    Returns:
        What the answers cost.
    """
    lines = [{"job": job, **answer} for job, file in files.items() for answer in kept_answers(file)]
    if lines:
        replace_text(folder / ANSWERS, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
    else:
        (folder / ANSWERS).unlink(missing_ok=True)
    return costs_of(lines)
