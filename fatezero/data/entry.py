"""One entry of a manifest before it is believed: raw fields that know their file and line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fatezero.errors import UserError

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
        name = f"entry {keys[-1] + 1}" if isinstance(keys[-1], int) else f"entry {keys[-1]!r}"
        place = f"line {lines[keys]}" if keys in lines else name
        if not isinstance(values, dict):
            raise UserError(f"{file}, {place}: {values!r} is not an entry; write fields with values.")
        return cls(file, place, values, {field: lines[*keys, field] for field in values if (*keys, field) in lines})

    def restated(self, extras: Mapping[str, Any] | None = None, **fields: Any) -> Entry:
        """Other fields at the same place."""
        return Entry(self.file, self.place, fields, {}, extras or {})

    def error(self, name: str, problem: str) -> UserError:
        """A sentence that says where first."""
        return UserError(f"{self.where(name)}: {problem}")

    def where(self, name: str) -> str:
        """File, line or entry, and field."""
        return f"{self.file}, {self._line_of(name)}, field {name!r}"

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
            raise self.error(name, f"{value!r} is not a text; put it in quotes.")
        return value

    def number(self, name: str, kind: type[int] | type[float], default: float | None) -> Any:
        """A whole number, or with `kind` float any number; None stays None where that is the default."""
        value = self.fields.get(name, default)
        if value is None and default is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, kind)):
            wanted = "a whole number" if kind is int else "a number"
            raise self.error(name, f"{value!r} is not {wanted}.")
        return value

    def words(self, name: str) -> tuple[str, ...]:
        """A list of texts, empty by default."""
        value = self.fields.get(name) or []
        if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
            raise self.error(name, f"{value!r} is not a list of words; write [one, two].")
        return tuple(value)

    def items(self, name: str) -> list[Any]:
        """A list of anything, which must be there."""
        value = self.fields.get(name)
        if not isinstance(value, list):
            raise self.error(name, "must be a list of entries.")
        return value

    def mapping(self, name: str) -> dict[Any, Any]:
        """Names or numbers with values, empty by default."""
        value = self.fields.get(name) or {}
        if not isinstance(value, dict):
            raise self.error(name, f"{value!r} is not a mapping; write `name: value` lines.")
        return value


def read_text(path: Path) -> str:
    """The file's text in UTF-8, with or without a byte-order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8 ({error.reason}); save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None


def load_json(path: Path) -> Any:
    """JSON in which no key stands twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in pairs:
            if key in values:
                raise UserError(f"{path}: {key!r} stands there twice; keep one.")
            values[key] = value
        return values

    try:
        return json.loads(read_text(path), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg}).") from None
    except RecursionError:
        raise UserError(f"{path}: not a manifest, its values are nested too deeply.") from None


def load_yaml(path: Path) -> tuple[Any, Lines]:
    """YAML of plain values in which no key stands twice, and the line of each."""
    text = read_text(path)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines: dict[Keys, int] = {}
        _note_lines(path, node, (), lines, set())
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not YAML ({error.problem}).") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())}).") from None


def _note_lines(path: Path, node: yaml.Node, keys: Keys, lines: dict[Keys, int], seen: set[int]) -> None:
    lines[keys] = node.start_mark.line + 1
    if id(node) in seen:
        return  # an alias: following it again could take forever
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(path, item, (*keys, index), lines, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*keys, str(key.value))
            line = key.start_mark.line + 1
            if place in lines:
                raise UserError(f"{path}, line {line}: {key.value!r} stands there twice; keep one.")
            _note_lines(path, value, place, lines, seen)
            lines[place] = line
