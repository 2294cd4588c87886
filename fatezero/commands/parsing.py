"""Parsers that follow from the signature of a verb's function.

Its positional parameters are given by their place, its keyword-only ones are options, and so is each field of a
dataclass that it takes, unless a parameter has its name.
"""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, is_dataclass
from inspect import Parameter
from typing import Any, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace, set_loader

from fatezero.commands.mistakes import refusal
from fatezero.commands.option_words import WordLoader, check_files
from fatezero.commands.verbs import Verb, is_list, parameters_of
from fatezero.config import MethodConfig
from fatezero.data.timecode import count_or_text

DECIMAL = "decimal"  # what jsonargparse calls our way to read values


set_loader(DECIMAL, lambda text: yaml.load(text, WordLoader), (yaml.YAMLError,))


def parser_of(verb: Verb, words: Sequence[str], method: MethodConfig, **about: Any) -> ArgumentParser:
    """A parser that knows a verb's options, behind the words that name it.

    Args:
        verb: what is asked for.
        words: its name; two, where it stands behind another.
        method: defaults of what the user leaves open.
        about: the program's name.
    """
    parser = outer = _plain_parser(**about)
    for place, word in enumerate(words, start=1):
        inner = _parser_of_options(verb, method) if place == len(words) else _plain_parser()
        outer.add_subcommands(required=True).add_subcommand(word, inner)  # before its own: jsonargparse's order
        outer = inner
    return parser


def parse(parser: ArgumentParser, words: Sequence[str], verb: Verb, command: str) -> Namespace:
    """Parsed words.

    Args:
        parser: made by `parser_of`.
        words: of the command line, made by `gathered`.
        verb: what they ask for.
        command: as it is typed, in sentences.

    Raises:
        SystemExit: after --print_config.
        UsageError: for words that do not fit.
        UserError: for a file of options that is too large, or damaged.
    """
    check_files(words, verb, command)  # within bounds, which the parser does not know
    try:
        return parser.parse_args(words)
    except ArgumentError as error:
        raise refusal(str(error), verb, command) from error


def call(verb: Verb, parsed: Namespace) -> Any:
    """Run a verb on parsed options."""
    while "subcommand" in parsed:
        parsed = parsed[parsed.subcommand]
    parts = parameters_of(verb)
    own = {part.name for part in parts}
    return verb.function(**{part.name: _value(part, parsed, own) for part in parts})


def _value(part: Parameter, parsed: Namespace, own: Collection[str]) -> Any:
    kind: Any = part.annotation
    if is_dataclass(kind):
        return part.annotation(**{f.name: getattr(parsed, f.name) for f in fields(kind) if f.name not in own})
    value = getattr(parsed, part.name)
    return tuple(value or ()) if is_list(kind) else value


def _plain_parser(**about: Any) -> ArgumentParser:
    return ArgumentParser(parser_mode=DECIMAL, exit_on_error=False, allow_abbrev=False, **about)


def _parser_of_options(verb: Verb, method: MethodConfig) -> ArgumentParser:
    parser = _plain_parser()
    parts = parameters_of(verb)
    if any(is_dataclass(part.annotation) for part in parts):
        parser.add_argument("--config", action="config")
    for part in parts:
        if is_dataclass(part.annotation):
            _add_options(parser, part.annotation, {part.name for part in parts})
        else:
            _add_argument(parser, part)
    if any(part.annotation is MethodConfig for part in parts):
        parser.set_defaults({f.name: getattr(method, f.name) for f in fields(MethodConfig)})
    return parser


def _add_options(parser: ArgumentParser, options: Any, own: Collection[str]) -> None:
    """The fields of a dataclass; a count or a text by our own reader, since jsonargparse takes 1:02 for 62."""
    kinds = {name: get_args(hint) for name, hint in get_type_hints(options).items()}
    mixed = [field for field in fields(options) if {int, str} <= set(kinds[field.name])]
    for option in mixed:
        reader = CountOrText(null=type(None) in kinds[option.name])
        parser.add_argument(f"--{option.name}", type=reader, default=option.default)
    skipped = {option.name for option in mixed} | {f.name for f in fields(options) if f.name in own}
    parser.add_class_arguments(options, as_group=False, skip=skipped)


@dataclass(frozen=True)
class CountOrText:
    """Reads a value of the command line or of --config.

    Attributes:
        null: whether None is a value, too.
    """

    null: bool

    def __call__(self, value: Any) -> Any:
        """Digits alone are a number, null is None; the rest stays."""
        if self.null and value == "null":
            return None
        return count_or_text(value) if isinstance(value, str) else value


def _add_argument(parser: ArgumentParser, part: Parameter) -> None:
    words: dict[str, Any] = {"type": part.annotation}
    if part.kind is Parameter.KEYWORD_ONLY:
        parser.add_argument(f"--{part.name}", default=part.default, **words)
    elif is_list(part.annotation):
        least = "+" if part.default is Parameter.empty else "*"
        parser.add_argument(part.name, nargs=least, **words | {"type": get_args(part.annotation)[0]})
    elif part.default is Parameter.empty:
        parser.add_argument(part.name, **words)
    else:
        parser.add_argument(part.name, nargs="?", **words)
