"""What a run folder's small files say, believed only as far as their types go: the folder may come from anyone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fatezero.data.files import read_json
from fatezero.data.layout import EXPERIMENT, PLAN, failure_file, inside, is_name
from fatezero.errors import UserError
from fatezero.system.terminal import quoted

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63


def _mapping_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _anything(_: Any) -> bool:
    return True


_RECORD: Mapping[str, Check] = {
    "request": _mapping_of(_anything),
    "config": _mapping_of(_anything),
    "runtime": lambda value: _mapping_of(_anything)(value) and _text(value.get("device")),
    "checkpoint": lambda value: _mapping_of(_anything)(value) and _text(value.get("name")) and _text(value["digest"]),
    "versions": _mapping_of(_text),
    "timings": _mapping_of(_number),
    "kept_bytes": _mapping_of(_number),
    "peak_memory_bytes": _number,
    "frames": lambda value: _number(value) and isinstance(value, int) and value > 0,
    "clip_digest": _text,
}


def read_record(run: Path, path: Path) -> dict[str, Any]:
    """What an edit's `meta.json` says; whatever of it scores, tables and pages use is of the right type, or not there.

    Raises:
        UserError: it is damaged, or a link out of the run.
    """
    values = _read(run, path, "as an edit's record", "edit the clip again")
    known = {name: value for name, value in values.items() if value is not None}
    for name, check in _RECORD.items():
        if name in known and not _holds(check, known[name]):
            raise UserError(
                f"{path}: not readable as an edit's record ({name} is {quoted(known[name])}); edit the clip again."
            )
    return known


def read_plan(run: Path, variant: str) -> list[str] | None:
    """Names of the results that were asked of a variant; None without a plan.

    Raises:
        UserError: it is damaged, or a link out of the run.
    """
    path = run / variant / PLAN
    if not path.exists():
        return None
    names = list(_read(run, path, "as a plan", "take it away and edit again"))
    for name in names:
        if not is_name(name):
            raise UserError(
                f"{path}: not readable as a plan ({quoted(name)} names no result); take it away and edit again."
            )
    return names


def read_failure(run: Path, result: Path) -> str | None:
    """Why there is no result, as it was written down; None where nothing was.

    Raises:
        UserError: the file is damaged, or a link out of the run.
    """
    path = failure_file(result)
    if not path.exists():
        return None
    reason = _read(run, path, "as a failure", "take it away and edit again").get("reason")
    if not isinstance(reason, str):
        raise UserError(f"{path}: not readable as a failure (it states no reason); take it away and edit again.")
    return reason


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What `experiment.json` says; a plain run has an empty one.

    Attributes:
        name: name of the experiment, else of the run folder.
        reference: the variant that others are compared with; None if none is named.
        command: the command as it was typed.
        manifest: the manifest's path, as the command had it.
        manifest_digest: digest of the manifest's content.
        root: the folder that the manifest's paths start from, as the command had it; empty for the manifest's own.
        settings: by variant, the fields that differ from the reference, by dotted name.
        configs: by variant, the whole configuration; of those alone that state one.
    """

    name: str
    reference: str | None = None
    command: str = ""
    manifest: str = ""
    manifest_digest: str = ""
    root: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_experiment(run: Path) -> Experiment:
    """What a run says that it compares.

    Raises:
        UserError: `experiment.json` is damaged, or a link out of the run.
    """
    path = run / EXPERIMENT
    name = run.resolve().name
    if not path.exists():
        return Experiment(name=name)
    remedy = "run fatezero ablate again"
    values = {k: v for k, v in _read(run, path, "as an experiment", remedy).items() if v is not None}
    variants = values.get("variants", {})
    problem = _problem_of(values, variants)
    if problem:
        raise UserError(f"{path}: not readable as an experiment ({problem}); {remedy}.")
    texts = {key: values.get(key, "") for key in ("command", "manifest", "manifest_digest", "root")}
    return Experiment(
        name=values.get("name", name),
        reference=values.get("reference"),
        settings={variant: stated.get("settings", {}) for variant, stated in variants.items()},
        configs={variant: stated["config"] for variant, stated in variants.items() if "config" in stated},
        **texts,
    )


def _problem_of(values: Mapping[str, Any], variants: Any) -> str:
    for key in ("name", "reference", "command", "manifest", "manifest_digest", "root"):
        if not isinstance(values.get(key, ""), str):
            return f"its {key} is {quoted(values[key])}"
    if not _mapping_of(_mapping_of(_mapping_of(_anything)))(variants):
        return "its variants are no mapping of names to settings and config"
    odd = next((name for name in variants if not is_name(name)), None)
    if odd is not None:
        return f"a variant is called {quoted(odd)}"
    if "reference" in values and values["reference"] not in variants:
        return f"its reference {quoted(values['reference'])} is none of its variants"
    return ""


def _holds(check: Check, value: Any) -> bool:
    try:
        return check(value)
    except KeyError:
        return False


def _read(run: Path, path: Path, as_what: str, remedy: str) -> dict[str, Any]:
    """A JSON file's mapping."""
    inside(run, path)
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable {as_what} ({error}); {remedy}.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: not readable {as_what} (it holds {quoted(values)}); {remedy}.")
    return values
