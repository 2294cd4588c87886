"""`fatezero ablate`: edit under every variant, score, compare, show. Joins the editor's side and the metrics'."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fatezero.commands.score_words import tell_scores
from fatezero.commands.work_options import WorkOptions
from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.errors import Made, UserError, attempt
from fatezero.shipped import judge_location
from fatezero.system.importing import importing
from fatezero.system.progress import steps_shown
from fatezero.system.terminal import complain, say
from fatezero_eval.options import AskingOptions, EvaluateRun, MetricOptions

if TYPE_CHECKING:
    from fatezero.data.manifest import Manifest
    from fatezero.diffusion.layouts import Family
    from fatezero.runs.jobs import EditJob
    from fatezero.runs.variants import Variant
    from fatezero.types import EditRequest

SMALL_FRAMES = 6
# The paper's ablations and baselines, as what they change (FateZero, section 4.3 and table 1).
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "no_blending": {"blending": None},
    "no_self_fusion": {"fusion.self_window": None},
    "no_cross_fusion": {"fusion.cross_window": None},
    "no_fusion": {"fusion": None, "blending": None},
    "no_st_attention": {"key_frames": []},
    "frame_norms": {"norm_scope": "frame"},
    "sdedit": {"fusion": None, "blending": None, "sdedit_strength": 0.6},
}
OF_UNETS = ("no_st_attention", "frame_norms")
FLOW_EDIT = {"fusion": None, "blending": None, "flow_edit.n_max": 0.66}


@dataclass(frozen=True, kw_only=True)
class AblationOptions:
    """What to compare, on what.

    Attributes:
        manifest: the edits, a path or an address in a store; by default ten small ones that the project makes itself.
        root: folder that the manifest's clip paths start from.
        categories: take edits of these categories alone; all by default.
        edits: how many edits of each category are taken, the first ones; all by default.
        frames: how many frames of each clip are taken; all by default.
        variants: by name, the settings (dotted fields) that differ from the configuration given beside this; by
            default the paper's ablations and baselines that mean something to the model; beside a sweep the
            reference alone.
        sweep: fields and their lists of values, or one value: one more variant for each combination that is not the
            same as another variant.
        reference: the variant that all others are compared to.
        seeds: how many seeds are drawn where a result depends on one.
        out: folder of the run.
        redo: replace results that were made with other settings.
        wandb: log to Weights & Biases "online", "offline" or not at all; by default online with an account and
            offline without.
        project: name of the project at Weights & Biases.
        logger: also write each variant's numbers for TensorBoard or as CSV, by Lightning's loggers.
    """

    manifest: str | None = None
    root: str | None = None
    categories: tuple[str, ...] = ()
    edits: int | None = None
    frames: int | None = None
    variants: dict[str, dict[str, Any]] | None = None
    sweep: dict[str, Any] = field(default_factory=dict)
    reference: str = "full"
    seeds: int = 2
    out: Path = Path("runs/ablation")
    redo: bool = False
    wandb: Literal["online", "offline", "disabled"] | None = None
    project: str = "fatezero"
    logger: Literal["csv", "tensorboard"] | None = None

    def __post_init__(self) -> None:
        """Refuse what compares nothing."""
        if self.seeds < 1 or (self.edits is not None and self.edits < 1):
            raise UserError(f"seeds is {self.seeds} and edits is {self.edits}: each is at least 1.")
        known = VARIANTS if self.variants is None else self.variants
        if self.reference not in known:
            raise UserError(f"The reference {self.reference!r} is none of the variants ({', '.join(known)}): name one.")


def ablate(
    options: AblationOptions,
    scoring: MetricOptions,
    networks: ModelOptions,
    base: MethodConfig,
    runtime: RuntimeConfig,
    work: WorkOptions,
    asking: AskingOptions = AskingOptions(),  # noqa: B008  (frozen)
) -> int:
    r"""Edit under every variant, score, and write tables and a page; what is there already is kept.

    Examples:
        fatezero ablate --config experiments/small.yaml
        fatezero ablate --sweep '{blending.threshold: [0.1, 0.5]}' --edits 2
        fatezero ablate --manifest edits.yaml \
            --variants '{full: {}, plain: {fusion: null, blending: null}}'

    Args:
        options: what to compare.
        scoring: which metrics compare, and what they look through.
        networks: which networks edit.
        base: the configuration that variants start from.
        runtime: how the networks run.
        work: how it is shared out.
        asking: who answers questions, for the metrics vlm_*.

    Returns:
        0 if every edit of every variant was made and scored, 1 if any failed.

    Raises:
        UserError: for variants, edits or options that do not fit, and if a process died.
    """
    from fatezero.commands.shared import perform
    from fatezero.data.manifest import read_manifest
    from fatezero.lightning.cluster import is_first_process
    from fatezero.runs.variants import make_variants, record

    with importing():
        from fatezero_eval.scoring.scorer import load_scorer

    family, unit = _kind(networks)
    named = usual_variants(family) if options.variants is None else options.variants
    if options.sweep and options.variants is None:
        named = {options.reference: named[options.reference]}
    variants = make_variants(named, options.sweep, base)
    shared = {**vars(scoring), "judge": judge_location(scoring.judge), "asking": asking}
    wanted = EvaluateRun(**shared, run=options.out, root=options.root, processes=work.devices, threads=work.threads)
    load_scorer(wanted)  # what cannot be scored is told before anything is edited
    with _manifest(options, small_frames(unit), dry_run=work.dry_run) as manifest:
        known = read_manifest(manifest, options.root)
        for note in known.notes:
            say(note)
        jobs, unfit = _jobs(options, networks, known, variants)
        say(describe_plan(variants, jobs))
        if work.dry_run:
            return perform(jobs, unfit, networks.model, runtime, work, redo=options.redo)
        if is_first_process():
            command = shlex.join(["fatezero", *sys.argv[1:]])
            record(options.out, options.reference, variants, manifest, command, root=options.root)
        edited = perform(jobs, unfit, networks.model, runtime, work, redo=options.redo)
        return max(edited, _conclude(options, replace(wanted, manifest=manifest))) if is_first_process() else edited


def _kind(networks: ModelOptions) -> tuple[Family, int]:
    """The family of the networks, and the unit n of the lengths nk + 1 that its clips have."""
    from fatezero.diffusion.checkpoint import example_of, family_in, find_checkpoint, native_frames

    folder = find_checkpoint(replace(networks, model=example_of(networks.model))).folder
    return family_in(folder), native_frames(folder)[1]


def usual_variants(family: Family) -> dict[str, Mapping[str, Any]]:
    """The paper's ablations and baselines that mean something to a family, and FlowEdit for flows."""
    if family.denoiser == "unet":
        return dict(VARIANTS)
    joint = "fusion.cross_window" in family.settings  # where cross-attention is not fused, it cannot be left out
    left_out = {*OF_UNETS, *(("no_cross_fusion",) if joint else ())}
    variants = {name: settings for name, settings in VARIANTS.items() if name not in left_out}
    return variants | ({"flow_edit": FLOW_EDIT} if family.flow else {})


def small_frames(unit: int) -> int:
    """Frames of the small clips, about SMALL_FRAMES, for a model whose clips have nk + 1."""
    return SMALL_FRAMES if unit == 1 else unit * max(1, SMALL_FRAMES // unit) + 1


@contextmanager
def _manifest(options: AblationOptions, frames: int, *, dry_run: bool) -> Iterator[str | Path]:
    """The edits asked for, or the small ones that the project makes itself; a dry run keeps nothing of those."""
    from fatezero.picturebook.benchmark.edits import small_benchmark, write_manifest

    if options.manifest is not None:
        yield options.manifest
        return
    with tempfile.TemporaryDirectory() as passing:
        folder = Path(passing) if dry_run else options.out / "dataset"
        yield write_manifest(folder / "manifest.yaml", "picturebook-small", small_benchmark(frames))


def _jobs(
    options: AblationOptions, networks: ModelOptions, known: Manifest, variants: Mapping[str, Variant]
) -> tuple[list[EditJob], dict[str, UserError]]:
    """Every edit under every variant; and by request id why it cannot be edited.

    Raises:
        UserError: there are no such edits, or the truth of one could not be used to score it.
    """
    from fatezero.commands.shared import checkpoints, vetted
    from fatezero.runs.jobs import make_jobs
    from fatezero.runs.variants import choose_edits, with_seeds

    edits = choose_edits(known, options.categories, options.edits, options.frames)
    _check_truths(known, edits)
    checkpoint = checkpoints(networks)
    requests, unfit = vetted(edits, checkpoint, [variant.method for variant in variants.values()])
    jobs = [
        job
        for name, variant in variants.items()
        for job in make_jobs(
            with_seeds(requests, variant.method, options.seeds), {name: variant.method}, options.out, checkpoint
        )
    ]
    return jobs, unfit


def _check_truths(known: Manifest, edits: Sequence[EditRequest]) -> None:
    """Refuse truths that could not be used; those of clips that cannot be read, which costs their edits alone, aside.

    Raises:
        UserError: naming each.
    """
    from fatezero.clips.video import probe
    from fatezero.commands.truths import check_truth

    readable = [edit for edit in edits if not isinstance(attempt(partial(probe, edit.clip)), UserError)]
    found = {edit.id: attempt(partial(check_truth, edit, known.truth.get(edit.id, {}))) for edit in readable}
    problems = [f"{name}: its truth cannot be used: {why}" for name, why in found.items() if why is not None]
    if problems:
        raise UserError("\n".join([f"{known.path}: not all of it can be scored.", *problems]))


def describe_plan(variants: Mapping[str, Variant], jobs: Sequence[EditJob]) -> str:
    """What will be done, as a table: each variant's settings, its edits, and its frames through the network."""
    from fatezero.runs.scheduling import cost, share_inversions

    lines = ["| variant | what differs | edits | network frames |", "|---|---|---|---|"]
    for name, variant in variants.items():
        own = [job for job in jobs if job.folder.parent.name == name]
        frames = sum(cost(group) for group in share_inversions(own))
        differs = ", ".join(f"{key}: {value}" for key, value in variant.settings.items()) or "nothing"
        lines.append(f"| {name} | {differs} | {len(own)} | {frames:,} |")
    shared = sum(cost(group) for group in share_inversions(jobs))
    return "\n".join([*lines, f"{len(jobs)} edits, {shared:,} network frames in all with inversions shared"])


def _conclude(options: AblationOptions, scoring: EvaluateRun) -> int:
    """Scores, tables, the page and the log of a finished run."""
    from fatezero.picturebook.benchmark.truth import write_truth
    from fatezero.runs.variants import swept_variants
    from fatezero_eval.pages.run_page import write_report
    from fatezero_eval.scoring.evaluation import evaluate_run
    from fatezero_eval.scoring.refusals import told_once
    from fatezero_eval.tables.leaderboard_files import write_leaderboard
    from fatezero_eval.tracking import default_mode, track, track_with_lightning

    problems: list[str] = []
    evaluation = _or_problem(partial(evaluate_run, scoring, write_truth, steps_shown("scoring", "clip")), problems)
    failures = evaluation.failures if evaluation else {}
    told = {f"{name}: {reason}" for name, reason in failures.items()}
    board = _or_problem(partial(write_leaderboard, [options.out], options.out), problems)
    page = _or_problem(partial(write_report, options.out, scoring.manifest, write_truth, scoring.root), problems)
    problems += [problem for made in (board, page) if made for problem in made.problems if problem not in told]
    problems = [*told_once(failures), *dict.fromkeys(problems)]
    for problem in problems:
        complain(problem)
    if evaluation:
        tell_scores(evaluation, scoring.judge)
    if board:
        say(f"tables: {options.out}/leaderboard.md and differences.md")
    if page:
        say(f"open {page.path}")
    said = track(options.out, options.wandb or default_mode(), options.project, swept_variants(options.sweep))
    say(said or "Nothing is logged to Weights & Biases: it is disabled.")
    if options.logger:
        say(track_with_lightning(options.out, options.logger))
    return 1 if problems else 0


def _or_problem(make: Callable[[], Made], problems: list[str]) -> Made | None:
    """What is made; where it cannot be, its problem is noted, and the rest is made all the same."""
    try:
        return make()
    except UserError as error:
        problems.append(str(error))
        return None
