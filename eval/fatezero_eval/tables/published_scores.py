"""Scores that others published, edit by edit, to stand beside scores of our own."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fatezero.data.files import read_text
from fatezero.errors import UserError
from fatezero.system.terminal import printable, quoted
from fatezero_eval.options import RESERVED_METHODS
from fatezero_eval.scoring.rows import PUBLISHED, Row

MARK = "(published)"
NOTE = "scored by others, who alone know with which judge and on which frames; so it has no rank and no difference"
_NEEDED = ("edit", "metric", "value")
_KNOWN = (*_NEEDED, "method", "seed", "model", "category", "clip")
# By what tables with a column for each metric name an edit, and which of their columns hold no scores.
_IDS = ("edit", "file_id", "id", "video_id", "video_name")
_NO_SCORES = (*_IDS, "method", "seed", "model", "clip", "category", "subcategory", "type", "frame_count")
_ERROR = "_error"  # ends IVEBench's columns that say why there is no score
# Begins a name of FiVE-Bench's tables: that of the list whose positions they go by.
_FIVE = re.compile(r"(edit\d+_FiVE)_")
_LONGEST = 200  # characters of a name


def is_published(path: Path) -> bool:
    """Whether a path names a table of published scores rather than a run."""
    return path.suffix.lower() == ".csv"


def read_published(path: Path) -> list[Row]:
    """A csv with the columns edit, metric and value, and perhaps method, seed, model, category and clip.

    Or one with a line for each edit and a column for each metric, `metric` or `method|metric`, as PnPInversion,
    FiVE-Bench, EditVerseBench and IVEBench write them.

    A metric is one of this suite where it carries the suite's id, as `psnr/outside@1`: whoever writes that vouches for
    the formula. Any other is a column of its own, `name@published`. A method without a name is called as the file.

    Returns:
        One row for each score, in order; clip and category are empty unless stated.

    Raises:
        UserError: naming file and line: the file is no such table, a value is no number, or a score stands there twice.
    """
    try:
        table = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
        columns = [name.strip() for name in table.fieldnames or ()]
        _check_columns(path, columns)
        table.fieldnames = columns
        rows = [
            _row(f"{path}, line {table.line_num}", path, score)
            for line in table
            for score in _scores(path, _said(f"{path}, line {table.line_num}", line))
        ]
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not readable as a table of scores ({error}); write it as csv.") from None
    if not rows:
        raise UserError(f"{path}: it holds no scores; add a line for each edit and metric.")
    return rows


def read_all_published(paths: Iterable[Path]) -> list[Row]:
    """The scores of all files; one method's may be spread over several.

    Raises:
        UserError: as `read_published`; or a score stands there twice.
    """
    found: dict[tuple[object, ...], Path] = {}
    rows = []
    for path in paths:
        for row in read_published(path):
            key = (row.variant, row.metric, row.edit, row.seed)
            if key in found:
                where = str(path) if found[key] == path else f"{found[key]} and {path}"
                raise UserError(
                    f"{where}: {row.variant} has two scores of {row.metric} for edit {quoted(row.edit)}; keep one, or "
                    "call the methods differently."
                )
            found[key] = path
            rows.append(row)
    return rows


def beside(own: Iterable[Row], published: Sequence[Row]) -> list[Row]:
    """The published rows of a table's edits, with the clip and the category that they have in the table."""
    known: Mapping[str, Row] = {row.edit: row for row in own}
    return [
        replace(row, clip=known[row.edit].clip, category=known[row.edit].category)
        for row in published
        if row.edit in known
    ]


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    beside = _is_wide(columns) and any(name in columns for name in _IDS)
    missing = [] if beside else [name for name in _NEEDED if name not in columns]
    if missing:
        raise UserError(
            f"{path}, line 1: there is no column {missing[0]!r}; a table of scores has edit, metric and value, parted "
            f"by commas, or one of {', '.join(_IDS)} and a column for each metric."
        )
    unknown = [name for name in columns if name not in _KNOWN and not beside]
    if unknown or len({*columns}) < len(columns):
        odd = unknown[0] if unknown else next(name for name in columns if columns.count(name) > 1)
        raise UserError(f"{path}, line 1: the column {quoted(odd)} is unknown or stands there twice; take it out.")


def _is_wide(columns: Iterable[str]) -> bool:
    """Whether a table has a column for each metric."""
    return not {"metric", "value"} & {*columns}


def _said(where: str, cells: Mapping[str, str | None]) -> dict[str, str]:
    if None in cells or None in cells.values():
        raise UserError(f"{where}: not as many cells as the header has; quote cells with commas.")
    return {name: (cell or "").strip() for name, cell in cells.items()}


def _scores(path: Path, said: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """The scores of a line, each as the columns edit, metric and value state it."""
    if not _is_wide(said):
        yield said
        return
    by = next(name for name in _IDS if name in said)
    of_list = _FIVE.match(path.stem) if by == "file_id" else None
    edit = f"{of_list[1]}.{said[by]}" if of_list else said[by]
    for column, value in said.items():
        if column in ("", *_NO_SCORES) or column.endswith(_ERROR):
            continue
        method, _, metric = column.rpartition("|")
        failed = said.get(metric.removesuffix("_score") + _ERROR)  # and the value is no score, but IVEBench's -1
        about = {name: said[name] for name in ("method", "seed", "model") if name in said}
        yield about | {
            "edit": edit,
            "metric": metric,
            "value": "" if failed else value,
            "method": method or about.get("method", ""),
        }


def _row(where: str, path: Path, said: Mapping[str, str]) -> Row:
    for name, text in said.items():
        if len(text) > _LONGEST * (5 if name == "edit" else 1) or (name in {"edit", "metric"} and not text):
            raise UserError(f"{where}, field {name!r}: {quoted(text)} is empty or too long; write a name.")
    method = said.get("method") or path.stem
    if method.casefold() in RESERVED_METHODS:
        raise UserError(
            f"{where}, field 'method': tables have other rows called {quoted(method)}; choose another name."
        )
    value = _number(where, "value", said["value"])
    return Row(
        clip="",
        edit=said["edit"],
        category="",
        variant=f"{method} {MARK}",
        seed=_seed(where, said.get("seed", "")),
        metric=_metric(said["metric"]),
        value=value,
        defined=int(value is not None),
        undefined=int(value is None),
        reason="" if value is not None else "published as undefined",
        model=said.get("model", ""),
        notes=NOTE,
    )


def _number(where: str, name: str, text: str) -> float | None:
    """A finite number; None where nothing, or NaN, was published."""
    try:
        number = float(text) if text else math.nan
    except ValueError:
        raise UserError(f"{where}, field {name!r}: {quoted(text)} is not a number; write it as 12.5.") from None
    if math.isinf(number) or abs(number) >= 2**100:
        raise UserError(f"{where}, field {name!r}: {quoted(text)} is too large.")
    return None if math.isnan(number) else number


def _seed(where: str, text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and int(text) < 2**63):
        raise UserError(f"{where}, field 'seed': {quoted(text)} is not a whole number from 0.")
    return int(text)


def _metric(text: str) -> str:
    """The suite's id, if it is one; otherwise a metric of others."""
    from fatezero_eval.scoring.suite import METRICS  # noqa: PLC0415  (imports torch)

    return text if text in {metric.id for metric in METRICS} else f"{printable(text)}{PUBLISHED}"
