"""The output folder of an evaluation, with scores as a test states them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fatezero.data.files import content_digest
from fatezero_eval.scoring.provenance import Provenance, write_provenance
from fatezero_eval.scoring.rows import Row, write_rows

MADE = Provenance(
    rows="",
    manifest="bench",
    manifest_digest="0123456789",
    edits={},
    models={},
    edit_mask="given",
    metrics=(),
    device="cpu",
    versions={},
)


def rows_of(
    scores: Mapping[tuple[str, str], Sequence[float | None]],
    *,
    clips: Sequence[str] | None = None,
    categories: Sequence[str] = (),
) -> list[Row]:
    """Rows of values by variant and metric id, one value for each edit.

    Args:
        scores: values by variant and metric id.
        clips: the clip of each edit; one of its own each by default.
        categories: that of each edit; none by default.
    """
    return [
        Row(
            clip=clips[number] if clips else f"clips/{number}",
            edit=f"edit-{number}",
            category=categories[number] if categories else "",
            variant=variant,
            seed=0,
            metric=metric,
            value=value,
            defined=int(value is not None),
            undefined=int(value is None),
            reason="" if value is not None else "not stated",
            model="",
        )
        for (variant, metric), values in scores.items()
        for number, value in enumerate(values)
    ]


def scored_folder(folder: Path, rows: Sequence[Row], made: Provenance = MADE) -> Path:
    """Write rows with their provenance."""
    lines, _ = write_rows(folder, rows)
    edits = {row.edit: "digest" for row in rows}
    write_provenance(folder, replace(made, edits=edits, rows=content_digest(lines)))
    return folder
