"""Settings given by name: a checkpoint's recommendations and a request's own, checked like the command line's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fatezero.config import MethodConfig
from fatezero.diffusion.vetting import read_object
from fatezero.errors import UserError
from fatezero.system.terminal import quoted, shortened

RECOMMENDATIONS = "fatezero.json"  # in a checkpoint's folder: dotted field names of MethodConfig and their values


def with_settings(method: MethodConfig, settings: Mapping[str, Any], where: str) -> MethodConfig:
    """A method with some fields set.

    Args:
        method: the values of all other fields.
        settings: values by dotted name, such as "blending.threshold"; setting a field of a part that is off turns it
            on.
        where: names the settings' origin in errors.

    Raises:
        UserError: for unknown names or values of the wrong type.
    """
    if not settings:
        return method
    from jsonargparse import ArgumentError, ArgumentParser  # noqa: PLC0415

    nested = asdict(method)
    for name, value in settings.items():
        _set(nested, name, value, where)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(MethodConfig)
    try:
        parsed = parser.instantiate(parser.parse_object(nested))
    except (ArgumentError, ValueError, TypeError) as error:
        raise UserError(f"{where}: {_sentence(error)}") from error
    return MethodConfig(**vars(parsed))


def _set(nested: dict[str, Any], name: str, value: Any, where: str) -> None:
    *parts, last = name.split(".")
    for part in parts:
        if part not in nested or not isinstance(nested[part], dict | None):
            raise UserError(f"{where}: there is no setting {quoted(name)}; settings are MethodConfig's fields.")
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


def recommended_method(*folders: Path | None) -> MethodConfig:
    """The original's configuration with what a checkpoint's folders recommend, later ones over earlier ones.

    Raises:
        UserError: if a file of recommendations is not a JSON object of settings.
    """
    method = MethodConfig()
    for folder in filter(None, folders):
        method = with_settings(method, recommendations(folder), str(folder / RECOMMENDATIONS))
    return method


def recommendations(folder: Path) -> dict[str, Any]:
    """What a checkpoint recommends in its `fatezero.json`; nothing if it has none.

    Raises:
        UserError: if the file is not a JSON object.
    """
    path = folder / RECOMMENDATIONS
    return read_object(path) if path.exists() else {}
