"""`fatezero ablate`: edit under every variant, score, compare, show. Joins the editor's side and the metrics'."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fatezero.commands import at_native_size, checkpoints, perform
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.data.manifest import read_manifest
from fatezero.data.remote import open_input
from fatezero.experiment import AblationOptions, Variant, choose_edits, folder_name, make_variants, record, with_seeds
from fatezero.lightning.running import is_first_process
from fatezero.options import WorkOptions
from fatezero.picturebook.bench import small_bench, write_manifest
from fatezero.picturebook.truth import write_truth
from fatezero.tasks import Task, cost, make_tasks, share_inversions
from fatezero_eval.config import EvaluateRun
from fatezero_eval.evaluate import evaluate_run
from fatezero_eval.leaderboard import write_leaderboard
from fatezero_eval.report import write_report
from fatezero_eval.tracking import default_mode, track, track_with_lightning

SMALL_FRAMES = 6


def ablate(options: AblationOptions, base: MethodConfig, runtime: RuntimeConfig, work: WorkOptions) -> int:
    """Compare variants of a method; whatever is there already is kept.

    Args:
        options: what to compare.
        base: the configuration that variants start from.
        runtime: of the networks.
        work: how it is shared out.

    Returns:
        0 if every edit of every variant was made and scored, 1 if any failed.

    Raises:
        UserError: for variants, edits or options that do not fit, and if a process died.
    """
    variants = make_variants(options, base)
    manifest = _manifest(options)
    checkpoint = checkpoints(options)
    edits = choose_edits(read_manifest(manifest, options.root), options)
    requests, unreadable = at_native_size(edits, checkpoint)

    tasks = [
        task
        for name, variant in variants.items()
        for task in make_tasks(
            with_seeds(requests, variant.method, options.seeds), {name: variant.method}, options.out, checkpoint
        )
    ]
    print(describe_plan(variants, tasks))
    if work.dry_run:
        return perform(tasks, unreadable, options, runtime, work)
    if is_first_process():
        record(options.out, options, variants, manifest, shlex.join(["fatezero", *sys.argv[1:]]))
    edited = perform(tasks, unreadable, options, runtime, work)
    return max(edited, _conclude(options, manifest, work)) if is_first_process() else edited


def _manifest(options: AblationOptions) -> Path:
    """The edits asked for, or the small ones that the project makes itself."""
    if options.manifest is not None:
        return open_input(options.manifest)
    return write_manifest(options.out / "dataset" / "manifest.yaml", "picturebook-small", small_bench(SMALL_FRAMES))


def describe_plan(variants: Mapping[str, Variant], tasks: Sequence[Task]) -> str:
    """What will be done, as a table: each variant's settings, its edits, and its frames through the UNet."""
    lines = ["| variant | what differs | edits | UNet frames |", "|---|---|---|---|"]
    for name, variant in variants.items():
        own = [task for task in tasks if task.folder.parent.name == name]
        frames = sum(cost(job) for job in share_inversions(own))
        differs = ", ".join(f"{key}: {value}" for key, value in variant.settings.items()) or "nothing"
        lines.append(f"| {name} | {differs} | {len(own)} | {frames:,} |")
    shared = sum(cost(job) for job in share_inversions(tasks))
    return "\n".join([*lines, f"{len(tasks)} edits, {shared:,} UNet frames in all with inversions shared"])


def _conclude(options: AblationOptions, manifest: Path, work: WorkOptions) -> int:
    """Scores, tables, the page and the log of a finished run."""
    scoring = EvaluateRun(
        run=options.out, manifest=manifest, metrics=options.metrics, clip=options.clip, processes=work.devices
    )
    evaluation = evaluate_run(scoring, write_truth)
    for name, reason in evaluation.failures.items():
        print(f"fatezero: {name}: {reason}", file=sys.stderr)
    write_leaderboard([options.out], options.out, folder_name(options.reference))
    print(f"tables: {options.out}/leaderboard.md and differences.md")
    print(f"open {write_report(options.out, manifest, write_truth)}")
    print(track(options.out, options.wandb or default_mode(), options.project) or "logged to Weights & Biases")
    if options.logger:
        print(track_with_lightning(options.out, options.logger))
    return 1 if evaluation.failures else 0
