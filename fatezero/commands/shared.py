"""What the verbs that edit share: which checkpoint serves a request, and doing the jobs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from fatezero.clips.video import VideoInfo, probe
from fatezero.commands.accounts import account, announce
from fatezero.commands.work_options import WorkOptions
from fatezero.config import GB, MethodConfig, ModelOptions, RuntimeConfig
from fatezero.data.layout import plans, state_files
from fatezero.data.manifest import check_texts
from fatezero.data.remote import RemoteRun
from fatezero.diffusion.checkpoint import CLIP, Checkpoint, find_checkpoint, folder_of_clip, native_size, sized
from fatezero.diffusion.recommendations import with_settings
from fatezero.errors import UserError, attempt, unwrap
from fatezero.lightning.cluster import is_first_process, started_by_cluster
from fatezero.lightning.fork_server import start_fork_server
from fatezero.runs.disk_space import check_disk
from fatezero.runs.jobs import EditJob, InversionGroup, cut_job
from fatezero.runs.scheduling import share_inversions
from fatezero.runs.state import clear_run, left_to_do, prepare_run, record_failure, write_results_table
from fatezero.system.importing import importing
from fatezero.system.terminal import complain, say
from fatezero.types import ClipSpec, EditRequest

if TYPE_CHECKING:
    from fatezero.lightning.predict_steps import EditorFactory


def perform(
    jobs: Sequence[EditJob],
    unfit: Mapping[str, UserError],
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
        unfit: reason by request id why it cannot be edited.
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
    doable = [job for job in left if job.request.id not in unfit]
    groups = share_inversions(part for job in doable for part in cut_job(job, work.segment))
    if is_first_process():
        announce(jobs, left, unfit, groups, model, remote.shown if remote else run)
    check_disk(doable, run, None if work.disk_gb is None else int(work.disk_gb * GB))
    if work.dry_run:
        for name, reason in unfit.items():
            complain(f"{name}: {reason}")
        return max(_foretell(groups, runtime, work), 1 if unfit else 0)
    edit = _editing(groups, run, runtime, work, remote) if groups else None
    prepare_run(jobs)
    if remote and is_first_process():
        for plan in plans(run):
            remote.publish(plan)
    for job in left:
        if job.request.id in unfit:
            record_failure(job, unfit[job.request.id])
    if edit:
        try:
            edit()
        finally:
            clear_run(jobs)  # of processes that had to be killed
    return _account(jobs, run, remote)


def _editing(
    groups: Sequence[InversionGroup], run: Path, runtime: RuntimeConfig, work: WorkOptions, remote: RemoteRun | None
) -> Callable[[], None]:
    """What edits the groups; a device that is not there is refused before anything is written."""
    device = device_type(runtime, work)
    with importing():
        from fatezero.lightning.predict_steps import EditingModule
        from fatezero.lightning.running import run_groups
        from fatezero.lightning.writers import ResultWriter

    module = EditingModule(editor_factory(runtime, work, remote))
    return partial(run_groups, module, groups, work.devices, work.num_nodes, device, [ResultWriter(run)])


def _foretell(groups: Sequence[InversionGroup], runtime: RuntimeConfig, work: WorkOptions) -> int:
    """Say what the work will take, and what of it cannot be done; 1 if there is any such."""
    with importing():
        from fatezero.diffusion.devices import choose_device
        from fatezero.runs.forecast import Forecaster, describe_forecast

    forecaster = Forecaster(partial(editor_factory(runtime, work).load, choose_device(runtime.device)))
    forecasts = [(group, attempt(partial(forecaster.of_group, group))) for group in groups]
    failures = [(group, forecast) for group, forecast in forecasts if isinstance(forecast, UserError)]
    for group, failure in failures:
        complain(f"{', '.join(job.name for job in group.jobs)}: {failure}")
    sound = [group for group, forecast in forecasts if not isinstance(forecast, UserError)]
    if sound:
        say(describe_forecast(forecaster, sound, work.devices * work.num_nodes))
    return 1 if failures else 0


def _account(jobs: Sequence[EditJob], run: Path, remote: RemoteRun | None) -> int:
    """What the run folder, or its store, holds of the jobs; the first process says so."""
    if not is_first_process():
        return 0
    write_results_table(run)
    if remote:
        for file in state_files(run):
            remote.publish(file)
        remote.check_results()
    return account(jobs, run, remote)


def checkpoints(networks: ModelOptions) -> Callable[[EditRequest], Checkpoint]:
    """The checkpoint of each request: one for all, or one for each clip where the model's name holds "{clip}"."""
    if CLIP not in networks.model:
        one = find_checkpoint(networks)
        return lambda _: one
    others = {"--motion-adapter": networks.motion_adapter, "--vae": networks.vae}
    for option, value in others.items():
        if value is not None:
            raise UserError(f"{option} was given beside models tuned on clips: leave one of them out.")
    return lambda request: folder_of_clip(networks, request.clip.path)


def device_type(runtime: RuntimeConfig, work: WorkOptions) -> str:
    """The kind of device that is worked on; where several processes will share a CPU, their imports begin here.

    Raises:
        UserError: if the device is not there.
    """
    with importing():
        from fatezero.diffusion.devices import choose_device

    device = choose_device(runtime.device).type
    if device == "cpu" and work.devices > 1 and not started_by_cluster():
        start_fork_server()
    return device


def editor_factory(runtime: RuntimeConfig, work: WorkOptions, remote: RemoteRun | None = None) -> EditorFactory:
    """What every process loads its networks with."""
    with importing():
        from fatezero.lightning.predict_steps import EditorFactory

    bound = None if work.cache_gb is None else int(work.cache_gb * GB)
    return EditorFactory(
        runtime=runtime,
        cache=work.cache,
        cache_bytes=bound,
        remote=remote,
        threads=work.threads,
        processes=work.devices,
        quiet=not is_first_process(),
        verbose=work.verbose,
    )


def vetted(
    requests: Sequence[EditRequest],
    checkpoint: Callable[[EditRequest], Checkpoint],
    methods: Collection[MethodConfig],
) -> tuple[list[EditRequest], dict[str, UserError]]:
    """The requests at their checkpoint's own scale; and by id why some cannot be edited, found before the work begins.

    Args:
        requests: as a manifest states them.
        checkpoint: gives the checkpoint of each.
        methods: the configurations that they will be edited under.
    """
    ready, unfit = [], {}
    probed = cache(lambda clip: attempt(lambda: probe(clip)))  # many edits have the same clip
    for request in requests:
        sound = attempt(partial(_vetted, request, checkpoint, methods, probed))
        if isinstance(sound, UserError):
            unfit[request.id] = sound
            sound = replace(request, settings={})  # which may be what is wrong
        ready.append(sound)
    return ready, unfit


def _vetted(
    request: EditRequest,
    checkpoint: Callable[[EditRequest], Checkpoint],
    methods: Collection[MethodConfig],
    probed: Callable[[ClipSpec], VideoInfo | UserError],
) -> EditRequest:
    check_texts(request)
    if not request.has_source:
        raise UserError("it has no source clip, so it can be scored but not made; state its clip.")
    for method in methods:
        with_settings(method, request.settings, f"request {request.id}")
    native, unit = native_size(checkpoint(request).folder)
    clip = sized(request.clip, native, unit)
    unwrap(probed(clip))
    return replace(request, clip=clip)
