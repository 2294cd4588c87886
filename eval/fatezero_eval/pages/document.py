"""Everything the page says, as JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from math import fsum
from typing import Any

from fatezero_eval.pages.gallery import edits
from fatezero_eval.pages.media import Media
from fatezero_eval.pages.shown_run import ShownRun, sweeps
from fatezero_eval.scoring.provenance import short_digest
from fatezero_eval.scoring.rows import BASELINES, Row
from fatezero_eval.scoring.suite import by_id
from fatezero_eval.tables import statistics
from fatezero_eval.tables.resampling import FEWEST_CLIPS


def describe(run: ShownRun) -> tuple[dict[str, Any], Media, tuple[str, ...]]:
    """The page's data, the videos and pictures that it names by number, and a sentence for each thing left out."""
    media = Media()
    shown, unread = edits(run, media)
    left_out = (*run.problems, *unread)
    metrics = list(dict.fromkeys(row.metric for row in run.rows))
    drawn = {name for edit in shown for panel in edit["panels"] for name in panel.get("curves", ())}
    document = {
        "name": run.experiment.name,
        "reference": run.experiment.reference,
        "manifest": run.manifest.name if run.manifest else None,
        "categories": sorted({job.request.category for job in run.jobs} - {""}),
        "variants": _variants(run),
        "metrics": [_metric(name, run.rows) for name in dict.fromkeys([*metrics, *sorted(drawn)])],
        "edits": shown,
        "rows": _scored(run.rows, metrics),
        "scores": [_with_ends(score) for score in statistics.scores(run.rows)],
        "differences": _differences(run),
        "fewest_clips": FEWEST_CLIPS,
        "sweeps": [asdict(sweep) for sweep in sweeps(run.experiment)],
        "problems": [*run.missing, *left_out],
        "provenance": _provenance(run),
    }
    return document, media, left_out


def _variants(run: ShownRun) -> list[dict[str, Any]]:
    """Methods first, then the baselines that the evaluation adds."""
    methods = [
        {
            "name": name,
            "baseline": False,
            "settings": dict(run.experiment.settings.get(name, {})),
            "results": sum(job.variant == name for job in run.jobs),
        }
        for name in run.variants
    ]
    seen = {row.variant for row in run.rows}
    extra = [name for name in BASELINES if name in seen]
    return methods + [{"name": name, "baseline": True, "settings": {}, "results": 0} for name in extra]


def _metric(name: str, rows: Iterable[Row]) -> dict[str, Any]:
    metric = by_id(name)
    return {
        "id": name,
        "name": metric.name,
        "unit": metric.unit,
        "direction": metric.direction,
        "display": metric.display,
        "undefined": metric.undefined,
        "models": sorted({row.model for row in rows if row.metric == name and row.model}),
    }


def _scored(rows: Iterable[Row], metrics: list[str]) -> list[dict[str, Any]]:
    """One entry for each edit, variant and seed, with its values in the metrics' order."""
    place = {name: number for number, name in enumerate(metrics)}
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in rows:
        entry = found.setdefault(
            (row.edit, row.variant, row.seed),
            {"edit": row.edit, "category": row.category, "variant": row.variant, "seed": row.seed, "notes": row.notes}
            | {"values": [None] * len(metrics), "reasons": {}},
        )
        entry["values"][place[row.metric]] = row.value
        if row.value is None:
            entry["reasons"][place[row.metric]] = row.reason
    return list(found.values())


def _differences(run: ShownRun) -> list[dict[str, Any]]:
    reference = run.experiment.reference
    if reference is None or all(row.variant != reference for row in run.rows):
        return []
    found = statistics.differences(run.rows, reference)
    corrected = statistics.holm(found)
    return [_with_ends(one) | {"holm": p_value} for one, p_value in zip(found, corrected, strict=True)]


def _with_ends(found: statistics.Score | statistics.Difference) -> dict[str, Any]:
    """With the interval's numbers beside the others; JSON knows no NaN."""
    values = asdict(found)
    ends = values.pop("interval") or {"value": None, "low": None, "high": None}
    return values | {name: end if end is not None and math.isfinite(end) else None for name, end in ends.items()}


def _provenance(run: ShownRun) -> dict[str, Any]:
    """What made the results; where they differ, each way with the number of results."""
    records = list(run.records.values())
    return {
        "command": run.experiment.command,
        "manifest": run.experiment.manifest or (str(run.manifest.path) if run.manifest else ""),
        "manifest_digest": short_digest(run.experiment.manifest_digest),
        "checkpoint": _counted(record.get("checkpoint") for record in records),
        "versions": _counted(record.get("versions") for record in records),
        "runtime": _counted(record.get("runtime") for record in records),
        "configs": {name: _configs(run, name) for name in run.variants},
        "costs": {name: _costs(run, name) for name in run.variants},
    }


def _configs(run: ShownRun, variant: str) -> list[Any]:
    stated = run.experiment.configs.get(variant)
    if stated is not None:
        return [{"value": stated, "results": sum(job.variant == variant for job in run.jobs)}]
    return _counted(record.get("config") for key, record in run.records.items() if key.startswith(f"{variant}/"))


def _counted(values: Iterable[Any]) -> list[dict[str, Any]]:
    """Distinct values in order of appearance."""
    counts = Counter(json.dumps(value) for value in values if value is not None)
    return [{"value": json.loads(text), "results": count} for text, count in counts.items()]


def _costs(run: ShownRun, variant: str) -> dict[str, float | None]:
    """Seconds of all its results together, and the most memory that one took."""
    records = [record for key, record in run.records.items() if key.startswith(f"{variant}/")]
    seconds = [fsum(record["timings"].values()) for record in records if record.get("timings")]
    peaks = [record["peak_memory_bytes"] for record in records if record.get("peak_memory_bytes")]
    return {"seconds": sum(seconds) if seconds else None, "peak_memory_bytes": max(peaks, default=None)}
