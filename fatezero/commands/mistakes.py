"""What is said of words that a command does not take: one sentence, with what was perhaps meant."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from fatezero.commands.verbs import Verb, is_list, is_mapping, kinds_of, option, places_of
from fatezero.errors import UserError
from fatezero.system.terminal import quoted, shortened

ALIKE = 0.65  # of two names, from which on one may stand for the other
SAID = 300  # characters of what a library says
_KEY = re.compile(r'Parser key "([\w.-]+)"')
_VALUE = re.compile(r"Got value: (?P<plain>.*)|Given value: (?:NestedArg\(key='[^']*', val=)?(?P<given>.*?)\)?$", re.M)
_LACKING = re.compile(r"the following arguments are required: (.*)")
_BARE = re.compile(r"argument --([\w.-]+): expected one argument")
_TOO_MANY = re.compile(r"unrecognized arguments: (.*)", re.S)
_WORDS: Mapping[Any, str] = {bool: "true or false", int: "a whole number", float: "a number"}


class UsageError(UserError):
    """Words that the command does not take; the command line exits with status 2."""


def unknown(what: str, name: str, known: Collection[str], page: str, mark: str = "") -> UsageError:
    """A name that is none of those known.

    Args:
        what: the sentence up to the name.
        name: what was written.
        known: all that could have been written.
        page: the command that lists these.
        mark: what is written before each name.
    """
    close = get_close_matches(name, known, n=1, cutoff=ALIKE)
    hint = f"did you mean {mark}{close[0]}?" if close else f"{page} lists what there is."
    return UsageError(f"{what} {mark}{shortened(name, 80)}; {hint}")


def refusal(said: str, verb: Verb, command: str) -> UsageError:
    """What jsonargparse says of words or of a file of options, as a sentence.

    Args:
        said: its message.
        verb: what was asked for.
        command: as it is typed.
    """
    kinds = kinds_of(verb)

    def shown(name: str) -> str:
        return name.upper() if name in places_of(verb) else option(name)

    if lacking := _LACKING.search(said):
        needed = [shown(name.rpartition(".")[2]) for name in lacking[1].split(", ")]
        return UsageError(f"{command} needs {' and '.join(needed)}; {command} --help says more.")
    if bare := _BARE.search(said):
        return UsageError(f"{option(bare[1])} is given without a value: it is {in_words(kinds.get(bare[1]))}.")
    if more := _TOO_MANY.search(said):
        return UsageError(f"{command} has no use for {quoted(more[1])}; {command} --help says what it takes.")
    name = ".".join(_KEY.findall(said))
    value = _VALUE.search(said)
    if name in kinds and value:
        stated = (value["plain"] or value["given"] or "").strip("'")
        return UsageError(f"{shown(name)} is {quoted(stated)}: it is {in_words(kinds[name])}.")
    return UsageError(shortened(" ".join(line.strip() for line in said.splitlines()), SAID))


def in_words(kind: Any) -> str:
    """What values of a type are, for people."""
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        said = " or ".join(filter(None, (", ".join(map(str, parts[:-1])), str(parts[-1]))))
    elif get_origin(kind) in {Union, UnionType}:
        said = " or ".join(in_words(part) for part in parts if part is not type(None))
    elif is_list(kind):
        said = f"one or more values, each {in_words(parts[0])}"
    elif get_origin(kind) is tuple:
        said = f"{len(parts)} values such as '[0, 0.5]', each {in_words(parts[0])}"
    elif is_dataclass(kind):
        said = f"a mapping of {', '.join(field.name for field in fields(kind))}, or null"
    elif is_mapping(kind):
        said = "a mapping such as '{name: value}'"
    else:
        said = _WORDS.get(kind, "a text")
    return said
