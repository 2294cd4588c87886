"""Distances between sets of clips as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fatezero_eval.scoring.set_distances import SetDistance
from fatezero_eval.tables.notation import Grid


def set_distance_grid(distances: Sequence[SetDistance]) -> Grid:
    """A line for each method and reference, a column for each distance; why some are undefined below the heading."""
    metrics = [*dict.fromkeys(found.metric for found in distances)]
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for found in distances:
        counts = f"{found.clips} clips, {found.videos} : {found.references} videos"
        cells.setdefault((found.variant, found.reference, counts), {})[found.metric] = _cell(found)
    return Grid(
        title="Distances between sets of clips (lower is nearer)",
        header=("method", "from", "known", *(f"{metric} ↓" for metric in metrics)),
        lines=[(*line, *(values[metric] for metric in metrics)) for line, values in cells.items()],
        notes=_reasons(distances),
    )


def _cell(found: SetDistance) -> str:
    if found.value is None:
        return "-"
    spread = "" if found.standard_error is None else f" ± {found.standard_error:.3g}"
    return f"{found.value:.4g}{spread}"


def _reasons(distances: Iterable[SetDistance]) -> list[str]:
    """Each reason once, with the distances that have it somewhere."""
    metrics: dict[str, dict[str, None]] = {}
    for found in distances:
        if found.reason:
            metrics.setdefault(found.reason, {})[found.metric] = None
    return [f"{', '.join(names)}: {reason}." for reason, names in metrics.items()]
