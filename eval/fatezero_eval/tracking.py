"""Logs a finished run folder to Weights & Biases, or through Lightning's loggers to CSV or TensorBoard.

The one place that knows these trackers. They only ever copy what the run folder holds already, so whatever becomes of
them, no result is lost: every failure is returned as a sentence and nothing is raised.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, cast, get_args

from fatezero.data.files import read_json
from fatezero.data.layout import SIDE_BY_SIDE_VIDEO, inside, is_name, result_records, visible
from fatezero.data.manifest import request_from_json
from fatezero.errors import UserError, attempt
from fatezero_eval.file_names import DIFFERENCES, LEADERBOARD
from fatezero_eval.scoring.records import Experiment, read_experiment, read_record
from fatezero_eval.scoring.rows import BASELINES
from fatezero_eval.tables.leaderboard_files import write_leaderboard

VIDEOS = 8
"""Side-by-side videos logged of each variant; the same edits of all."""
_PATIENCE = 60  # seconds for W&B's server to answer at first

Mode = Literal["offline", "online", "disabled"]


@dataclass(frozen=True)
class _TrackedVideo:
    edit: str
    caption: str
    path: Path


@dataclass(frozen=True)
class _TrackedVariant:
    """What is logged of a variant: its configuration, all numbers by name, and its videos."""

    name: str
    config: Mapping[str, Any]
    numbers: Mapping[str, float]
    videos: Sequence[_TrackedVideo]


@dataclass(frozen=True)
class _TrackedRun:
    """A run folder as trackers see it; tables are lists of flat records."""

    name: str
    digest: str  # of the scores: equal results have equal W&B ids, so logging them again repeats nothing
    variants: Sequence[_TrackedVariant]
    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    plots: Sequence[Path]


def track(run: Path, mode: Mode, project: str, swept: Sequence[str] = ()) -> str | None:
    """Log a finished run to W&B: one W&B run for each variant and one with the tables, grouped by experiment.

    Args:
        run: an evaluated run folder; its leaderboard is written if it is not there.
        mode: offline writes to `<run>/wandb`, to be sent with `wandb sync`; disabled does nothing.
        project: W&B's project.
        swept: the variants that a sweep has added; W&B's agent waits for one variant's numbers.

    Returns:
        What was logged, or why it was not, in a sentence; None if disabled.
    """
    if mode == "disabled":
        return None
    try:
        experiment = _read(run)
        if os.environ.get("WANDB_SWEEP_ID"):
            return _log_swept(experiment, swept, run, mode, project)
        for variant in experiment.variants:
            _log_variant(variant, experiment, run, mode, project)
        _log_tables(experiment, run, mode, project)
    except Exception as error:  # whatever a tracker does, the results are on disk
        return f"W&B has not got all of {run} ({_sentence(error)}); the results themselves are whole."
    where = f"in {run / 'wandb'}; wandb sync sends it" if mode == "offline" else f"in project {project}"
    return f"W&B has {len(experiment.variants)} variants, tables and {_videos(run, experiment)} {where}."


def track_with_lightning(run: Path, kind: Literal["csv", "tensorboard"]) -> str:
    """Write each variant's configuration and numbers to `<run>/csv` or `<run>/tensorboard`.

    Returns:
        What was written, or why it was not, in a sentence.
    """
    try:
        from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger  # noqa: PLC0415

        experiment = _read(run)
        for variant in experiment.variants:
            where: dict[str, Any] = {"save_dir": run / kind, "name": "", "version": variant.name}
            logger = CSVLogger(**where) if kind == "csv" else TensorBoardLogger(**where)
            logger.log_hyperparams(dict(variant.config))
            logger.log_metrics(dict(variant.numbers), step=0)
            logger.save()
            logger.finalize("success")
    except Exception as error:  # as above
        return f"{kind} has not got all of {run} ({_sentence(error)}); the results themselves are whole."
    return f"{run / kind} has the numbers of {len(experiment.variants)} variants."


def default_mode() -> Mode:
    """What WANDB_MODE says; otherwise online where there is an account and W&B's server knows it, offline where not."""
    asked = os.environ.get("WANDB_MODE")
    for mode in get_args(Mode):
        if asked == mode:
            return cast(Mode, mode)
    try:
        import wandb  # noqa: PLC0415

        return "online" if wandb.login(prompt=False) else "offline"
    except Exception:  # not installed, no network, a key that is none
        return "offline"


def _log_variant(variant: _TrackedVariant, experiment: _TrackedRun, run: Path, mode: Mode, project: str) -> None:
    import wandb  # noqa: PLC0415

    with _begun(variant.name, "variant", variant.config, experiment, run, mode, project) as logged:
        logged.summary.update(dict(variant.numbers))
        logged.log(
            {
                f"side_by_side/{video.edit}": wandb.Video(str(video.path), caption=video.caption, format="mp4")
                for video in variant.videos
            }
        )


def _log_swept(experiment: _TrackedRun, swept: Sequence[str], run: Path, mode: Mode, project: str) -> str:
    """What a sweep's agent waits for: the numbers of the variant it asked for, in the agent's own run.

    Raises:
        UserError: it asked for none, or several, or the one it asked for has no numbers.
    """
    import wandb  # noqa: PLC0415

    if len(swept) != 1:
        raise UserError(f"a sweep's agent asks for one variant, but --sweep makes {len(swept)}: give it single values")
    variant = next((known for known in experiment.variants if known.name == swept[0]), None)
    if variant is None:
        raise UserError(f"the variant {swept[0]} has no scores")
    settings = wandb.Settings(silent=True, console="off", save_code=False, x_disable_stats=True, init_timeout=_PATIENCE)
    with wandb.init(
        project=project, name=variant.name, config=dict(variant.config), mode=mode, dir=run, settings=settings
    ) as logged:
        logged.summary.update(dict(variant.numbers))
    return f"W&B's sweep has the numbers of {variant.name}."


def _log_tables(experiment: _TrackedRun, run: Path, mode: Mode, project: str) -> None:
    import wandb  # noqa: PLC0415

    with _begun("tables", "summary", {}, experiment, run, mode, project) as logged:
        tables = {name: _table(records) for name, records in experiment.tables.items()}
        logged.log(tables | {f"plots/{plot.stem}": wandb.Image(str(plot)) for plot in experiment.plots})


def _begun(
    name: str, kind: str, config: Mapping[str, Any], experiment: _TrackedRun, run: Path, mode: Mode, project: str
) -> Any:
    import wandb  # noqa: PLC0415

    identity = blake2b(f"{experiment.name}\n{experiment.digest}\n{kind}\n{name}".encode(), digest_size=8).hexdigest()
    settings = wandb.Settings(silent=True, console="off", save_code=False, x_disable_stats=True, init_timeout=_PATIENCE)
    return wandb.init(
        project=project, group=experiment.name, name=name, job_type=kind, id=identity, config=dict(config), mode=mode,
        dir=run, settings=settings, reinit="create_new",
    )  # fmt: skip


def _table(records: Sequence[Mapping[str, Any]]) -> Any:
    import wandb  # noqa: PLC0415

    columns = list(records[0])
    return wandb.Table(columns=columns, data=[[record[column] for column in columns] for record in records])


def _read(run: Path) -> _TrackedRun:
    if not (run / f"{LEADERBOARD}.json").is_file():
        write_leaderboard([run], run)
    table = read_json(inside(run, run / f"{LEADERBOARD}.json"))[0]
    stated = read_experiment(run)
    there = [method["variant"] for method in table["methods"] if method["variant"] not in BASELINES]
    for name in there:
        if not is_name(name):  # trackers make files of them
            raise UserError(f"a variant is called {name!r}")
    names = [name for name in stated.settings or there if name in there]
    differences = run / f"{DIFFERENCES}.json"
    compared = {"differences": read_json(inside(run, differences))} if differences.is_file() else {}
    return _TrackedRun(
        name=stated.name,
        digest=table["evaluation"]["rows"],
        variants=[_variant(run, name, table, stated) for name in names],
        tables={"leaderboard": table["scores"], **compared},
        plots=[inside(run, plot) for plot in visible(run, "*.png")],
    )


def _variant(run: Path, name: str, table: Mapping[str, Any], stated: Experiment) -> _TrackedVariant:
    records = _records(run, name)
    filmed = {meta: record for meta, record in records.items() if meta.with_name(SIDE_BY_SIDE_VIDEO).is_file()}
    (method,) = (method for method in table["methods"] if method["variant"] == name)
    settings: Mapping[str, Any] = {"config": next((record.get("config") for record in records.values()), None)}
    if name in stated.configs:
        settings = {"settings": stated.settings[name], "config": stated.configs[name]}
    config = {
        **settings,
        "provenance": {key: value for key, value in method.items() if key not in ("variant", "cost")},
        "evaluation": {key: value for key, value in table["evaluation"].items() if key != "edits"},
        "videos": f"{min(VIDEOS, len(filmed))} of {len(filmed)}",
    }
    numbers = {f"cost/{key}": value for key, value in method["cost"].items() if value is not None}
    for score in table["scores"]:
        if score["variant"] == name:
            label = "/".join(filter(None, (score["metric"], score["category"])))
            parts = {label: score["value"], **{f"{label}/{end}": score[end] for end in ("low", "high", "rank")}}
            numbers |= {key: value for key, value in parts.items() if value is not None}
    videos = [_video(run, meta, record) for meta, record in list(filmed.items())[:VIDEOS]]
    return _TrackedVariant(name, config, numbers, videos)


def _records(run: Path, variant: str) -> dict[Path, Mapping[str, Any]]:
    """The readable records of a variant, by path; evaluations say which are damaged."""
    metas = [meta for meta in result_records(run) if meta.parent.parent.name == variant]
    found = {meta: attempt(partial(read_record, run, meta)) for meta in metas}
    return {meta: record for meta, record in found.items() if not isinstance(record, UserError)}


def _video(run: Path, meta: Path, record: Mapping[str, Any]) -> _TrackedVideo:
    request = request_from_json(record["request"], str(meta))
    caption = f"{request.source_prompt} -> {request.target_prompt}"
    return _TrackedVideo(meta.parent.name, caption, inside(run, meta.with_name(SIDE_BY_SIDE_VIDEO)))


def _videos(run: Path, experiment: _TrackedRun) -> str:
    """Which videos were logged, in words."""
    shown = sum(len(variant.videos) for variant in experiment.variants)
    there = len(visible(run, f"*/*/{SIDE_BY_SIDE_VIDEO}"))
    if shown == there:
        return f"all {there} side-by-side videos" if there else "no side-by-side videos (the run has none)"
    return f"{shown} of {there} side-by-side videos (at most {VIDEOS} of a variant; the run's page shows all)"


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
