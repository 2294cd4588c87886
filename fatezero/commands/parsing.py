"""Parsers that follow from the signature of a verb's function.

Its positional parameters are given by their place, its keyword-only ones are options, and so is each field of a
dataclass that it takes, unless a parameter has its name. A boolean needs no value, a tuple of any length takes several
words. Help is the docstrings'.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from inspect import Parameter, signature
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser, Namespace, set_loader

from fatezero.config import MethodConfig
from fatezero.data.entry import DecimalLoader, load_yaml
from fatezero.data.timecode import count_or_text
from fatezero.errors import UserError
from fatezero.system.terminal import printable

DECIMAL = "decimal"  # what jsonargparse calls our way to read values


class WordLoader(DecimalLoader):
    """A value of the command line or of --config: YAML with decimal numbers, in which a date is a text."""


WordLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith(":timestamp")]
    for first, rules in DecimalLoader.yaml_implicit_resolvers.items()
}


set_loader(DECIMAL, lambda text: yaml.load(text, WordLoader), (yaml.YAMLError,))


@dataclass(frozen=True)
class Verb:
    """A word of the command line.

    Attributes:
        help: what it does, in a line.
        target: "module:function"; the module is imported when the verb is used.
        verbs: words that follow it, in place of a function.
    """

    help: str
    target: str = ""
    verbs: Mapping[str, Verb] = field(default_factory=dict)

    @property
    def function(self) -> Callable[..., Any]:
        """What it runs."""
        module, _, name = self.target.partition(":")
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function


def chosen(verbs: Mapping[str, Verb], words: Sequence[str]) -> Verb | None:
    """The verb that the first words name; None where they name none that does anything."""
    verb = verbs.get(words[0]) if words else None
    return chosen(verb.verbs, words[1:]) if verb is not None and verb.verbs else verb


def parser_of(verbs: Mapping[str, Verb], words: Sequence[str], method: MethodConfig, **about: Any) -> ArgumentParser:
    """A parser that lists all verbs and knows the options of the one that the words name.

    Args:
        verbs: verbs by name.
        words: the words of the command line.
        method: defaults of what the user leaves open.
        about: name, description and version of the program.
    """
    parser = ArgumentParser(parser_mode=DECIMAL, **about)
    _add_verbs(parser, verbs, words, method, required=False)
    return parser


def parse(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """Parsed words; what is wrong with them is printed so that it cannot steer the terminal.

    Raises:
        SystemExit: for words that do not fit, and after help.
        UserError: for a file of options that is too large, or damaged.
    """
    for file in _option_files(words):
        load_yaml(file)  # within bounds, which the parser does not know
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return parser.parse_args(words)
    finally:
        sys.stderr.write(printable(said.getvalue()))


def _option_files(words: Sequence[str]) -> list[Path]:
    """The files given as --config."""
    named = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    named += [after for word, after in pairwise(words) if word == "--config"]
    return [Path(name) for name in named]


def _add_verbs(
    parser: ArgumentParser, verbs: Mapping[str, Verb], words: Sequence[str], method: MethodConfig, *, required: bool
) -> None:
    commands = parser.add_subcommands(required=required)
    for name, verb in verbs.items():
        meant = words[:1] == [name]
        inner = _parser_of_options(verb, method) if meant and not verb.verbs else ArgumentParser()
        commands.add_subcommand(name, inner, help=verb.help)  # before its own: jsonargparse wants levels in order
        if verb.verbs:
            _add_verbs(inner, verb.verbs, words[1:] if meant else (), method, required=True)


def parameters_of(verb: Verb) -> list[Parameter]:
    """Of its function, in order, with their types."""
    hints = get_type_hints(verb.function)
    return [part.replace(annotation=hints[name]) for name, part in signature(verb.function).parameters.items()]


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
    return tuple(value or ()) if _is_list(kind) else value


def gathered(verb: Verb, words: Sequence[str]) -> list[str]:
    """Words as jsonargparse reads them: --edited-words a b as --edited_words=["a","b"], --redo as --redo=true."""
    kinds = _kinds(verb)
    left, done = _with_whole_mappings(words, kinds), []
    while left:
        name, equals, value = _underscored(left.pop(0)).partition("=")
        kind = kinds.get(name.removeprefix("--")) if name.startswith("--") else None
        if kind is bool and not equals and (not left or left[0].startswith("--")):
            equals, value = "=", "true"
        elif _is_list(kind) and not value.startswith("["):
            given = [value] if equals else []
            while left and not left[0].startswith(("--", "[")):
                given.append(left.pop(0))
            if given:
                equals, value = "=", json.dumps([_number(word) if _holds_numbers(kind) else word for word in given])
        done.append(name + equals + value)
    return done


def _with_whole_mappings(words: Sequence[str], kinds: Mapping[str, Any]) -> list[str]:
    """--sweep.a=1 --sweep.b=2 as --sweep={"a": 1, "b": 2}: the parser would read texts, and keep the last alone.

    Raises:
        UserError: the mapping is given as a whole, too.
    """
    left, kept = list(words), list[str]()
    entries: dict[str, dict[str, Any]] = {}
    while left:
        word = left.pop(0)
        name, equals, value = _underscored(word).partition("=")
        option, dot, entry = name.removeprefix("--").partition(".")
        if not (name.startswith("--") and dot and kinds.get(option) == dict[str, Any]):
            kept.append(word)
            continue
        stated = value if equals or not left else left.pop(0)
        entries.setdefault(option, {})[entry] = _as_value(stated)
    for option in entries:
        if any(word.partition("=")[0] == f"--{option}" for word in kept):
            raise UserError(f"--{option} was given as a whole and by its entries: leave one of them out.")
    return [*kept, *(f"--{option}={json.dumps(values)}" for option, values in entries.items())]


def _as_value(text: str) -> Any:
    try:
        return yaml.load(text, WordLoader)
    except yaml.YAMLError:
        return text


def _parser_of_options(verb: Verb, method: MethodConfig) -> ArgumentParser:
    parser = ArgumentParser()
    parts = parameters_of(verb)
    described = {p.arg_name: p.description for p in parse_docstring(verb.function.__doc__ or "").params}
    if any(is_dataclass(part.annotation) for part in parts):
        parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    for part in parts:
        if is_dataclass(part.annotation):
            _add_options(parser, part.annotation, {part.name for part in parts})
        else:
            _add_argument(parser, part, described.get(part.name))
    if any(part.annotation is MethodConfig for part in parts):
        parser.set_defaults({f.name: getattr(method, f.name) for f in fields(MethodConfig)})
    return parser


def _add_options(parser: ArgumentParser, options: Any, own: Collection[str]) -> None:
    """The fields of a dataclass; a count or a text by our own reader, since jsonargparse takes 1:02 for 62."""
    kinds = {name: get_args(hint) for name, hint in get_type_hints(options).items()}
    mixed = [field for field in fields(options) if {int, str} <= set(kinds[field.name])]
    docstrings = [parse_docstring(base.__doc__ or "") for base in reversed(options.__mro__)]
    described = {p.arg_name: p.description for docstring in docstrings for p in docstring.params}
    group = parser.add_argument_group((docstrings[-1].short_description or "").removesuffix("."))
    for option in mixed:
        reader = CountOrText(null=type(None) in kinds[option.name])
        group.add_argument(f"--{option.name}", type=reader, default=option.default, help=described[option.name])
    skipped = {option.name for option in mixed} | {f.name for f in fields(options) if f.name in own}
    group.add_class_arguments(options, as_group=False, skip=skipped)


@dataclass(frozen=True)
class CountOrText:
    """Reads a value of the command line or of --config; help shows it as it is written.

    Attributes:
        null: whether None is a value, too.
    """

    null: bool

    def __call__(self, value: Any) -> Any:
        """Digits alone are a number, null is None; the rest stays."""
        if self.null and value == "null":
            return None
        return count_or_text(value) if isinstance(value, str) else value


def _add_argument(parser: ArgumentParser, part: Parameter, described: str | None) -> None:
    words: dict[str, Any] = {"type": part.annotation, "help": described}
    if part.kind is Parameter.KEYWORD_ONLY:
        parser.add_argument(f"--{part.name}", default=part.default, **words)
    elif _is_list(part.annotation):
        least = "+" if part.default is Parameter.empty else "*"
        parser.add_argument(part.name, nargs=least, **words | {"type": get_args(part.annotation)[0]})
    elif part.default is Parameter.empty:
        parser.add_argument(part.name, **words)
    else:
        parser.add_argument(part.name, nargs="?", **words)


def _kinds(verb: Verb) -> dict[str, Any]:
    """The types of all options and of what is given by its place."""
    kinds: dict[str, Any] = {}
    for part in parameters_of(verb):
        kinds |= _fields(part.annotation) if is_dataclass(part.annotation) else {part.name: part.annotation}
    return kinds


def _fields(options: Any, prefix: str = "") -> dict[str, Any]:
    """Types of a dataclass's fields, those of nested ones by their dotted names; an optional type without its None."""
    kinds: dict[str, Any] = {}
    for name, hint in get_type_hints(options).items():
        optional = type(None) in get_args(hint)
        kind = next(arg for arg in get_args(hint) if arg is not type(None)) if optional else hint
        kinds |= _fields(kind, f"{prefix}{name}.") if is_dataclass(kind) else {prefix + name: kind}
    return kinds


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[-1:] == (Ellipsis,)


def _holds_numbers(kind: Any) -> bool:
    element = get_args(kind)[0]
    return int in (element, *get_args(element)) and get_origin(element) is not Literal


def _number(word: str) -> int | str:
    return int(word) if word.lstrip("-").isdigit() else word


def _underscored(word: str) -> str:
    """--edited-words as --edited_words; values are left alone."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value
