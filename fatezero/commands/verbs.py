"""Words of the command line that name functions, and the options that follow from these functions' signatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Verb:
    """A word of the command line.

    Attributes:
        help: what it does, in a line.
        target: "module:function"; the module is imported when the verb is used.
        verbs: words that follow it, in place of a function.
        needs: what most users look for, as the titles of its help page's first groups and the options in each.
    """

    help: str
    target: str = ""
    verbs: Mapping[str, Verb] = field(default_factory=dict)
    needs: Mapping[str, Sequence[str]] = field(default_factory=dict)

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


def parameters_of(verb: Verb) -> list[Parameter]:
    """Of its function, in order, with their types."""
    hints = get_type_hints(verb.function)
    return [part.replace(annotation=hints[name]) for name, part in signature(verb.function).parameters.items()]


def places_of(verb: Verb) -> list[str]:
    """Names of what is given by its place rather than as an option."""
    parts = parameters_of(verb)
    return [part.name for part in parts if part.kind is not part.KEYWORD_ONLY and not is_dataclass(part.annotation)]


def kinds_of(verb: Verb) -> dict[str, Any]:
    """The types of all options and of what is given by its place, by name."""
    kinds: dict[str, Any] = {}
    parts = parameters_of(verb)
    own = {part.name for part in parts}
    for part in parts:
        if is_dataclass(part.annotation):
            found = fields_of(part.annotation)
            kinds |= {name: kind for name, kind in found.items() if name.partition(".")[0] not in own}
        else:
            kinds[part.name] = without_none(part.annotation)
    return kinds


def fields_of(options: Any, prefix: str = "") -> dict[str, Any]:
    """Types of a dataclass's fields, and of a nested one's by their dotted names; an optional type without its None."""
    kinds: dict[str, Any] = {}
    for name, hint in get_type_hints(options).items():
        kind = without_none(hint)
        kinds[prefix + name] = kind
        if is_dataclass(kind):
            kinds |= fields_of(kind, f"{prefix}{name}.")
    return kinds


def without_none(hint: Any) -> Any:
    """An optional type without its None, where one type is left; any other as it is."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if type(None) in get_args(hint) and len(kinds) == 1 else hint


def is_list(kind: Any) -> bool:
    """Whether an option takes any number of words."""
    return get_origin(kind) is tuple and get_args(kind)[-1:] == (Ellipsis,)


def is_mapping(kind: Any) -> bool:
    """Whether an option takes values by names of the user's own."""
    return isinstance(get_origin(kind), type) and issubclass(get_origin(kind), Mapping)


def option(name: str) -> str:
    """An option as it is written on the command line."""
    return "--" + name.replace("_", "-")
