"""Help pages: what most users look for, then all the rest, then examples; all of it from signatures and docstrings."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import Parameter
from pathlib import Path
from textwrap import TextWrapper
from typing import Any, Literal, get_args, get_origin

from docstring_parser import Docstring
from docstring_parser import parse as parse_docstring

from fatezero.commands.verbs import (
    Verb,
    fields_of,
    is_list,
    is_mapping,
    option,
    parameters_of,
    places_of,
    without_none,
)
from fatezero.config import MethodConfig

WIDEST = 100  # columns, beyond which lines are hard to read
INDENT = 26  # columns before a description
LONGEST_CHOICE = 26  # characters of choices that stand beside an option's name
PLACES, OWN, GENERAL = "What it works on", "Options", "General"
BLANKS: Mapping[Any, str] = {int: "N", float: "X", Path: "PATH"}
NOTE = (
    "Hyphens and underscores in names are the same; files of options (--config) are written with underscores. "
    "--no-NAME turns a switch off."
)


@dataclass(frozen=True)
class _Entry:
    """An option, or what is given by its place.

    Attributes:
        name: dotted, with underscores; empty for the parser's own.
        shown: as it is written.
        described: what it means.
    """

    name: str
    shown: str
    described: str


def verb_page(verb: Verb, command: str, method: MethodConfig) -> str:
    """The page of a verb that does something.

    Args:
        verb: with its function, whose docstring describes what is given.
        command: as it is typed.
        method: whose values are shown as defaults.
    """
    function = parse_docstring(verb.function.__doc__ or "")
    places = [_as_place(part) for part in parameters_of(verb) if part.name in places_of(verb)]
    lines = [f"usage: {' '.join([command, *(place.shown for place in places), '[options]'])}", ""]
    lines += [*_wrapped(_sentence(function.short_description or verb.help)), ""]
    groups = _groups(verb, method)
    for title, entries in _by_need(verb.needs, groups):
        lines += [*_wrapped(f"{title}:"), *(line for entry in entries for line in _lines(entry)), ""]
    examples = [meta.description or "" for meta in function.meta if meta.args == ["examples"]]
    lines += [*_wrapped(NOTE), ""]
    lines += ["Examples:", *(f"  {line}" for text in examples for line in text.splitlines())] if examples else []
    return "\n".join(lines).rstrip()


def verbs_page(verbs: Mapping[str, Verb], command: str, about: str, sections: Mapping[str, Sequence[str]]) -> str:
    """The page of a word that others follow.

    Args:
        verbs: what may follow, by name.
        command: as it is typed.
        about: what all of it is for.
        sections: verbs by title, in the order in which they are listed.
    """
    lines = [f"usage: {command} VERB [options]", "", *_wrapped(about), ""]
    for title, names in sections.items():
        entries = [_Entry(name, name, verbs[name].help) for name in names]
        lines += [f"{title}:", *(line for entry in entries for line in _lines(entry)), ""]
    return "\n".join([*lines, *_wrapped(f"{command} VERB --help says what a verb takes.")])


def _groups(verb: Verb, method: MethodConfig) -> dict[str, list[_Entry]]:
    """All that can be given, by title: places, own options, and those of each dataclass."""
    parts, own = parameters_of(verb), {part.name for part in parameters_of(verb)}
    described = _described(parse_docstring(verb.function.__doc__ or ""))
    groups: dict[str, list[_Entry]] = {PLACES: [], OWN: []}
    for part in parts:
        if is_dataclass(part.annotation):
            groups |= _of_dataclass(part.annotation, method if part.annotation is MethodConfig else None, own)
        elif part.name in places_of(verb):
            place = _as_place(part)
            groups[PLACES].append(_Entry(part.name, place.shown, described.get(part.name, "").removesuffix(".")))
        else:
            groups[OWN].append(_as_option(part.name, part.annotation, part.default, described))
    files = any(is_dataclass(part.annotation) for part in parts)
    groups[GENERAL] = list(_of_every_command(files=files))
    return {title: entries for title, entries in groups.items() if entries}


def _of_every_command(*, files: bool) -> Iterator[_Entry]:
    if files:
        yield _Entry("", "--config FILE", "a YAML file with any of these options")
        yield _Entry("", "--print-config", "print all options as such a file, with those given beside it, and stop")
    yield _Entry("", "--help", "print this page")


def _of_dataclass(kind: Any, values: Any, own: Collection[str]) -> dict[str, list[_Entry]]:
    """The options of a dataclass, and of those in it, each a group of its own."""
    docstrings = [parse_docstring(base.__doc__ or "") for base in kind.__mro__]
    described = {name: text for docstring in reversed(docstrings) for name, text in _described(docstring).items()}
    title = _first_clause(docstrings[0].short_description or "", ":")
    defaults = _defaults(kind) if values is None else vars(values)
    groups: dict[str, list[_Entry]] = {title: []}
    for name, hint in fields_of(kind).items():
        if "." in name or name in own:
            continue
        value = defaults[name]
        if not is_dataclass(hint):
            groups[title].append(_as_option(name, hint, value, described))
            continue
        turned = f"{option('no_' + name)} turns it off" if value is not None else "off unless one of these is given"
        inner = _inner(name, hint, value)
        groups[f"{_first_clause(_first_clause(described.get(name, name), ';'), ' (')} ({turned})"] = inner
    return groups


def _inner(name: str, kind: Any, value: Any) -> list[_Entry]:
    """The fields of a part; where it is off, with the values that it begins with."""
    described = _described(parse_docstring(kind.__doc__ or ""))
    values = vars(kind() if value is None else value)
    return [
        _as_option(f"{name}.{field}", hint, values[field], {f"{name}.{field}": described.get(field, "")})
        for field, hint in fields_of(kind).items()
    ]


def _defaults(kind: Any) -> dict[str, Any]:
    """What the fields of a dataclass are by default; `Parameter.empty` where one must be given."""
    made = {field.name: field.default_factory() for field in fields(kind) if field.default_factory is not MISSING}
    return {field.name: Parameter.empty if field.default is MISSING else field.default for field in fields(kind)} | made


def _by_need(
    needs: Mapping[str, Sequence[str]], groups: Mapping[str, list[_Entry]]
) -> Iterator[tuple[str, list[_Entry]]]:
    """What most users look for, then the rest of each group."""
    known = {entry.name: entry for entries in groups.values() for entry in entries}
    first = {name for names in needs.values() for name in names}
    for title, names in needs.items():
        yield title, [known[name] for name in names]
    for title, entries in groups.items():
        rest = [entry for entry in entries if entry.name not in first or not entry.name]
        if rest:
            yield title, rest


def _as_place(part: Parameter) -> _Entry:
    shown = "|".join(get_args(part.annotation)) if get_origin(part.annotation) is Literal else part.name.upper()
    shown += " ..." if is_list(part.annotation) else ""
    return _Entry(part.name, shown if part.default is Parameter.empty else f"[{shown}]", "")


def _as_option(name: str, hint: Any, default: Any, described: Mapping[str, str]) -> _Entry:
    kind = without_none(hint)
    text = described.get(name, "").removesuffix(".")
    if kind is bool and default is True:
        return _Entry(name, option(f"no_{name}"), f"off; by default on: {text}")
    choices = [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []
    shown = "|".join(choices)
    blank = _blank(name, kind) if not choices else shown if len(shown) <= LONGEST_CHOICE else name.upper()
    if choices and len(shown) > LONGEST_CHOICE:
        text += f"; one of {', '.join(choices)}"
    return _Entry(name, f"{option(name)} {blank}".rstrip(), f"{text}{_default(default)}")


def _blank(name: str, kind: Any) -> str:
    """What stands for the value."""
    last = name.rpartition(".")[2].upper()
    if kind is bool:
        return ""
    if is_list(kind):
        return f"{re.sub('IES$', 'Y', last).removesuffix('S')} ..."
    if get_origin(kind) is tuple:
        return "START END"
    if is_mapping(kind):
        return "'{NAME: VALUE}'"
    return BLANKS.get(kind, last)


def _default(value: Any) -> str:
    if value is Parameter.empty:
        return " (must be given)"
    if value is None or value is False or value in ("", (), {}):
        return ""
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f" (default {shown})"


def _described(docstring: Docstring) -> dict[str, str]:
    """What each parameter or field means, with its values as the command line writes them."""
    texts = {param.arg_name: " ".join((param.description or "").split()) for param in docstring.params}
    return {name: re.sub(r"\bNone\b", "null", text).replace(" () ", " '[]' ") for name, text in texts.items()}


def _first_clause(text: str, end: str) -> str:
    clause = text.partition(end)[0].removesuffix(".")
    return clause[:1].upper() + clause[1:]


def _lines(entry: _Entry) -> list[str]:
    """An option and what it means, beside it or below."""
    head = f"  {entry.shown}"
    text = _wrapped(entry.described, INDENT)
    if len(head) >= INDENT - 1 or not text:
        return [head, *text]
    return [head.ljust(INDENT) + text[0].lstrip(), *text[1:]]


def _wrapped(text: str, indent: int = 0) -> list[str]:
    columns = min(WIDEST, max(60, shutil.get_terminal_size().columns - 1))
    blank = " " * indent
    return TextWrapper(columns, blank, blank, break_on_hyphens=False, break_long_words=False).wrap(text)


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
