"""Rows: one for each clip, edit, variant, seed and metric; and the files they are kept in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fatezero.data.files import parse_json, read_text
from fatezero.data.layout import ROWS
from fatezero.errors import UserError
from fatezero.system.publishing import replace_text, replacing
from fatezero.system.terminal import quoted

BASELINES = ("source", "no edit")
"""What stands beside every method: the source judged by its own prompt, and the source handed in as the edit."""
PUBLISHED = "@published"
"""Ends the id of a metric that others computed by a formula of their own."""
MAX_BYTES = 2**30  # of a file of rows; a row has about 300
_COUNTS = ("seed", "defined", "undefined")
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet computes rather than shows


@dataclass(frozen=True, kw_only=True)
class Row:
    """One score.

    Attributes:
        clip: the source clip.
        edit: the request's id.
        category: style, attribute, object, shape, background or the benchmark's own word.
        variant: the method, or `source` or `no edit`.
        seed: the request's seed.
        metric: id with version.
        value: None where undefined.
        defined: how many values (of frames or pairs) it averages.
        undefined: how many of them were left out.
        reason: why the value is None.
        model: the encoder, estimator or network behind it.
        notes: what was done to the edited frames before scoring.
    """

    clip: str
    edit: str
    category: str
    variant: str
    seed: int
    metric: str
    value: float | None
    defined: int
    undefined: int
    reason: str
    model: str
    notes: str = ""


def write_rows(folder: Path, rows: Sequence[Row]) -> tuple[Path, Path]:
    """Write `rows.jsonl`, `rows.parquet` and `rows.csv`, each whole or not at all.

    Returns:
        Paths of the JSON lines and of the Parquet table.
    """
    import pandas as pd  # noqa: PLC0415

    lines = folder / ROWS
    parquet, csv = lines.with_suffix(".parquet"), lines.with_suffix(".csv")
    replace_text(lines, "".join(f"{to_json(row)}\n" for row in rows))
    table = pd.DataFrame([vars(row) for row in rows], columns=[field.name for field in fields(Row)])
    table["value"] = table["value"].astype("float64")
    with replacing(parquet) as partial:
        table.to_parquet(partial, index=False)
    with replacing(csv) as partial:
        table.map(as_cell).to_csv(partial, index=False)
    return lines, parquet


def as_cell(value: Any) -> Any:
    """A value of a CSV file: a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def read_rows(path: Path) -> list[Row]:
    """Read `rows.jsonl`.

    Raises:
        UserError: the file is missing, or a line is not a row.
    """
    try:
        text = read_text(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no rows to read ({error}); run fatezero evaluate first.") from error
    rows = []
    for number, line in enumerate(lines_of(text), start=1):
        try:
            rows.append(from_json(line))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}, line {number}: not a row ({error}); run fatezero evaluate again.") from error
    return rows


def lines_of(text: str) -> list[str]:
    """The lines of a file of rows: texts in it may hold other characters that end lines elsewhere."""
    return text.removesuffix("\n").split("\n") if text else []


def to_json(row: Row) -> str:
    """The row as one line of JSON; floats keep every bit."""
    return json.dumps(vars(row), ensure_ascii=False, allow_nan=False)


def from_json(line: str) -> Row:
    """The row that `to_json` wrote.

    Raises:
        ValueError: not JSON, or values of other types.
        TypeError: other fields than a row's.
    """
    values: dict[str, Any] = parse_json(line)
    row = Row(**values)
    for field in fields(Row):
        value = getattr(row, field.name)
        if not _fits(field.name, value):
            raise ValueError(f"{field.name} is {quoted(value)}")
    return row


def _fits(name: str, value: Any) -> bool:
    if name == "value":
        return value is None or (type(value) in (int, float) and abs(value) < 2**100)
    if name in _COUNTS:
        return type(value) is int and 0 <= value < 2**63
    return isinstance(value, str)
