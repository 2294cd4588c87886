"""What is said of edits before they are made, and of what came of them."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from fatezero.data.layout import SIDE_BY_SIDE_VIDEO
from fatezero.data.remote import RemoteRun
from fatezero.errors import UserError
from fatezero.runs.jobs import EditJob, InversionGroup
from fatezero.runs.state import failure_reason, state_of
from fatezero.shipped import DEMO
from fatezero.system.terminal import complain, counted, quoted, say


def announce(
    jobs: Sequence[EditJob],
    left: Sequence[EditJob],
    unfit: Mapping[str, UserError],
    groups: Collection[InversionGroup],
    model: str,
    place: object,
) -> None:
    """Say what will be edited, before anything is.

    Args:
        jobs: all that was asked for.
        left: what of it is not there yet.
        unfit: reason by request id why it cannot be edited.
        groups: what will be done.
        model: what the user called the checkpoint.
        place: where results go, as the user called it.
    """
    if len(jobs) == 1:
        if left and not unfit:
            say(_of_one(jobs[0], model))
        return
    doable = sum(job.request.id not in unfit for job in left)
    say(
        f"{len(jobs)} edits with {model} into {place}: {len(jobs) - len(left)} are there, "
        f"{doable} to do from {counted(len(groups), 'inversion')}"
    )


def _of_one(job: EditJob, model: str) -> str:
    """An edit in words: clip, prompts, words, model."""
    request = job.request
    clip = "the shipped clip" if request.clip.path == DEMO.clip.path else quoted(Path(request.clip.path).name)
    words = ", ".join(map(quoted, request.edited_words))
    into = f" into {', '.join(map(quoted, request.target_words))}" if request.target_words else ""
    return (
        f"Editing {clip}: from {quoted(request.source_prompt)} to {quoted(request.target_prompt)}"
        f"{f', changing {words}{into}' if words else ''}.\n"
        f"Model {model}, {counted(job.method.steps, 'step')}."
    )


def account(jobs: Sequence[EditJob], run: Path, remote: RemoteRun | None) -> int:
    """Say what the run folder holds of the jobs, by looking: nothing that a process said counts.

    Returns:
        0 if every result is there, 1 if not.
    """
    states = [state_of(job.folder, job.digest) for job in jobs]
    for job, state in zip(jobs, states, strict=True):
        if state != "done":
            reason = failure_reason(job.folder) if state == "failed" else "nothing was written; run again"
            complain(f"{job.name}: {reason}" if len(jobs) > 1 else reason)
    done = states.count("done")
    if len(jobs) > 1:
        page = "" if remote or not done else f"; a page of all: fatezero report {shlex.quote(str(run))}"
        say(f"{done} of {len(jobs)} edits are in {remote.shown if remote else run}{page}")
    elif done:
        say(_where(jobs[0], remote))
    return 0 if done == len(jobs) else 1


def _where(job: EditJob, remote: RemoteRun | None) -> str:
    """Where an edit is, and how to look at it."""
    if remote:
        return f"The edit is in {remote.shown}/{job.name}; {SIDE_BY_SIDE_VIDEO} shows it beside its source."
    video = job.folder.resolve() / SIDE_BY_SIDE_VIDEO
    player = "open" if sys.platform == "darwin" else shutil.which("xdg-open") and "xdg-open"
    look = f": {player} {shlex.quote(str(video))}" if player else f", in {video}"
    return f"The edit is in {job.folder.resolve()}\nLook at it beside its source{look}"
