"""What the last word of a command line may become, for shells: `complete -C "fatezero --complete" fatezero`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin

from fatezero.commands.option_words import OF_ALL, OFF
from fatezero.commands.verbs import Verb, kinds_of, option, places_of

GENERAL = [*map(option, OF_ALL)]


def continuations(verbs: Mapping[str, Verb], words: Sequence[str], begun: str) -> list[str]:
    """What the last word may become; nothing where it is a text or a file, which shells know best.

    Args:
        verbs: verbs by name.
        words: the words before it, the program's name left out.
        begun: the last word as far as it is there.
    """
    verb: Verb | None = None
    for word in words:
        if word in verbs:
            verb, verbs = verbs[word], verbs[word].verbs
    if verb is None or verbs:
        found = [*verbs]
    elif begun.startswith("-"):
        found = [*_options(kinds_of(verb), places_of(verb)), *GENERAL]
    else:
        kind = kinds_of(verb).get(words[-1].removeprefix("--").replace("-", "_"))
        found = [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []
    return [word for word in found if word.startswith(begun)]


def _options(kinds: Mapping[str, Any], places: Sequence[str]) -> list[str]:
    """All options, switches and parts also with what turns them off."""
    names = [name for name in kinds if name not in places]
    off = [option(f"{OFF}{name}") for name in names if kinds[name] is bool or is_dataclass(kinds[name])]
    return [*map(option, names), *off]
