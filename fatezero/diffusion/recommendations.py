"""Settings given by name: a checkpoint's recommendations and a request's own, checked like the command line's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from fatezero.config import MethodConfig
from fatezero.diffusion.checkpoint import LEAST_PSNR, RECOMMENDATIONS, TRAINED_ON, family_in
from fatezero.diffusion.vetting import read_object
from fatezero.errors import UserError
from fatezero.system.terminal import quoted, shortened

_TYPES = {name: next(filter(is_dataclass, get_args(kind)), None) for name, kind in get_type_hints(MethodConfig).items()}
PARTS = {name: kind for name, kind in _TYPES.items() if kind is not None}  # that can be off, by name
_NAMES = (
    *(field.name for field in fields(MethodConfig)),
    *(f"{part}.{field.name}" for part, kind in PARTS.items() for field in fields(kind)),
)


def with_settings(method: MethodConfig, settings: Mapping[str, Any], where: str) -> MethodConfig:
    """A method with some fields set.

    Args:
        method: the values of all other fields.
        settings: values by dotted name, such as "blending.threshold", or in a mapping under the part's name; setting
            a field of a part that is off turns it on.
        where: names the settings' origin in errors.

    Raises:
        UserError: for unknown names or values of the wrong type.
    """
    if not settings:
        return method
    from jsonargparse import ArgumentError, ArgumentParser  # noqa: PLC0415

    nested = asdict(method)
    for name, value in dotted(settings).items():
        _set(nested, name, value, where)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(MethodConfig)
    try:
        parsed = parser.instantiate(parser.parse_object(nested))
    except (ArgumentError, ValueError, TypeError) as error:
        raise UserError(f"{where}: {_sentence(error)}") from error
    return MethodConfig(**vars(parsed))


def dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name: a mapping under the name of a part, such as "blending", sets the fields it names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        of_part = name in PARTS and isinstance(value, Mapping)
        flat |= {f"{name}.{inner}": one for inner, one in value.items()} if of_part else {name: value}
    return flat


def _set(nested: dict[str, Any], name: str, value: Any, where: str) -> None:
    if name not in _NAMES:
        close = difflib.get_close_matches(name, _NAMES, n=1)
        known = f"did you mean {close[0]}?" if close else "settings are MethodConfig's fields."
        raise UserError(f"{where}: there is no setting {quoted(name)}; {known}")
    if name in PARTS and not isinstance(value, Mapping | None):
        raise UserError(f"{where}: {name} is {quoted(value)}; it is a mapping of its fields, or null.")
    part, _, last = name.rpartition(".")
    if part:
        nested[part] = nested[part] or {}
        nested = nested[part]
    nested[last] = value


def _sentence(error: Exception) -> str:
    """What a value says that refuses itself, which jsonargparse wraps; else what jsonargparse says."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, UserError):
        seen = seen.__cause__ or seen.__context__
    if seen is not None:
        return str(seen)
    return shortened(" ".join(line.strip() for line in str(error).splitlines() if line.strip()), 300)


def recommended_method(checkpoint: Path, adapter: Path | None = None) -> MethodConfig:
    """The original's configuration with what is plain for a checkpoint's family, and what its folders recommend.

    Raises:
        UserError: if a file of recommendations is not a JSON object of settings.
    """
    method = with_settings(MethodConfig(), family_in(checkpoint).settings, str(checkpoint))
    for folder in filter(None, (checkpoint, adapter)):
        method = with_settings(method, recommendations(folder), str(folder / RECOMMENDATIONS))
    return method


def recommendations(folder: Path) -> dict[str, Any]:
    """What a checkpoint recommends in its `fatezero.json`, beside what it says of its training; nothing if it has none.

    Raises:
        UserError: if the file is not a JSON object.
    """
    path = folder / RECOMMENDATIONS
    stated = read_object(path) if path.exists() else {}
    return {name: value for name, value in stated.items() if name not in {TRAINED_ON, LEAST_PSNR}}
