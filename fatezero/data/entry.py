"""One entry of a manifest before it is believed: raw fields that know their file and line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fatezero.data import files
from fatezero.data.timecode import check_count_or_time
from fatezero.errors import UserError, first_line
from fatezero.system.terminal import quoted, shortened

MAX_YAML = 1024 * 1024  # bytes: reading YAML takes three to twelve seconds for each million
MAX_VALUES = 500_000  # of a YAML file, its aliases followed: a few lines can stand for billions
MAX_NUMBER = 2**63  # what nothing counts and no library takes

_DEEPEST_FIELD = 5  # names and positions that lead to a field whose line is told: data, 0, edit, 0, prompt
_YAML = "tag:yaml.org,2002:"
_PARSED = {_YAML + kind for kind in ("null", "bool", "int", "float")}
_PLAIN = _PARSED | {_YAML + kind for kind in ("str", "seq", "map", "merge")}


class DecimalLoader(yaml.SafeLoader):
    """YAML whose numbers are JSON's, as in YAML 1.2: 1:02 is a text, here a time, where YAML 1.1 reads 62."""


DecimalLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag not in {_YAML + "int", _YAML + "float"}]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
DecimalLoader.add_implicit_resolver(_YAML + "int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z"), list("-+0123456789"))
DecimalLoader.add_implicit_resolver(
    _YAML + "float",
    re.compile(
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))\Z"
        r"|\.(?:nan|NaN|NAN)\Z"
    ),
    list("-+.0123456789"),
)

Keys = tuple[str | int, ...]  # what leads to a value: names as written, and positions in lists
Lines = Mapping[Keys, int]


@dataclass(frozen=True)
class Entry:
    """Fields as a file states them, and where.

    Attributes:
        file: the manifest.
        place: "line 12" or "entry 'cat'".
        fields: unchecked values by field.
        lines: lines of single fields, where they are known.
        extras: what else a benchmark says of this edit.
    """

    file: Path | str
    place: str
    fields: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, file: Path, values: Any, lines: Lines, keys: Keys) -> Entry:
        """The entry that `values` states, which must be a mapping.

        Args:
            file: the manifest.
            values: the fields.
            lines: line numbers of the whole file, as far as they are known.
            keys: what leads to the entry in the file.
        """
        name = f"entry {keys[-1] + 1}" if isinstance(keys[-1], int) else f"entry {quoted(keys[-1])}"
        place = f"line {lines[keys]}" if keys in lines else name
        if not isinstance(values, dict):
            raise UserError(f"{file}, {place}: {quoted(values)} is not an entry; write fields with values.")
        return cls(file, place, values, {field: lines[*keys, field] for field in values if (*keys, field) in lines})

    def restated(self, extras: Mapping[str, Any] | None = None, **fields: Any) -> Entry:
        """Other fields at the same place."""
        return Entry(self.file, self.place, fields, {}, extras or {})

    def error(self, name: str, problem: str) -> UserError:
        """A sentence that says where first."""
        return UserError(f"{self.where(name)}: {problem}")

    def where(self, name: str) -> str:
        """File, line or entry, and field."""
        return f"{self.file}, {self._line_of(name)}, field {quoted(name)}"

    def nested(self, name: str, fields: Mapping[str, Any]) -> Entry:
        """The fields of the field `name`."""
        return Entry(self.file, self._line_of(name), fields)

    def _line_of(self, name: str) -> str:
        return f"line {self.lines[name]}" if name in self.lines else self.place

    def refuse_unknown(self, known: tuple[str, ...]) -> None:
        """Raises a UserError if there is any other field."""
        for name in self.fields:
            if name not in known:
                raise self.error(str(name), f"unknown; the fields are {', '.join(known)}.")

    def text(self, name: str, default: str | None = None) -> str:
        """A text; without a default it must be there."""
        value = self.fields.get(name, default)
        if value is None:
            raise self.error(name, "missing; add it.")
        if not isinstance(value, str):
            raise self.error(name, f"{quoted(value)} is not a text; put it in quotes.")
        return value

    def number(self, name: str, kind: type[int] | type[float], default: float | None) -> Any:
        """A whole number, or with `kind` float any finite one; None stays None where that is the default."""
        value = self.fields.get(name, default)
        if value is None and default is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, kind)):
            wanted = "a whole number" if kind is int else "a number"
            raise self.error(name, f"{quoted(value)} is not {wanted}.")
        if not is_finite(value):
            raise self.error(name, f"{quoted(value)} is too large, or no number.")
        return value

    def count_or_time(self, name: str, default: int | None) -> int | str | None:
        """A whole number, or a time such as 12.5s or 00:01:02.5; None where that is the default."""
        value = self.fields.get(name, default)
        if value is not None or default is not None:
            check_count_or_time(self.where(name), value)
        return value if isinstance(value, str) else self.number(name, int, default)

    def words(self, name: str) -> tuple[str, ...]:
        """A list of texts, empty by default."""
        value = self.fields.get(name, [])
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
            raise self.error(name, f"{quoted(value)} is not a list of words; write [one, two].")
        return tuple(value)

    def items(self, name: str) -> list[Any]:
        """A list of anything, which must be there."""
        value = self.fields.get(name)
        if not isinstance(value, list):
            raise self.error(name, "must be a list of entries.")
        return value

    def mapping(self, name: str) -> dict[Any, Any]:
        """Names or numbers with values, empty by default."""
        value = self.fields.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error(name, f"{quoted(value)} is not a mapping; write `name: value` lines.")
        return value


def is_finite(number: float) -> bool:
    """Whether it is a number in use: no NaN, no infinity, none of hundreds of digits."""
    return abs(number) < MAX_NUMBER if isinstance(number, int) else math.isfinite(number)


def read_text(path: Path, limit: int = files.MAX_TEXT) -> str:
    """The file's text in UTF-8, with or without a byte-order mark, of at most `limit` bytes."""
    try:
        return files.read_text(path, limit)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8 ({error.reason}); save it as UTF-8.") from None
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}); write a smaller file, or JSON lines (.jsonl).") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None


def load_json(path: Path) -> Any:
    """JSON of plain values in which no key stands twice."""
    try:
        return files.parse_json(read_text(path), halves=True)  # which fail their own edit
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg}).") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON of plain values ({error}).") from None


def load_json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The number of each line that is not empty, and the JSON that it holds."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = files.parse_json(line, halves=True)
        except ValueError as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise UserError(f"{path}, line {number}: not JSON of plain values ({reason}).") from None
        yield number, values


def load_yaml(path: Path) -> tuple[Any, Lines]:
    """YAML of plain values in which no key stands twice, and the line of each."""
    text = read_text(path, MAX_YAML)
    try:
        loader = DecimalLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines: dict[Keys, int] = {}
        for count, (keys, line, value) in enumerate(_values(path, node)):
            if count == MAX_VALUES:
                raise UserError(f"{path} has more than {MAX_VALUES} values, its aliases followed; write fewer.")
            if len(keys) <= _DEEPEST_FIELD:
                lines[keys] = line
            field_there = f", field {quoted(keys[-1])}" if keys and isinstance(keys[-1], str) else ""
            _check_value(f"{path}, line {line}{field_there}", value, loader)
        return loader.construct_document(node), lines
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        line_there = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line_there}: not YAML ({shortened(str(error.problem), 200)}).") from None
    except RecursionError:
        raise UserError(f"{path}: not a manifest, its values are nested too deeply.") from None
    except Exception as error:  # the parser lets out what odd characters and escapes raise, of many types
        raise UserError(f"{path}: not YAML ({first_line(error)}).") from None


def _values(path: Path, root: yaml.Node) -> Iterator[tuple[Keys, int, yaml.Node]]:
    """All values, aliases followed, with what leads there and their line: that of their name, if they have one."""
    waiting: list[tuple[Keys, int, yaml.Node]] = [((), root.start_mark.line + 1, root)]
    while waiting:
        keys, line, node = waiting.pop()
        if len(keys) > files.MAX_NESTING:
            raise UserError(f"{path}, line {line}: values are nested too deeply, or hold themselves; write them flat.")
        yield keys, line, node
        if isinstance(node, yaml.SequenceNode):
            items = [((*keys, index), item.start_mark.line + 1, item) for index, item in enumerate(node.value)]
            waiting += reversed(items)
        elif isinstance(node, yaml.MappingNode):
            waiting += reversed(_fields(path, node, keys))


def _fields(path: Path, node: yaml.MappingNode, keys: Keys) -> list[tuple[Keys, int, yaml.Node]]:
    """The names of a mapping, each a value itself, and what stands under them."""
    found: dict[str, list[tuple[Keys, int, yaml.Node]]] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{path}, line {line}: a list or mapping is no name of a field; write a text.")
        if key.value in found:
            raise UserError(f"{path}, line {line}: {quoted(key.value)} stands there twice; keep one.")
        place = (*keys, key.value)
        found[key.value] = [(place, line, key), (place, line, value)]
    return [field for both in found.values() for field in both]


def _check_value(where: str, node: yaml.Node, loader: DecimalLoader) -> None:
    """Refuse dates, sets, binary, tagged and infinite values, which have no place in a manifest."""
    if node.tag not in _PLAIN or (node.tag in _PARSED and not isinstance(node, yaml.ScalarNode)):
        kind = shortened(node.tag.removeprefix(_YAML), 100)
        raise UserError(f"{where}: not YAML of plain values ({kind}); put it in quotes, or write a list.")
    if node.tag in _PARSED:
        try:
            value = loader.construct_object(node)
        except Exception:  # of many types, where a tag promises what the text is not
            value = math.nan
        if value is not None and not is_finite(value):
            raise UserError(f"{where}: {quoted(node.value)} is too large, or no number.")
