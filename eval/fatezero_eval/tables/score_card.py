"""The few scores that a person wants at once, as a table that fits a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from fatezero_eval.scoring.metric import Metric
from fatezero_eval.scoring.rows import BASELINES, Row
from fatezero_eval.scoring.suite import by_id
from fatezero_eval.tables.resampling import mean
from fatezero_eval.tables.statistics import clip_means

COLUMNS = 79
LONGEST_NAME = 24
FIRST = ("psnr/truth", "text_alignment", "psnr/outside", "warp_error", "mask_iou", "frame_consistency")


def score_card(rows: Sequence[Row], columns: int = COLUMNS) -> str:
    """Means over clips, a line for each method and as many metrics as fit: those of FIRST, then the others.

    Args:
        rows: of an evaluation.
        columns: of the terminal.

    Returns:
        The table, with how many metrics are left out; empty where nothing has a score.
    """
    metrics = sorted({by_id(row.metric) for row in rows if row.value is not None}, key=_place)
    methods = sorted(dict.fromkeys(row.variant for row in rows), key=lambda name: name in BASELINES)
    names = ["", "", *(name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in methods)]
    table = [names]
    for metric in metrics:
        table.append([metric.name, _unit(metric), *(_mean(rows, method, metric) for method in methods)])
        if sum(map(_width, table)) + 2 * (len(table) - 1) > columns:
            table.pop()
            break
    if len(table) == 1:
        return ""
    left_out = len(metrics) - (len(table) - 1)
    lines = ["  ".join(_cells(table, line)).rstrip() for line in range(len(names))]
    return "\n".join([*lines, *([f"({left_out} more metrics are in the table)"] if left_out else [])])


def _place(metric: Metric) -> tuple[int, str]:
    return FIRST.index(metric.name) if metric.name in FIRST else len(FIRST), metric.name


def _unit(metric: Metric) -> str:
    """Which way is better, and the factor that the numbers are shown by."""
    return f"{metric.arrow} x{metric.display:g}".strip() if metric.display != 1 else metric.arrow


def _mean(rows: Sequence[Row], method: str, metric: Metric) -> str:
    clips = clip_means(row for row in rows if (row.variant, row.metric) == (method, metric.id))
    return f"{mean([*clips.values()]) * metric.display:.4g}" if clips else "-"


def _width(column: Sequence[str]) -> int:
    return max(map(len, column))


def _cells(table: Sequence[Sequence[str]], line: int) -> list[str]:
    names, *numbers = table
    return [names[line].ljust(_width(names)), *(column[line].rjust(_width(column)) for column in numbers)]
