"""Weighted scores as `weighted.{md,csv,json}`, and a picture of three metrics or more as `weighted.svg`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fatezero.system.publishing import replace_text
from fatezero_eval.file_names import WEIGHTED
from fatezero_eval.tables.notation import markdown
from fatezero_eval.tables.radar import FEWEST_SPOKES, radar
from fatezero_eval.tables.table_files import write_json, write_records
from fatezero_eval.tables.weighing import Weighing
from fatezero_eval.tables.weighing_grids import weighing_grids


def write_weighings(weighings: Sequence[Weighing], out: Path) -> None:
    """Write them all; without any, take away an earlier leaderboard's, which would no longer fit."""
    if not weighings:
        for suffix in ("md", "csv", "json", "svg"):
            (out / f"{WEIGHTED}.{suffix}").unlink(missing_ok=True)
        return
    text = "\n".join(map(markdown, weighing_grids(weighings)))
    drawn = len(weighings[0].weights) >= FEWEST_SPOKES
    picture = f"![Every method]({WEIGHTED}.svg)\n\n" if drawn else ""
    replace_text(out / f"{WEIGHTED}.md", f"# Weighted scores\n\n{picture}{text}")
    if drawn:
        replace_text(out / f"{WEIGHTED}.svg", radar(weighings))
    else:
        (out / f"{WEIGHTED}.svg").unlink(missing_ok=True)
    write_json(out / f"{WEIGHTED}.json", [asdict(weighing) for weighing in weighings])
    write_records(
        out / f"{WEIGHTED}.csv", [r for i, weighing in enumerate(weighings, 1) for r in _records(i, weighing)]
    )


def _records(number: int, weighing: Weighing) -> list[dict[str, Any]]:
    """One flat record for each method, category and metric; the metric "" is the weighted score itself."""
    shares = {"": 1.0, **{weighted.metric: weighted.share for weighted in weighing.weights}}
    return [
        {"table": number, "variant": score.variant, "category": score.category, "metric": metric}
        | {"weight": shares[metric], "value": value}
        for score in weighing.scores
        for metric, value in {"": score.total, **score.parts}.items()
    ]
