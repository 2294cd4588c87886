"""The doorway: parses, calls, prints. Heavy imports wait until a command is known."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from fatezero import __version__
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.errors import UserError
from fatezero.experiment import AblationOptions
from fatezero.options import BenchOptions, CacheOptions, EditOptions, InvertOptions, TuneOptions, WorkOptions
from fatezero_eval.config import EvaluateRun, EvaluateVideos, Scoring

if TYPE_CHECKING:
    from fatezero_eval.evaluate import Evaluation

LISTS = (
    *("--edited_words", "--target_words", "--sample_prompts", "--key_frames", "--lengths", "--metrics"),
    "--categories",
)
NUMBERS = ("--key_frames", "--lengths")  # of these, the lists that may hold numbers
# Said without a value, these are true.
FLAGS = ("--dry_run", "--redo", "--scale", "--resize", "--trim", "--gradient_checkpointing")
EDITING = ("edit", "invert", "ablate")  # the commands that take a method's configuration
TRAININGS = {
    "autoencoder": "train Picturebook's autoencoder",
    "text-to-image": "train Picturebook's text-to-image model",
    "clip": "train Picturebook's judge",
    "motion": "train Picturebook's motion adapter",
    "report": "measure the shipped models",
}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = _gathered([_underscored(word) for word in (sys.argv[1:] if args is None else args)])
    try:
        parser = _parser(_recommended(words), words)
        parsed = parser.parse_args(words)
        if parsed.subcommand is None:
            parser.print_help()
            return 0
        return _COMMANDS[parsed.subcommand](parser.instantiate(parsed)[parsed.subcommand])
    except (UserError, ValueError) as error:
        print(f"fatezero: {_mistake(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "fatezero: interrupted; finished results are whole, the one in progress was dropped.",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        return 0


def _mistake(error: Exception) -> UserError:
    """The sentence for the user, which jsonargparse wraps when a value refuses itself; other errors go on up."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, UserError):
        seen = seen.__cause__ or seen.__context__
    if seen is None:
        raise error
    return seen


def _underscored(word: str) -> str:
    """--edited-words as --edited_words; values are left alone."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def _gathered(words: list[str]) -> list[str]:
    """--edited_words a b, or --edited_words=a, as --edited_words=["a", "b"], and likewise for the other lists."""
    gathered: list[str] = []
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word in FLAGS and (not words or words[0].startswith("--")):
            word = f"{word}=true"
        if name in LISTS and equals and not value.startswith("["):
            word, words = name, [value, *words]
        values: list[str | int] = []
        while word in LISTS and words and not words[0].startswith(("--", "[")):
            value = words.pop(0)
            values.append(int(value) if word in NUMBERS and value.lstrip("-").isdigit() else value)
        gathered.append(f"{word}={json.dumps(values)}" if values else word)
    return gathered


def _parser(method: MethodConfig, words: list[str]) -> ArgumentParser:
    parser = ArgumentParser(
        prog="fatezero", description="Text-driven video editing without training.", version=__version__
    )
    commands = parser.add_subcommands(required=False)
    commands.add_subcommand("edit", _work_parser(EditOptions, method), help="edit a clip, or all clips of a manifest")
    commands.add_subcommand("invert", _work_parser(InvertOptions, method), help="invert clips ahead of their edits")
    commands.add_subcommand("tune", _plain_parser(TuneOptions), help="tune a checkpoint on one clip, for shape edits")
    commands.add_subcommand("convert", _convert_parser(), help="make a checkpoint of a published Tune-A-Video one")
    commands.add_subcommand("ablate", _work_parser(AblationOptions, method), help="compare variants of the method")
    commands.add_subcommand("evaluate", _evaluate_parser(), help="score a run, or anyone's videos")
    commands.add_subcommand("leaderboard", _leaderboard_parser(), help="join scored runs into tables")
    commands.add_subcommand("report", _report_parser(), help="a page of a run's videos, tables and plots")
    commands.add_subcommand("sheet", _sheet_parser(), help="a picture of a run's first edits")
    commands.add_subcommand("status", _status_parser(), help="what a run folder holds and lacks")
    commands.add_subcommand("cache", _cache_parser(), help="list, verify or prune kept inversions")
    datasets, train = ArgumentParser(), ArgumentParser()
    commands.add_subcommand("datasets", datasets, help="check a manifest and its clips")
    commands.add_subcommand("train", train, help="train or measure the shipped models")
    commands.add_subcommand("bench", _plain_parser(BenchOptions), help="time and memory against the bare network")
    commands.add_subcommand("doctor", ArgumentParser(), help="what can run on this machine, and why not")
    _add_checks(datasets)
    _add_trainings(train, words)
    return parser


def _work_parser(options: type, method: MethodConfig) -> ArgumentParser:
    parser = _plain_parser(options)
    parser.add_class_arguments(MethodConfig, as_group=True)
    parser.add_class_arguments(RuntimeConfig, as_group=True)
    parser.add_class_arguments(WorkOptions, as_group=True)
    parser.set_defaults({field.name: getattr(method, field.name) for field in fields(method)})
    return parser


def _leaderboard_parser() -> ArgumentParser:
    parser = ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, and folders of scored foreign videos")
    parser.add_argument("--out", type=Path | None, help="where the tables go; the first run by default")
    parser.add_argument("--reference", type=str | None, help="the variant that others are compared to")
    return parser


def _report_parser() -> ArgumentParser:
    parser = ArgumentParser()
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--manifest", type=Path | None, help="the edits, with what is known of the right results")
    return parser


def _sheet_parser() -> ArgumentParser:
    parser = _report_parser()
    parser.add_argument("--out", type=Path, default=Path("sheet.png"), help="the PNG to write")
    parser.add_argument("--edits", type=int, default=10, help="how many edits are shown")
    parser.add_argument("--variant", type=str, default="fatezero", help="whose edits")
    return parser


def _convert_parser() -> ArgumentParser:
    parser = ArgumentParser()
    parser.add_argument("source", type=Path, help="the published checkpoint's folder")
    parser.add_argument("out", type=Path, help="the folder to make")
    return parser


def _status_parser() -> ArgumentParser:
    parser = ArgumentParser()
    parser.add_argument("run", type=Path, help="a run folder")
    return parser


def _cache_parser() -> ArgumentParser:
    parser = ArgumentParser()
    parser.add_argument("action", type=Literal["ls", "verify", "prune"], help="what to do")
    parser.add_argument("folder", type=Path, help="the folder that was given as --cache")
    parser.add_argument("--cache_gb", type=float | None, help="what may stay, in units of 1e9 bytes")
    return parser


def _evaluate_parser() -> ArgumentParser:
    parser = _plain_parser(Scoring)
    parser.add_argument("run", type=Path | None, nargs="?", help="a run folder, runs/<name>")
    parser.add_argument("--manifest", type=Path | None, help="the edits, with what is known of the right results")
    parser.add_argument("--out", type=Path | None, help="where rows go; <run>/evaluation by default")
    parser.add_argument("--method", type=str | None, help="what the maker of foreign videos is called")
    parser.add_argument("--videos", type=Path | None, help="folder of foreign videos, in place of a run")
    parser.add_argument("--resize", type=bool, default=False, help="scale foreign videos of another size")
    parser.add_argument("--trim", type=bool, default=False, help="cut foreign videos of another length")
    return parser


def _add_checks(parser: ArgumentParser) -> None:
    check = ArgumentParser()
    check.add_argument("manifest", type=str, help="a manifest in any of the known formats, or a DAVIS folder")
    check.add_argument("--root", type=str | None, help="folder that clip paths start from")
    parser.add_subcommands().add_subcommand("check", check, help="what is there and what is missing")


def _add_trainings(parser: ArgumentParser, words: list[str]) -> None:
    """The trainings' options are as heavy to import as the trainings: they wait until one is asked for."""
    trainings = parser.add_subcommands()
    options: dict[str, type | None] = dict.fromkeys(TRAININGS)
    if words[:1] == ["train"] and len(words) > 1 and words[1] in TRAININGS:
        options[words[1]] = _training(words[1])[0]
    for name, what in TRAININGS.items():
        config = options[name]
        trainings.add_subcommand(name, _plain_parser(config) if config else ArgumentParser(), help=what)


def _training(name: str) -> tuple[type, Callable[[Any], Path]]:
    """A training's options and its function."""
    if name == "autoencoder":
        from fatezero.picturebook.autoencoder import AutoencoderConfig, train_autoencoder  # noqa: PLC0415

        return AutoencoderConfig, train_autoencoder
    if name == "text-to-image":
        from fatezero.picturebook.text_to_image import TextToImageConfig, train_text_to_image  # noqa: PLC0415

        return TextToImageConfig, train_text_to_image
    if name == "clip":
        from fatezero.picturebook.clip import ClipConfig, train_clip  # noqa: PLC0415

        return ClipConfig, train_clip
    if name == "motion":
        from fatezero.picturebook.motion import MotionConfig, train_motion  # noqa: PLC0415

        return MotionConfig, train_motion
    from fatezero.picturebook.report import ReportConfig, report  # noqa: PLC0415

    return ReportConfig, report


def _plain_parser(options: type) -> ArgumentParser:
    parser = ArgumentParser()
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    parser.add_class_arguments(options, as_group=True)
    return parser


def _recommended(words: list[str]) -> MethodConfig:
    """The checkpoint's own recommendations: the defaults of what the user leaves open."""
    asked = [word for word in words if not word.startswith("--print_config")]
    if not asked or asked[0] not in EDITING or "--help" in asked or "-h" in asked:
        return MethodConfig()
    from fatezero.diffusion.checkpoint import example_of, find_checkpoint  # noqa: PLC0415
    from fatezero.settings import recommended_method  # noqa: PLC0415

    options = _parser(MethodConfig(), asked).parse_args(asked)[asked[0]]
    checkpoint = find_checkpoint(example_of(options.model), options.motion_adapter)
    return recommended_method(checkpoint.folder, checkpoint.adapter)


def _only(config: type, parsed: Namespace) -> Any:
    """The part of the parsed options that a dataclass holds."""
    return config(**{field.name: getattr(parsed, field.name) for field in fields(config)})


def _settings(options: type, parsed: Namespace) -> tuple[Any, ...]:
    return tuple(_only(part, parsed) for part in (options, MethodConfig, RuntimeConfig, WorkOptions))


def _edit(parsed: Namespace) -> int:
    from fatezero.commands import edit  # noqa: PLC0415

    return edit(*_settings(EditOptions, parsed))


def _invert(parsed: Namespace) -> int:
    from fatezero.commands import invert  # noqa: PLC0415

    return invert(*_settings(InvertOptions, parsed))


def _tune(parsed: Namespace) -> int:
    from fatezero.tune import tune  # noqa: PLC0415

    return tune(_only(TuneOptions, parsed))


def _convert(parsed: Namespace) -> int:
    from fatezero.convert import convert  # noqa: PLC0415

    print(convert(parsed.source, parsed.out))
    return 0


def _ablate(parsed: Namespace) -> int:
    from fatezero.ablation import ablate  # noqa: PLC0415

    return ablate(*_settings(AblationOptions, parsed))


def _leaderboard(parsed: Namespace) -> int:
    from fatezero_eval.leaderboard import write_leaderboard  # noqa: PLC0415

    print(write_leaderboard(parsed.runs, parsed.out or parsed.runs[0], parsed.reference))
    return 0


def _report(parsed: Namespace) -> int:
    from fatezero.picturebook.truth import write_truth  # noqa: PLC0415
    from fatezero_eval.report import write_report  # noqa: PLC0415

    print(write_report(parsed.run, parsed.manifest, write_truth))
    return 0


def _sheet(parsed: Namespace) -> int:
    from fatezero.picturebook.truth import write_truth  # noqa: PLC0415
    from fatezero_eval.sheet import write_sheet  # noqa: PLC0415

    print(write_sheet(parsed.run, parsed.manifest, write_truth, parsed.out, parsed.edits, parsed.variant))
    return 0


def _status(parsed: Namespace) -> int:
    from fatezero.commands import status  # noqa: PLC0415

    return status(parsed.run)


def _cache(parsed: Namespace) -> int:
    from fatezero.commands import cache  # noqa: PLC0415

    return cache(_only(CacheOptions, parsed))


def _evaluate(parsed: Namespace) -> int:
    from fatezero.picturebook.truth import write_truth  # noqa: PLC0415
    from fatezero_eval.evaluate import evaluate_run, evaluate_videos  # noqa: PLC0415

    shared = {field.name: getattr(parsed, field.name) for field in fields(Scoring)}
    if parsed.run is not None:
        run = EvaluateRun(**shared, run=parsed.run, manifest=parsed.manifest, out=parsed.out)
        return _say(evaluate_run(run, write_truth))
    needed = ("method", "videos", "manifest", "out")
    missing = [name for name in needed if getattr(parsed, name) is None]
    if missing:
        raise UserError(f"--{missing[0]} is missing: give a run folder, or --method, --videos, --manifest and --out.")
    theirs = {name: getattr(parsed, name) for name in (*needed, "resize", "trim")}
    return _say(evaluate_videos(EvaluateVideos(**shared, **theirs), write_truth))


def _say(evaluation: Evaluation) -> int:
    if evaluation.alignment is not None:
        print(evaluation.alignment)
    for name, reason in evaluation.failures.items():
        print(f"fatezero: {name}: {reason}", file=sys.stderr)
    print(f"{len(evaluation.rows)} rows in {evaluation.lines} and {evaluation.table}")
    return 1 if evaluation.failures else 0


def _datasets(parsed: Namespace) -> int:
    from fatezero.data.manifest import check_manifest  # noqa: PLC0415

    found = check_manifest(parsed.check.manifest, parsed.check.root)
    print(found)
    return 1 if found.problems else 0


def _train(parsed: Namespace) -> int:
    config, run = _training(parsed.subcommand)
    print(run(_only(config, parsed[parsed.subcommand])))
    return 0


def _bench(parsed: Namespace) -> int:
    options = _only(BenchOptions, parsed)
    if options.scale:
        from fatezero.scale_bench import bench_scale  # noqa: PLC0415

        return bench_scale(options)
    from fatezero.bench import bench  # noqa: PLC0415

    return bench(options)


def _doctor(_: Namespace) -> int:
    from fatezero.doctor import doctor  # noqa: PLC0415
    from fatezero_eval.models import runnable_metrics  # noqa: PLC0415

    return doctor(runnable_metrics())


_COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "edit": _edit,
    "invert": _invert,
    "tune": _tune,
    "convert": _convert,
    "ablate": _ablate,
    "evaluate": _evaluate,
    "leaderboard": _leaderboard,
    "report": _report,
    "sheet": _sheet,
    "status": _status,
    "cache": _cache,
    "datasets": _datasets,
    "train": _train,
    "bench": _bench,
    "doctor": _doctor,
}
