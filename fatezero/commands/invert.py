"""`fatezero invert`: invert clips into a cache, ahead of their edits."""

from __future__ import annotations

from dataclasses import dataclass

from fatezero.commands.work_options import WorkOptions
from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.errors import UserError
from fatezero.system.terminal import complain, say


@dataclass(frozen=True, kw_only=True)
class InvertOptions:
    """What to invert ahead of its edits.

    Attributes:
        manifest: the edits to come; edits of one clip share an inversion.
        root: folder that the manifest's clip paths start from; the manifest's own by default.
    """

    manifest: str
    root: str | None = None


def invert(
    options: InvertOptions, networks: ModelOptions, method: MethodConfig, runtime: RuntimeConfig, work: WorkOptions
) -> int:
    """Invert the clips of a manifest into the cache, for edits to come.

    Examples:
        fatezero invert --manifest edits.yaml --cache inversions
        fatezero edit --manifest edits.yaml --cache inversions --out runs/many

    Returns:
        0 if every inversion is there, 1 if any failed.

    Raises:
        UserError: without a cache, for options that do not fit the checkpoint, and if a process died.
    """
    from fatezero.commands.shared import checkpoints, device_type, editor_factory, vetted
    from fatezero.data.manifest import read_manifest
    from fatezero.runs.jobs import InversionGroup, make_jobs
    from fatezero.runs.scheduling import share_inversions
    from fatezero.system.importing import importing
    from fatezero.system.publishing import scratch_folder

    if work.cache is None:
        raise UserError("--cache is missing: it names the folder that inversions are kept in.")
    checkpoint = checkpoints(networks)
    requests, unfit = vetted(read_manifest(options.manifest, options.root).requests, checkpoint, [method])
    sound = [request for request in requests if request.id not in unfit]
    groups = share_inversions(make_jobs(sound, {"inversion": method}, work.cache, checkpoint))
    say(f"{len(groups)} inversions for {len(requests)} edits with {networks.model} into {work.cache}")
    device = device_type(runtime, work)
    with importing():
        from fatezero.lightning.predict_steps import InversionModule
        from fatezero.lightning.running import run_groups
        from fatezero.lightning.writers import FailureLog

    with scratch_folder() as folder:
        log = FailureLog(folder)
        if groups:
            module = InversionModule(editor_factory(runtime, work))
            once = [InversionGroup(group.jobs[:1]) for group in groups]
            run_groups(module, once, work.devices, work.num_nodes, device, [log])
        failures = {name: str(error) for name, error in unfit.items()} | log.read()
    for name, reason in failures.items():
        complain(f"{name}: {reason}")
    return 1 if failures else 0
