"""In what a result that is there differs from what is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fatezero.data.files import read_json
from fatezero.data.layout import RECORD
from fatezero.data.manifest import request_to_json
from fatezero.runs.jobs import EditJob, local_digest
from fatezero.system.terminal import quoted

TOLD = 4  # differences; a result of another request may differ in everything


def differences(job: EditJob) -> list[str]:
    """What a job's folder was made of, where that is not what the job asks for; nothing where its record is damaged."""
    try:
        found = list(_differences(read_json(job.folder / RECORD), job))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [*found[:TOLD], *(["…"] if found[TOLD:] else [])]


def _differences(made: Mapping[str, Any], job: EditJob) -> Iterator[str]:
    asked = request_to_json(job.request)
    for name in ("source_prompt", "target_prompt", "edited_words", "target_words", "seed"):
        yield from _changed(name, made["request"][name], asked[name])
    if made["clip_digest"] != local_digest(job.request.clip.path):
        yield f"clip {quoted(Path(made['request']['clip']['path']).name)}"
    for name, value in asked["clip"].items():
        if name != "path":
            yield from _changed(name, made["request"]["clip"].get(name), value)
    config = json.loads(json.dumps(asdict(job.method)))
    for name, value in config.items():
        before = made["config"].get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            for inner in value:
                yield from _changed(f"{name}.{inner}", before.get(inner), value[inner])
        else:
            yield from _changed(name, before, value)
    if made["checkpoint"]["digest"] != job.checkpoint.digest:
        yield f"model {quoted(made['checkpoint']['name'])}, with other weights or additions"
    before, now = made["versions"].get("fatezero-lab"), version("fatezero-lab")
    if before != now:
        yield f"version {before} of this program (now {now})"


def _changed(name: str, before: Any, now: Any) -> Iterator[str]:
    if before != now:
        yield f"{name} {quoted(before)} (now {quoted(now)})"
