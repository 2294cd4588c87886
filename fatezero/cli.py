"""The doorway: parses, calls, prints. Heavy imports wait until a command is known."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from fatezero import __version__
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.errors import UserError
from fatezero.options import BenchOptions, EditOptions

LISTS = ("--edited_words", "--target_words", "--key_frames", "--lengths")


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = _gathered([_underscored(word) for word in (sys.argv[1:] if args is None else args)])
    try:
        parser = _parser(_recommended(words))
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
    """--edited_words a b as --edited_words=["a", "b"], and likewise for the other lists."""
    gathered: list[str] = []
    while words:
        word = words.pop(0)
        values: list[str | int] = []
        while word in LISTS and words and not words[0].startswith(("--", "[")):
            value = words.pop(0)
            values.append(int(value) if value.lstrip("-").isdigit() else value)
        gathered.append(f"{word}={json.dumps(values)}" if values else word)
    return gathered


def _parser(method: MethodConfig) -> ArgumentParser:
    parser = ArgumentParser(
        prog="fatezero", description="Text-driven video editing without training.", version=__version__
    )
    commands = parser.add_subcommands(required=False)
    commands.add_subcommand("edit", _edit_parser(method), help="edit a clip, or all clips of a manifest")
    commands.add_subcommand("bench", _plain_parser(BenchOptions), help="time and memory against the bare network")
    commands.add_subcommand("doctor", ArgumentParser(), help="what can run on this machine, and why not")
    return parser


def _edit_parser(method: MethodConfig) -> ArgumentParser:
    parser = _plain_parser(EditOptions)
    parser.add_class_arguments(MethodConfig, as_group=True)
    parser.add_class_arguments(RuntimeConfig, as_group=True)
    parser.set_defaults({field.name: getattr(method, field.name) for field in fields(method)})
    return parser


def _plain_parser(options: type) -> ArgumentParser:
    parser = ArgumentParser()
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    parser.add_class_arguments(options, as_group=True)
    return parser


def _recommended(words: list[str]) -> MethodConfig:
    """The checkpoint's own recommendations: the defaults of what the user leaves open."""
    asked = [word for word in words if not word.startswith("--print_config")]
    if not asked or asked[0] != "edit" or "--help" in asked or "-h" in asked:
        return MethodConfig()
    from fatezero.diffusion.checkpoint import checkpoint_folder  # noqa: PLC0415
    from fatezero.settings import recommended_method  # noqa: PLC0415

    return recommended_method(checkpoint_folder(_parser(MethodConfig()).parse_args(asked).edit.model))


def _only(config: type, parsed: Namespace) -> Any:
    """The part of the parsed options that a dataclass holds."""
    return config(**{field.name: getattr(parsed, field.name) for field in fields(config)})


def _edit(parsed: Namespace) -> int:
    from fatezero.commands import edit  # noqa: PLC0415

    return edit(_only(EditOptions, parsed), _only(MethodConfig, parsed), _only(RuntimeConfig, parsed))


def _bench(parsed: Namespace) -> int:
    from fatezero.bench import bench  # noqa: PLC0415

    return bench(_only(BenchOptions, parsed))


def _doctor(_: Namespace) -> int:
    from fatezero.doctor import doctor  # noqa: PLC0415

    return doctor()


_COMMANDS: dict[str, Callable[[Namespace], int]] = {"edit": _edit, "bench": _bench, "doctor": _doctor}
