"""What a run folder holds, job by job: done, failed or missing.

A result counts as done when its folder is there with a `meta.json` that carries the job's digest: the folder is
published whole, so no half-written one ever counts. A failure is a sentence beside the folder and is tried again.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fatezero.data.files import read_json
from fatezero.data.layout import PLAN, RECORD, RESULTS, failure_file, failure_log, plan_lock, segment_folders
from fatezero.data.layout import plans as list_plans
from fatezero.errors import UnforeseenError, UserError
from fatezero.runs.differences import differences
from fatezero.runs.jobs import EditJob
from fatezero.system.locking import locked
from fatezero.system.publishing import clear_leftovers, replace_text, replacing

State = Literal["done", "failed", "missing", "other"]


def state_of(folder: Path, digest: str) -> State:
    """What has become of a job.

    Args:
        folder: where its result goes.
        digest: the job's.

    Returns:
        "done"; "failed" where a reason is recorded; "other" where a result of other settings lies there; "missing".
    """
    try:
        meta = read_json(folder / RECORD)
        return "done" if meta["digest"] == digest else "other"
    except (OSError, ValueError, KeyError, TypeError):
        return "failed" if failure_file(folder).exists() else "missing"


def is_done(job: EditJob) -> bool:
    """Whether a job, or the segment of it that is to be done, is there.

    Where all segments are there but were never put together, they count as missing: recomputing any of them triggers
    the assembly.
    """
    if state_of(job.folder, job.digest) == "done":
        return True
    if job.segment is None:
        return False
    return job.segments.holds(job.segment) and not all(map(job.segments.holds, job.segment.all))


def record_failure(job: EditJob, failure: UserError) -> None:
    """Keep the sentence that says why a job came to nothing, and beside it the trace of an error nobody foresaw.

    Raises:
        UserError: the folder cannot be written.
    """
    reason, log = str(failure), failure_log(job.folder)
    if isinstance(failure, UnforeseenError):
        replace_text(log, failure.trace)
        reason = f"{reason} Its trace is in {log}."
    values = {"id": job.request.id, "reason": reason}
    replace_text(failure_file(job.folder), json.dumps(values) + "\n")


def clear_failure(job: EditJob) -> None:
    """Forget an earlier failure: the job is done."""
    failure_file(job.folder).unlink(missing_ok=True)
    failure_log(job.folder).unlink(missing_ok=True)


def failure_reason(folder: Path) -> str:
    """Why a job came to nothing."""
    try:
        return str(read_json(failure_file(folder))["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return "the record of its failure is not readable"


def left_to_do(jobs: Sequence[EditJob], *, redo: bool) -> list[EditJob]:
    """The jobs whose results are not there.

    Args:
        jobs: all jobs of the run.
        redo: results of other settings may be replaced.

    Raises:
        UserError: a result of other settings lies where one of these belongs.
    """
    left = []
    for job in jobs:
        state = state_of(job.folder, job.digest)
        if state == "other" and not redo:
            made = ", ".join(differences(job)) or "another request, clip, configuration or checkpoint"
            raise UserError(
                f"{job.folder} holds a result of {made}: give --variant NAME (or --out) to keep both, or --redo to "
                "replace it."
            )
        if state != "done":
            left.append(job)
    return left


def prepare_run(jobs: Sequence[EditJob]) -> None:
    """Note in each variant's folder what was asked for, and take away what is left of earlier work.

    Raises:
        UserError: a folder cannot be written, or holds a plan that is none.
    """
    for folder in dict.fromkeys(job.folder.parent for job in jobs):
        asked = {job.folder.name: job.digest for job in jobs if job.folder.parent == folder}
        with locked(plan_lock(folder)):
            plan = _read_plan(folder) | asked
            replace_text(folder / PLAN, json.dumps(plan, indent=1) + "\n")
            _clear_segments(folder, plan)
    clear_run(jobs)


def clear_run(jobs: Sequence[EditJob]) -> None:
    """Take away what killed processes left in the folders of a run and its variants."""
    variants = dict.fromkeys(job.folder.parent for job in jobs)
    for folder in (*variants, jobs[0].folder.parent.parent):
        clear_leftovers(folder)


def _clear_segments(folder: Path, plan: Mapping[str, str]) -> None:
    """Take away segments that no result of the plan waits for."""
    awaited = {digest for result, digest in plan.items() if state_of(folder / result, digest) != "done"}
    for digest, segments in segment_folders(folder).items():
        if digest not in awaited:
            shutil.rmtree(segments, ignore_errors=True)


def _read_plan(folder: Path) -> dict[str, str]:
    """What was asked of a variant: digests by result.

    Raises:
        UserError: it is damaged.
    """
    try:
        plan = read_json(folder / PLAN)
        if not isinstance(plan, dict) or not all(isinstance(digest, str) for digest in plan.values()):
            raise ValueError("it is no table of digests")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / PLAN} is not readable ({error}): take it away and run again.") from error
    return plan


@dataclass(frozen=True)
class EditStatus:
    """One result that was asked for.

    Attributes:
        variant: the configuration's name.
        result: name of its folder.
        state: what has become of it.
        reason: why it failed; empty otherwise.
    """

    variant: str
    result: str
    state: State
    reason: str = ""


@dataclass(frozen=True)
class Status:
    """What a run folder holds, and what it lacks; as a text, one line for each variant and each failure."""

    entries: tuple[EditStatus, ...]

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for is there."""
        return all(entry.state == "done" for entry in self.entries)

    def __str__(self) -> str:
        lines = []
        for variant in dict.fromkeys(entry.variant for entry in self.entries):
            counts = Counter(entry.state for entry in self.entries if entry.variant == variant)
            parts = [f"{counts[state]} {state}" for state in ("done", "failed", "missing", "other") if counts[state]]
            lines.append(f"{variant}: {', '.join(parts)}")
        for entry in self.entries:
            if entry.state != "done":
                why = f": {entry.reason}" if entry.reason else ""
                lines.append(f"  {entry.variant}/{entry.result} {entry.state}{why}")
        return "\n".join(lines)


def read_status(run: Path) -> Status:
    """What has become of everything that was ever asked of a run folder.

    Raises:
        UserError: it is no run folder.
    """
    plans = list_plans(run)
    if not plans:
        raise UserError(f"{run} is no run folder: no <variant>/{PLAN} is in it; name one that `fatezero edit` wrote.")
    entries = []
    for plan in plans:
        for result, digest in _read_plan(plan.parent).items():
            folder = plan.parent / result
            state = state_of(folder, digest)
            entries.append(
                EditStatus(plan.parent.name, result, state, failure_reason(folder) if state == "failed" else "")
            )
    return Status(tuple(entries))


def forget_failures(run: Path) -> int:
    """Take what failed off the list of what was asked for, as where it was a typing error.

    Returns:
        How many edits that were.

    Raises:
        UserError: it is no run folder, or cannot be written.
    """
    failed = [entry for entry in read_status(run).entries if entry.state == "failed"]
    for variant in dict.fromkeys(entry.variant for entry in failed):
        folder = run / variant
        gone = {entry.result for entry in failed if entry.variant == variant}
        with locked(plan_lock(folder)):
            plan = {result: digest for result, digest in _read_plan(folder).items() if result not in gone}
            replace_text(folder / PLAN, json.dumps(plan, indent=1) + "\n")
        for result in gone:
            failure_file(folder / result).unlink(missing_ok=True)
            failure_log(folder / result).unlink(missing_ok=True)
    return len(failed)


def write_results_table(run: Path) -> Path:
    """Write `results.parquet`: one row for each result, with its state, times, bytes and digest.

    Returns:
        Its path.
    """
    import pandas as pd  # noqa: PLC0415

    table = run / RESULTS
    with replacing(table) as partial:
        pd.DataFrame([_row(run, entry) for entry in read_status(run).entries]).to_parquet(partial, index=False)
    return table


def _row(run: Path, entry: EditStatus) -> dict[str, Any]:
    row: dict[str, Any] = {"variant": entry.variant, "result": entry.result, "state": entry.state}
    if entry.state == "done":
        try:
            row |= _of_record(read_json(run / entry.variant / entry.result / RECORD))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return row | {"reason": f"its record is not readable ({error!r})"}
    return row | {"reason": entry.reason}


def _of_record(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "edit": meta["request"]["id"],
        "seed": meta["seed"],
        "category": meta["request"]["category"],
        "frames": meta["frames"],
        "digest": meta["digest"],
        "frames_digest": meta["frames_digest"],
        "checkpoint": meta["checkpoint"]["digest"],
        "peak_memory_bytes": meta["peak_memory_bytes"],
        **{f"seconds_{stage}": seconds for stage, seconds in meta["timings"].items()},
    }
