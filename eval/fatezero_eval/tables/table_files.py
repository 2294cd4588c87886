"""What tables are written as for programs: JSON, and CSV that no spreadsheet computes."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any

from fatezero.system.publishing import replace_text, replacing
from fatezero_eval.scoring.rows import as_cell
from fatezero_eval.tables.resampling import Interval


def ends(interval: Interval | None) -> dict[str, float | None]:
    """Value, low and high; what is not known is None."""
    known = interval or Interval(nan, nan, nan)
    values = {"value": known.value, "low": known.low, "high": known.high}
    return {name: value if isfinite(value) else None for name, value in values.items()}


def write_json(path: Path, values: Any) -> None:
    """Write plain values, whole or not at all."""
    replace_text(path, json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write flat records of the same fields as CSV, whole or not at all."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows({name: as_cell(value) for name, value in record.items()} for record in records)
