"""Options as people write them, made into the words that jsonargparse reads.

Hyphens and underscores are the same in an option's name. A boolean needs no value, and `--no-` before its name, or
before a part of the method, turns it off. A tuple takes several words. A name that no option has is refused here,
where all names are known, rather than taken for the beginning of another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from fatezero.commands.mistakes import unknown
from fatezero.commands.verbs import Verb, is_list, is_mapping, kinds_of
from fatezero.data.entry import DecimalLoader, load_yaml
from fatezero.errors import UserError

OF_ALL = ("config", "print_config", "help")  # options of the parser's own
OFF = "no_"


class WordLoader(DecimalLoader):
    """A value of the command line or of --config: YAML with decimal numbers, in which a date is a text."""


WordLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if not tag.endswith(":timestamp")]
    for first, rules in DecimalLoader.yaml_implicit_resolvers.items()
}


def gathered(verb: Verb, words: Sequence[str], command: str) -> list[str]:
    """Words as jsonargparse reads them: --edited-words a b as --edited_words=["a","b"], --redo as --redo=true.

    Args:
        verb: what the words ask for.
        words: of the command line, the verb's name among them.
        command: as it is typed.

    Raises:
        UsageError: for an option that there is not.
        UserError: a mapping is given as a whole and by its entries.
    """
    kinds = kinds_of(verb)
    left, done = _with_whole_mappings(words, kinds), []
    while left:
        name, equals, value = _turned_off(_underscored(left.pop(0)), kinds)
        if not name.startswith("--"):
            done.append(name + equals + value)
            continue
        kind = _kind(name.removeprefix("--"), kinds, command)
        if kind is bool and not equals and (not left or left[0].startswith("--")):
            equals, value = "=", "true"
        elif get_origin(kind) is tuple and not value.startswith("["):
            given = [value] if equals else []
            while left and not left[0].startswith(("--", "[")) and len(given) < _most_words(kind):
                given.append(left.pop(0))
            if len(given) > 1 or (given and is_list(kind)):
                given = [json.dumps([_number(word) if _holds_numbers(kind) else word for word in given])]
            if given:
                equals, value = "=", given[0]
        done.append(name + equals + value)
    return done


def check_files(words: Sequence[str], verb: Verb, command: str) -> None:
    """Refuse files of options that are too large or damaged, or name an option that there is not.

    Raises:
        UserError: saying what, and where.
    """
    kinds = kinds_of(verb)
    for file in _option_files(words):
        stated, lines = load_yaml(file)
        for keys in _names_in(stated, kinds) if isinstance(stated, dict) else ():
            if (name := ".".join(keys)) not in kinds:
                line = f", line {lines[keys]}" if keys in lines else ""
                raise unknown(f"{file}{line}: {command} has no option", name, kinds, f"{command} --print-config")


def _names_in(
    stated: Mapping[Any, Any], kinds: Mapping[str, Any], above: tuple[str, ...] = ()
) -> list[tuple[str, ...]]:
    """The keys that lead to each option that a file states; what a mapping of the user's own holds is none."""
    names = []
    for key, value in stated.items():
        keys = (*above, str(key))
        inner = isinstance(value, dict) and is_dataclass(kinds.get(".".join(keys)))
        names += _names_in(value, kinds, keys) if inner else [keys]
    return names


def _option_files(words: Sequence[str]) -> list[Path]:
    """The files given as --config."""
    named = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    named += [after for word, after in pairwise(words) if word == "--config"]
    return [Path(name) for name in named]


def _kind(name: str, kinds: Mapping[str, Any], command: str) -> Any:
    """What an option holds; an entry of a mapping, whose name is the user's own, what the mapping's values are."""
    beginnings = [name[:place] for place, character in enumerate(name) if character == "."]
    mappings = [kinds[beginning] for beginning in beginnings if is_mapping(kinds.get(beginning))]
    if name in kinds or name in OF_ALL or mappings:
        return get_args(mappings[0])[1] if mappings else kinds.get(name)
    known = [one.replace("_", "-") for one in kinds]
    raise unknown(f"{command} has no option", name.replace("_", "-"), known, f"{command} --help", "--")


def _turned_off(word: str, kinds: Mapping[str, Any]) -> tuple[str, str, str]:
    """A word's name, "=" and value; --no_redo is --redo=false, --no_fusion is --fusion=null."""
    name, equals, value = word.partition("=")
    meant = name.removeprefix(f"--{OFF}")
    kind = kinds.get(meant)
    if equals or meant == name or not (kind is bool or is_dataclass(kind)):
        return name, equals, value
    return f"--{meant}", "=", "false" if kind is bool else "null"


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
        mapping, dot, entry = name.removeprefix("--").partition(".")
        if not (name.startswith("--") and dot and kinds.get(mapping) == dict[str, Any]):
            kept.append(word)
            continue
        stated = value if equals or not left else left.pop(0)
        entries.setdefault(mapping, {})[entry] = _as_value(stated)
    for mapping in entries:
        if any(word.partition("=")[0] == f"--{mapping}" for word in kept):
            raise UserError(f"--{mapping} was given as a whole and by its entries: leave one of them out.")
    return [*kept, *(f"--{mapping}={json.dumps(values)}" for mapping, values in entries.items())]


def _as_value(text: str) -> Any:
    try:
        return yaml.load(text, WordLoader)
    except yaml.YAMLError:
        return text


def _most_words(kind: Any) -> float:
    """How many words a tuple takes."""
    return float("inf") if is_list(kind) else len(get_args(kind))


def _holds_numbers(kind: Any) -> bool:
    element = get_args(kind)[0]
    return bool({int, float} & {element, *get_args(element)}) and get_origin(element) is not Literal


def _number(word: str) -> float | str:
    """A number as YAML reads it; any other text stays, and is refused by its type."""
    value = _as_value(word)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else word


def _underscored(word: str) -> str:
    """--edited-words as --edited_words; values are left alone."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value
