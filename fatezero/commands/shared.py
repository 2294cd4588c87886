"""What the verbs that edit share: which checkpoint serves a request, and doing the jobs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from fatezero.commands.work_options import WorkOptions
from fatezero.config import RuntimeConfig
from fatezero.data.layout import SIDE_BY_SIDE_VIDEO, state_files
from fatezero.data.remote import RemoteRun
from fatezero.diffusion.backbone import choose_device
from fatezero.diffusion.checkpoint import CLIP, Checkpoint, find_checkpoint, folder_of_clip, native_size, sized
from fatezero.errors import UserError
from fatezero.lightning.predict_steps import EditingModule, EditorFactory
from fatezero.lightning.running import is_first_process, run_groups, started_by_cluster
from fatezero.lightning.writers import ResultWriter
from fatezero.runs.forecast import Forecaster, check_disk, describe_forecast
from fatezero.runs.jobs import EditJob, cut_job
from fatezero.runs.scheduling import share_inversions
from fatezero.runs.state import failure_reason, left_to_do, note_plan, record_failure, state_of, write_results_table
from fatezero.source_attention.budget import GB
from fatezero.types import EditRequest


def perform(
    jobs: Sequence[EditJob],
    unreadable: Mapping[str, str],
    model: str,
    runtime: RuntimeConfig,
    work: WorkOptions,
    *,
    redo: bool,
    remote: RemoteRun | None = None,
) -> int:
    """Do what is left of a run's jobs, and say what became of all.

    Args:
        jobs: all jobs of one run folder.
        unreadable: reason by request id why its clip cannot be read.
        model: what the user called the checkpoint.
        runtime: how the networks run.
        work: how it is shared out.
        redo: replace results that were made with other settings.
        remote: where results are copied to.

    Returns:
        0 if every result is there, 1 if not.
    """
    run = jobs[0].folder.parent.parent
    left = left_to_do(jobs, redo=redo)
    if started_by_cluster():
        left = list(jobs)  # one process may start after another has finished something, and all must share alike
    doable = [job for job in left if job.request.id not in unreadable]
    groups = share_inversions(part for job in doable for part in cut_job(job, work.segment))
    print(
        f"{len(jobs)} edits with {model} into {run}: {len(jobs) - len(left)} are there, "
        f"{len(doable)} to do from {len(groups)} inversions"
    )
    check_disk(doable, run, None if work.disk_gb is None else int(work.disk_gb * GB))
    factory, device = editor_factory(runtime, work, remote), choose_device(runtime.device)
    if work.dry_run:
        if groups:
            forecaster = Forecaster(partial(factory.load, torch.device(device)))
            print(describe_forecast(forecaster, groups, work.devices * work.num_nodes))
        return 0
    note_plan(jobs)
    for job in left:
        if job.request.id in unreadable:
            record_failure(job, unreadable[job.request.id])
    if groups:
        run_groups(EditingModule(factory), groups, work.devices, work.num_nodes, device.type, [ResultWriter()])
    return _account(jobs, run, remote)


def _account(jobs: Sequence[EditJob], run: Path, remote: RemoteRun | None) -> int:
    """What the run folder holds of the jobs, by looking: nothing that a process said counts."""
    if not is_first_process():
        return 0
    states = [state_of(job.folder, job.digest) for job in jobs]
    for job, state in zip(jobs, states, strict=True):
        if state != "done":
            reason = failure_reason(job.folder) if state == "failed" else "nothing was written; run again"
            print(f"fatezero: {job.name}: {reason}", file=sys.stderr)
    done = states.count("done")
    write_results_table(run)
    if remote:
        for file in state_files(run):
            remote.publish(file)
    print(f"{done} of {len(jobs)} edits are in {remote.url if remote else run}; look at {SIDE_BY_SIDE_VIDEO} in each.")
    return 0 if done == len(jobs) else 1


def checkpoints(model: str, motion_adapter: str | None) -> Callable[[EditRequest], Checkpoint]:
    """The checkpoint of each request: one for all, or one for each clip where the model's name holds "{clip}"."""
    if CLIP not in model:
        one = find_checkpoint(model, motion_adapter)
        return lambda _: one
    if motion_adapter is not None:
        raise UserError("--motion-adapter was given beside models tuned on clips: leave one of them out.")
    return lambda request: folder_of_clip(model, request.clip.path)


def editor_factory(runtime: RuntimeConfig, work: WorkOptions, remote: RemoteRun | None = None) -> EditorFactory:
    """What every process loads its networks with."""
    threads = work.threads
    if threads is None and work.devices > 1:
        threads = max(1, (os.cpu_count() or 1) // work.devices)
    bound = None if work.cache_gb is None else int(work.cache_gb * GB)
    return EditorFactory(
        runtime=runtime,
        cache=work.cache,
        cache_bytes=bound,
        remote=remote,
        threads=threads,
        quiet=not is_first_process(),
    )


def at_native_size(
    requests: Sequence[EditRequest], checkpoint: Callable[[EditRequest], Checkpoint]
) -> tuple[list[EditRequest], dict[str, str]]:
    """The requests at their checkpoint's own scale; for those whose clips cannot be read, the reason by id."""
    ready, unreadable = [], {}
    for request in requests:
        try:
            native, unit = native_size(checkpoint(request).folder)
            ready.append(replace(request, clip=sized(request.clip, native, unit)))
        except UserError as error:
            ready.append(request)
            unreadable[request.id] = str(error)
    return ready, unreadable
