"""What the commands around the editor do between parsing and printing."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fatezero import picturebook
from fatezero.cache import TrajectoryCache
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.data.manifest import read_manifest, request_from_json
from fatezero.data.remote import RemoteRun, is_remote
from fatezero.diffusion.backbone import choose_device
from fatezero.diffusion.checkpoint import CLIP, Checkpoint, find_checkpoint, folder_of_clip, native_size
from fatezero.errors import UserError
from fatezero.experiment import AblationOptions
from fatezero.forecast import Forecaster, check_disk, describe_forecast
from fatezero.lightning.modules import EditingModule, InversionModule, Workshop
from fatezero.lightning.running import is_first_process, run_jobs, started_by_cluster
from fatezero.lightning.writers import FailureLog, ResultWriter
from fatezero.options import CacheOptions, EditOptions, InvertOptions, WorkOptions
from fatezero.planning import GB
from fatezero.runs import (
    failure_reason,
    left_to_do,
    note_plan,
    read_status,
    record_failure,
    state_of,
    write_results_table,
)
from fatezero.tasks import Job, Task, cut_task, make_tasks, share_inversions, sized
from fatezero.types import ClipSpec, EditRequest


def edit(options: EditOptions, method: MethodConfig, runtime: RuntimeConfig, work: WorkOptions) -> int:
    """Edit what the options name and write the results; what is there already is kept.

    Returns:
        0 if every edit is there, 1 if any failed.

    Raises:
        UserError: for options that do not fit each other or the checkpoint, and if a process died.
    """
    variant = _safe_name("variant", options.variant)
    remote = RemoteRun(options.out) if is_remote(options.out) else None
    run = remote.folder if remote else Path(options.out)
    if remote:
        remote.fetch_state()
    checkpoint = checkpoints(options)
    requests, unreadable = at_native_size(_requests(options), checkpoint)
    tasks = make_tasks(requests, {variant: method}, run, checkpoint)
    return perform(tasks, unreadable, options, runtime, work, remote)


def invert(options: InvertOptions, method: MethodConfig, runtime: RuntimeConfig, work: WorkOptions) -> int:
    """Invert the clips of a manifest into the cache, for edits to come.

    Returns:
        0 if every inversion is there, 1 if any failed.

    Raises:
        UserError: without a cache, for options that do not fit the checkpoint, and if a process died.
    """
    if work.cache is None:
        raise UserError("--cache is missing: it names the folder that inversions are kept in.")
    checkpoint = checkpoints(options)
    requests, unreadable = at_native_size(read_manifest(options.manifest, options.root).requests, checkpoint)
    sound = [request for request in requests if request.id not in unreadable]
    jobs = share_inversions(make_tasks(sound, {"inversion": method}, work.cache, checkpoint))
    print(f"{len(jobs)} inversions for {len(requests)} edits with {options.model} into {work.cache}")
    with TemporaryDirectory(prefix="fatezero-") as folder:
        log = FailureLog(Path(folder))
        if jobs:
            module = InversionModule(_workshop(runtime, work))
            once = [Job(job.tasks[:1]) for job in jobs]
            run_jobs(module, once, work, choose_device(runtime.device).type, [log])
        failures = unreadable | log.read()
    for name, reason in failures.items():
        print(f"fatezero: {name}: {reason}", file=sys.stderr)
    return 1 if failures else 0


def status(run: Path) -> int:
    """Say what a run folder holds and lacks.

    Returns:
        0 if everything that was asked for is there, 1 if not.
    """
    found = read_status(run)
    print(found)
    return 0 if found.complete else 1


def cache(options: CacheOptions) -> int:
    """List, check or shrink a folder of kept inversions.

    Returns:
        0, or 1 if damaged entries were found.
    """
    kept = TrajectoryCache(options.folder)
    if not options.folder.is_dir():
        raise UserError(f"{options.folder}: no such folder; name the one that was given as --cache.")
    if options.action == "verify":
        sound, damaged = kept.verify()
        print(f"{len(sound)} sound, {len(damaged)} damaged and taken away")
        return 1 if damaged else 0
    if options.action == "prune":
        if options.cache_gb is None:
            raise UserError("--cache-gb is missing: it says what may stay.")
        print(f"{len(kept.prune(int(options.cache_gb * GB)))} taken away")
        return 0
    entries = kept.entries()
    for entry in entries:
        used = datetime.fromtimestamp(entry.used, UTC).strftime("%Y-%m-%d %H:%M")
        print(f"{entry.key} {entry.bytes / GB:.3f} GB {used} {entry.about.get('prompt', '')}")
    print(f"{len(entries)} inversions, {sum(entry.bytes for entry in entries) / GB:.3f} GB")
    return 0


def perform(
    tasks: Sequence[Task],
    unreadable: Mapping[str, str],
    options: EditOptions | AblationOptions,
    runtime: RuntimeConfig,
    work: WorkOptions,
    remote: RemoteRun | None = None,
) -> int:
    """Do what is left of a run's tasks, and say what became of all.

    Args:
        tasks: of one run folder.
        unreadable: by request id, why its clip cannot be read.
        options: say whether results that were made with other settings are replaced.
        runtime: of the networks.
        work: how it is shared out.
        remote: where results are copied to.

    Returns:
        0 if every result is there, 1 if not.
    """
    run = tasks[0].folder.parent.parent
    left = left_to_do(tasks, redo=options.redo)
    if started_by_cluster():
        left = list(tasks)  # one process may start after another has finished something, and all must share alike
    doable = [task for task in left if task.request.id not in unreadable]
    jobs = share_inversions(part for task in doable for part in cut_task(task, work.piece))
    print(
        f"{len(tasks)} edits with {options.model} into {run}: {len(tasks) - len(left)} are there, "
        f"{len(doable)} to do from {len(jobs)} inversions"
    )
    check_disk(doable, run, None if work.disk_gb is None else int(work.disk_gb * GB))
    workshop, device = _workshop(runtime, work, remote), choose_device(runtime.device)
    if work.dry_run:
        if jobs:
            forecaster = Forecaster(partial(workshop.load, torch.device(device)))
            print(describe_forecast(forecaster, jobs, work.devices * work.num_nodes))
        return 0
    note_plan(tasks)
    for task in left:
        if task.request.id in unreadable:
            record_failure(task, unreadable[task.request.id])
    if jobs:
        run_jobs(EditingModule(workshop), jobs, work, device.type, [ResultWriter()])
    return _account(tasks, run, remote)


def _account(tasks: Sequence[Task], run: Path, remote: RemoteRun | None) -> int:
    """What the run folder holds of the tasks, by looking: nothing that a process said counts."""
    if not is_first_process():
        return 0
    states = [state_of(task.folder, task.digest) for task in tasks]
    for task, state in zip(tasks, states, strict=True):
        if state != "done":
            reason = failure_reason(task.folder) if state == "failed" else "nothing was written; run again"
            print(f"fatezero: {task.name}: {reason}", file=sys.stderr)
    done = states.count("done")
    table = write_results_table(run)
    if remote:
        for file in (table, *sorted(run.glob("*/*.json"))):
            remote.publish(file)
    print(f"{done} of {len(tasks)} edits are in {remote.url if remote else run}; look at side_by_side.mp4 in each.")
    return 0 if done == len(tasks) else 1


def checkpoints(options: EditOptions | InvertOptions | AblationOptions) -> Callable[[EditRequest], Checkpoint]:
    """The checkpoint of each request: one for all, or one for each clip where the model's name holds "{clip}"."""
    if CLIP not in options.model:
        one = find_checkpoint(options.model, options.motion_adapter)
        return lambda _: one
    if options.motion_adapter is not None:
        raise UserError("--motion-adapter was given beside models tuned on clips: leave one of them out.")
    return lambda request: folder_of_clip(options.model, request.clip.path)


def _workshop(runtime: RuntimeConfig, work: WorkOptions, remote: RemoteRun | None = None) -> Workshop:
    threads = work.threads
    if threads is None and work.devices > 1:
        threads = max(1, (os.cpu_count() or 1) // work.devices)
    bound = None if work.cache_gb is None else int(work.cache_gb * GB)
    return Workshop(
        runtime=runtime,
        cache=work.cache,
        cache_bytes=bound,
        remote=remote,
        threads=threads,
        quiet=not is_first_process(),
    )


def _requests(options: EditOptions) -> Sequence[EditRequest]:
    single = {"clip": options.clip, "source": options.source, "target": options.target}
    given = [name for name, value in single.items() if value is not None]
    if options.manifest is not None:
        if given:
            raise UserError(f"--{given[0]} and --manifest were both given: a manifest names its own clips and prompts.")
        _refuse(options, ("id", "seed", "edited_words", "target_words"), "--manifest, which states its own")
        manifest = read_manifest(options.manifest, options.root)
        for note in manifest.notes:
            print(note)
        return [_with_clip_options(request, options) for request in manifest.requests]
    if options.root is not None:
        raise UserError("--root was given without --manifest, whose clip paths it is for.")
    if not given:
        _refuse(options, ("id", "seed", "edited_words", "target_words"), "the shipped clip's own; give --clip as well")
        return (_with_clip_options(picturebook.DEMO, options),)
    missing = [name for name in single if name not in given]
    if missing:
        raise UserError(f"--{missing[0]} is missing: one edit needs --clip, --source and --target.")
    clip = ClipSpec(path=options.clip or "", **_clip_options(options))
    name = options.id or _slug(f"{Path(clip.path).stem}-{options.target}")
    return (
        request_from_json(
            {
                "id": name,
                "clip": {field.name: getattr(clip, field.name) for field in fields(ClipSpec)},
                "source_prompt": options.source,
                "target_prompt": options.target,
                "edited_words": list(options.edited_words),
                "target_words": list(options.target_words),
                "seed": options.seed,
            },
            "the command line",
        ),
    )


def _clip_options(options: EditOptions) -> dict[str, Any]:
    return {field.name: getattr(options, field.name) for field in fields(ClipSpec) if field.name != "path"}


def _with_clip_options(request: EditRequest, options: EditOptions) -> EditRequest:
    """The command line's frame range and size, where a manifest's request leaves them open."""
    open_fields = [f.name for f in fields(ClipSpec) if f.name != "path" and getattr(request.clip, f.name) == f.default]
    given = {name: value for name, value in _clip_options(options).items() if name in open_fields}
    return replace(request, clip=replace(request.clip, **given))


def _refuse(options: EditOptions, names: Sequence[str], beside: str) -> None:
    """No option is passed over in silence."""
    for field in fields(EditOptions):
        if field.name in names and getattr(options, field.name) != field.default:
            raise UserError(f"--{field.name.replace('_', '-')} was given beside {beside}.")


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


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:80] or "edit"


def _safe_name(option: str, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", name):
        raise UserError(f"--{option} is {name!r}: it names a folder, so use letters, digits, '.', '_' and '-' alone.")
    return name
