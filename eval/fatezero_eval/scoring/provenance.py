"""What an evaluation was made with, kept beside its rows, and whether two evaluations may share a table."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path

from fatezero.clips.video import probe
from fatezero.data.files import content_digest, json_digest, read_json
from fatezero.data.layout import ROWS
from fatezero.errors import UserError
from fatezero.system.publishing import replace_text
from fatezero.system.terminal import quoted
from fatezero.types import EditRequest
from fatezero_eval.file_names import PROVENANCE
from fatezero_eval.scoring.scoring_jobs import content_of

PACKAGES = (
    "fatezero-lab",
    "numpy",
    "open-clip-torch",
    "opencv-python-headless",
    "scikit-image",
    "torch",
    "torchmetrics",
)
_AGAIN = "run fatezero evaluate again, which keeps what is scored."


def short_digest(content: str) -> str:
    """A manifest's digest as tables and pages show it, of its content's (see `content_digest`); none of none."""
    return json_digest(content) if content else ""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What rows were made with.

    Attributes:
        rows: digest of `rows.jsonl`, so that no other rows are taken for these.
        manifest: the manifest's name; empty if the run was scored without one.
        manifest_digest: digest of the manifest's content, as `short_digest` gives it.
        edits: by id, digest of what makes scores comparable: the source's frames, the prompts and the category.
        models: by role, the name and weights of each network.
        edit_mask: which mask divided inside from outside.
        metrics: ids of the metrics.
        device: where the networks ran.
        versions: versions of Python, the platform and the packages that score.
    """

    rows: str
    manifest: str
    manifest_digest: str
    edits: Mapping[str, str]
    models: Mapping[str, str]
    edit_mask: str
    metrics: tuple[str, ...]
    device: str
    versions: Mapping[str, str]


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write `provenance.json`, whole or not at all; its rows come first."""
    replace_text(folder / PROVENANCE, json.dumps(asdict(provenance), indent=1, ensure_ascii=False) + "\n")


def read_provenance(folder: Path) -> Provenance:
    """Read what `write_provenance` wrote.

    Raises:
        UserError: it is missing, damaged, or belongs to other rows than those beside it.
    """
    path = folder / PROVENANCE
    try:
        values = read_json(path)
        provenance = Provenance(**{**values, "metrics": tuple(values["metrics"])})
        _check(provenance)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: no record of what the rows were made with ({error}); {_AGAIN}") from error
    if provenance.rows != content_digest(folder / ROWS):
        raise UserError(f"{path}: belongs to other rows than {folder / ROWS}; {_AGAIN}")
    return provenance


def _check(provenance: Provenance) -> None:
    """Refuse values of other types."""
    for field in fields(Provenance):
        value = getattr(provenance, field.name)
        parts = [value]
        if field.name in ("edits", "models", "versions"):
            parts = [*value.values()]
        elif field.name == "metrics":
            parts = [*value]
        if not all(isinstance(part, str) for part in parts):
            raise ValueError(f"{field.name} is {quoted(value)}")


def edit_digest(request: EditRequest) -> str:
    """Digest of what two methods must share for their scores of an edit to be comparable."""
    clip = request.clip
    if not request.has_source:
        return json_digest([request.source_prompt, request.target_prompt, request.category])
    info = probe(clip)
    frames = [content_of(clip.path), clip.stream, clip.start, clip.stride, clip.fps, clip.fit]
    size = [info.frames, info.height, info.width]  # as settled: a request may leave them open
    return json_digest([frames, size, request.source_prompt, request.target_prompt, request.category])


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that score."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: version(package) for package in PACKAGES},
    }


def difference(one: Provenance, other: Provenance) -> str:
    """Why numbers of two evaluations may not stand in one table, in words; empty if they may.

    A network that only one of them used keeps nobody from comparing the metrics that both have.
    """
    if one.manifest_digest != other.manifest_digest:
        return f"another manifest: {_named(one)} against {_named(other)}"
    if one.edit_mask != other.edit_mask:
        return f"another edit mask: {one.edit_mask} against {other.edit_mask}"
    for role in one.models.keys() & other.models.keys():
        if one.models[role] != other.models[role]:
            return f"another {role} model: {one.models[role]} against {other.models[role]}"
    shared = sorted(one.edits.keys() & other.edits.keys())
    if not shared:
        return "no edit in common"
    changed = [edit for edit in shared if one.edits[edit] != other.edits[edit]]
    if changed:
        return f"other frames, prompts or category of {len(changed)} edits of the same id, among them {changed[0]}"
    return ""


def _named(provenance: Provenance) -> str:
    return f"{provenance.manifest} ({provenance.manifest_digest[:8]})" if provenance.manifest else "none"
