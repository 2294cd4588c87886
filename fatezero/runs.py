"""What a run folder holds, task by task: done, failed, missing; and who is at work on it.

A result counts as done when its folder is there with a `meta.json` that carries the task's digest: the folder is
published whole, so no half-written one ever counts. A failure is a sentence beside the folder and is tried again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

from fatezero.data.files import replacing
from fatezero.errors import UserError
from fatezero.tasks import Task

PLAN = "plan.json"  # in a variant's folder: every result that was ever asked for, with its digest

State = Literal["done", "failed", "missing", "other"]


def state_of(folder: Path, digest: str) -> State:
    """What has become of a task.

    Args:
        folder: of its result.
        digest: of the task.

    Returns:
        "done"; "failed" where a reason is recorded; "other" where a result of other settings lies there; "missing".
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return "done" if meta["digest"] == digest else "other"
    except (OSError, ValueError, KeyError, TypeError):
        return "failed" if _failure_file(folder).exists() else "missing"


def is_done(task: Task) -> bool:
    """Whether a task, or the piece of it that is to be done, is there.

    Where all pieces are there but were never put together, they are not done: any one of them, made again, will see
    to it.
    """
    if state_of(task.folder, task.digest) == "done":
        return True
    if task.piece is None:
        return False
    return task.pieces.holds(task.piece) and not all(map(task.pieces.holds, task.piece.all))


def record_failure(task: Task, reason: str) -> None:
    """Keep the sentence that says why a task came to nothing."""
    with replacing(_failure_file(task.folder)) as partial:
        partial.write_text(json.dumps({"id": task.request.id, "reason": reason}, ensure_ascii=False) + "\n")


def clear_failure(task: Task) -> None:
    """Forget an earlier failure: the task is done."""
    _failure_file(task.folder).unlink(missing_ok=True)


def _failure_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.failed.json")


def failure_reason(folder: Path) -> str:
    """Why a task came to nothing."""
    try:
        return str(json.loads(_failure_file(folder).read_text(encoding="utf-8"))["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return "the record of its failure is not readable"


@contextmanager
def working_on(task: Task) -> Iterator[None]:
    """Keep other processes off a task, or its piece; they wait.

    The system lets go when the process ends, however it ends.

    Raises:
        UserError: the folder cannot be written.
    """
    piece = f".{task.piece.start}" if task.piece else ""
    lock = task.folder.with_name(f".{task.folder.name}{piece}.lock")
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


def left_to_do(tasks: Sequence[Task], *, redo: bool) -> list[Task]:
    """The tasks whose results are not there.

    Args:
        tasks: all of the run.
        redo: results of other settings may be replaced.

    Raises:
        UserError: a result of other settings lies where one of these belongs.
    """
    left = []
    for task in tasks:
        state = state_of(task.folder, task.digest)
        if state == "other" and not redo:
            raise UserError(
                f"{task.folder} holds a result of another request, clip, configuration or checkpoint: choose another "
                "--out or --variant, or give --redo to replace it."
            )
        if state != "done":
            left.append(task)
    return left


def note_plan(tasks: Sequence[Task]) -> None:
    """Note in each variant's folder what was asked for, so that what is missing can be told later."""
    for folder in dict.fromkeys(task.folder.parent for task in tasks):
        asked = {task.folder.name: task.digest for task in tasks if task.folder.parent == folder}
        with replacing(folder / PLAN) as partial:
            partial.write_text(json.dumps(_read_plan(folder) | asked, indent=1) + "\n")


def _read_plan(folder: Path) -> dict[str, str]:
    try:
        plan: dict[str, str] = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        return plan
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / PLAN} is not readable ({error}): take it away and run again.") from error


@dataclass(frozen=True)
class Entry:
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

    entries: tuple[Entry, ...]

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
    plans = sorted(run.glob(f"*/{PLAN}"))
    if not plans:
        raise UserError(f"{run} is no run folder: no <variant>/{PLAN} is in it; name one that `fatezero edit` wrote.")
    entries = []
    for plan in plans:
        for result, digest in _read_plan(plan.parent).items():
            folder = plan.parent / result
            state = state_of(folder, digest)
            entries.append(Entry(plan.parent.name, result, state, failure_reason(folder) if state == "failed" else ""))
    return Status(tuple(entries))


def write_results_table(run: Path) -> Path:
    """Write `results.parquet`: one row for each result, with its state, times, bytes and digest.

    Returns:
        Its path.
    """
    import pandas as pd  # noqa: PLC0415

    rows: list[dict[str, Any]] = []
    for entry in read_status(run).entries:
        row: dict[str, Any] = {"variant": entry.variant, "result": entry.result, "state": entry.state}
        if entry.state == "done":
            meta = json.loads((run / entry.variant / entry.result / "meta.json").read_text(encoding="utf-8"))
            row |= {
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
        rows.append(row | {"reason": entry.reason})
    table = run / "results.parquet"
    with replacing(table) as partial:
        pd.DataFrame(rows).to_parquet(partial, index=False)
    return table
