"""The leaderboard as Markdown and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from fatezero_eval.rows import BASELINES
from fatezero_eval.statistics import ARROWS, FEWEST_CLIPS, Difference, Interval, Score, direction

if TYPE_CHECKING:
    from fatezero_eval.leaderboard import Method, Table

HOW_TO_READ = (
    "Values are means over clips (edits and seeds of a clip are averaged first) with 95 % bootstrap intervals over "
    f"clips in brackets; with fewer than {FEWEST_CLIPS} clips there is none, and no rank. A method's rank (#) is one "
    "more than the number of methods that are clearly better: those whose paired difference to it has an interval on "
    "the better side of zero. So methods share a rank where nothing tells them apart. `no edit` is the source handed "
    "in as the edit, `source` the source judged by its own prompt; neither is ranked."
)
HOW_TO_READ_DIFFERENCES = (
    "Differences are variant minus reference on the same edits, averaged like scores, with 95 % bootstrap intervals "
    "over clips. p is the two-sided Wilcoxon signed-rank test over clips; p (Holm) corrects it for the number of "
    "variants compared in that metric, not for the number of metrics. A verdict is given where the interval leaves out "
    "zero."
)
COST = "Seconds a frame count the inversion in full even where variants shared one; memory is the largest of all edits."
_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Leaderboard</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 100rem; padding: 0 1rem; }
body { color: #1c1e21; background: #fff; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0 1.5rem; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
th { cursor: pointer; border-bottom: 2px solid #888; }
tbody tr:hover { background: #f2f5f9; }
p { max-width: 50rem; }
@media (prefers-color-scheme: dark) {
  body { color: #e4e6ea; background: #17191c; }
  th, td { border-color: #3a3d42; }
  th:first-child, td:first-child { background: #17191c; }
  tbody tr:hover { background: #22262b; }
}
</style>
<h1>Leaderboard</h1>
"""
_SORT = """<script>
document.querySelectorAll("th").forEach(th => th.addEventListener("click", () => {
  const column = th.cellIndex, body = th.closest("table").tBodies[0];
  const sign = th.dataset.sign = th.dataset.sign === "1" ? "-1" : "1";
  const number = text => { const value = parseFloat(text); return isNaN(value) ? Infinity : value; };
  body.append(...[...body.rows].sort((a, b) => {
    const [x, y] = [a, b].map(row => row.cells[column].textContent);
    const [m, n] = [number(x), number(y)];
    return m === n ? sign * x.localeCompare(y) : m === Infinity ? 1 : n === Infinity ? -1 : sign * (m - n);
  }));
}));
</script>
</html>
"""


@dataclass(frozen=True)
class Grid:
    """A table of texts under a title, ready for any notation.

    Attributes:
        title: heading; empty for none.
        header: one text for each column.
        lines: cells, line by line; in the first column stand names.
        notes: sentences below the heading.
        level: of the heading, 2 for the largest.
    """

    title: str
    header: Sequence[str] = ()
    lines: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = field(default=())
    level: int = 3


def leaderboard_markdown(tables: Sequence[Table]) -> str:
    """The whole leaderboard."""
    return "# Leaderboard\n\n" + "\n".join(_markdown(grid) for grid in _leaderboard(tables))


def overview_markdown(tables: Sequence[Table]) -> str:
    """One line for each method and no intervals, for a terminal."""
    return "\n".join(_markdown(grid) for grid in _leaderboard(tables, brief=True))


def leaderboard_html(tables: Sequence[Table]) -> str:
    """The whole leaderboard with its differences; nothing is loaded from elsewhere, columns sort on a click."""
    grids = [*_leaderboard(tables), *_differences(tables)]
    return _HEAD + "\n".join(_html(grid) for grid in grids) + _SORT


def differences_markdown(tables: Sequence[Table]) -> str:
    """Paired differences to the reference."""
    return "# Differences\n\n" + "\n".join(_markdown(grid) for grid in _differences(tables))


def shown(interval: Interval | None, metric: str) -> str:
    """Value and interval as tables print them, in the metric's display unit; a dash where undefined."""
    if interval is None:
        return "-"
    factor = _display(metric)
    value = f"{interval.value * factor:.4g}"
    return f"{value} [{interval.low * factor:.4g}, {interval.high * factor:.4g}]" if interval.known else value


def heading(metric: str) -> str:
    """A metric's id with its arrow and the factor that tables show it by."""
    factor = _display(metric)
    return f"{metric} {ARROWS[direction(metric)]}".rstrip() + (f" (x{factor:g})" if factor != 1 else "")


def _display(metric: str) -> float:
    from fatezero_eval.suite import by_id  # noqa: PLC0415  (imports torch)

    return by_id(metric).display


def _leaderboard(tables: Sequence[Table], *, brief: bool = False) -> list[Grid]:
    grids = [] if brief else [Grid("", notes=[HOW_TO_READ], level=2)]
    for number, table in enumerate(tables, start=1):
        reason = [f"Not comparable with table 1: {table.reason}."] if table.reason else []
        if len(tables) > 1:
            grids.append(Grid(f"Table {number}", notes=reason, level=2))
        scores = {(score.metric, score.category, score.variant): score for score in table.scores}
        metrics = list(dict.fromkeys(score.metric for score in table.scores))
        grids.append(_overview(table, metrics, scores))
        if not brief:
            grids += [*(_of_metric(table, metric, scores) for metric in metrics), _provenance(table)]
    return grids


def _overview(table: Table, metrics: Sequence[str], scores: Mapping[tuple[str, str, str], Score]) -> Grid:
    lines = []
    for method in table.methods:
        cells = []
        for metric in metrics:
            score = scores.get((metric, "", method.variant))
            value = score.interval.value * _display(metric) if score and score.interval else None
            cells.append("-" if value is None else f"{value:.4g}{_rank(table, method.variant, metric)}")
        lines.append([_named(method.variant, table), *cells, *_cost(method)])
    header = ["method", *map(heading, metrics), "s/frame", "peak memory", "stored"]
    return Grid("All edits", header, lines, [*_coverage(table), COST])


def _of_metric(table: Table, metric: str, scores: Mapping[tuple[str, str, str], Score]) -> Grid:
    """One metric with its intervals, overall and by category, the best first."""
    categories = list(dict.fromkeys(score.category for score in table.scores if score.metric == metric))
    lines = []
    for score in sorted((s for s in scores.values() if s.metric == metric and not s.category), key=_best_first(table)):
        cells = []
        for category in categories:
            own = scores.get((metric, category, score.variant))
            rank = _rank(table, score.variant, metric, category)
            cells.append(f"{shown(own.interval, metric)}{rank}" if own else "-")
        counts = [str(score.clips), str(score.rows), str(score.undefined)]
        lines.append([_named(score.variant, table), *cells, *counts])
    header = ["method", *(category or "all" for category in categories), "clips", "rows", "undefined"]
    return Grid(heading(metric), header, lines)


def _best_first(table: Table) -> Callable[[Score], tuple[bool, int, bool, float]]:
    def key(score: Score) -> tuple[bool, int, bool, float]:
        value = score.interval.value if score.interval else 0.0
        rank = table.ranks.get((score.variant, score.metric, ""), len(table.methods))
        return score.variant in BASELINES, rank, score.interval is None, -direction(score.metric) * value

    return key


def _rank(table: Table, variant: str, metric: str, category: str = "") -> str:
    rank = table.ranks.get((variant, metric, category))
    return f" #{rank}" if rank else ""


def _named(variant: str, table: Table) -> str:
    return f"{variant} (reference)" if variant == table.reference else variant


def _coverage(table: Table) -> list[str]:
    notes = [
        f"{m.variant}: {m.edits} of {table.edits} edits; its means are over those, its ranks over those shared."
        for m in table.methods
        if m.edits < table.edits
    ]
    return [*notes, *(f"{m.variant}: {note}." for m in table.methods for note in m.notes)]


def _cost(method: Method) -> list[str]:
    cost = method.cost
    seconds = "-" if cost.seconds_per_frame is None else f"{cost.seconds_per_frame:.3g}"
    return [seconds, *("-" if b is None else f"{b / 1e6:.4g} MB" for b in (cost.peak_memory_bytes, cost.stored_bytes))]


def _provenance(table: Table) -> Grid:
    made = table.provenance
    manifest = f"{made.manifest} ({made.manifest_digest[:8]})" if made.manifest else "no manifest"
    models = ", ".join(f"{role} {name}" for role, name in made.models.items())
    versions = ", ".join(f"{name} {number}" for name, number in made.versions.items())
    notes = [
        f"Scored against {manifest}, {table.edits} edits, {made.edit_mask} edit mask, on {made.device} with {models}.",
        f"Versions of the evaluation: {versions}.",
    ]
    lines = [
        [
            m.variant,
            m.run,
            str(m.edits),
            *(_several(v) for v in (m.configurations, m.checkpoints, m.devices, m.versions)),
        ]
        for m in table.methods
        if m.run
    ]
    header = ["method", "run", "edits", "configuration", "checkpoint", "device", "versions"]
    return Grid("Provenance", header, lines, notes)


def _several(values: Sequence[str]) -> str:
    few = 3
    return "; ".join(values[:few]) + (f"; … ({len(values)} in all)" if len(values) > few else "") or "-"


def _differences(tables: Sequence[Table]) -> list[Grid]:
    grids = []
    for number, table in enumerate(tables, start=1):
        if table.reference is None:
            continue
        title = f"Differences to {table.reference}" + (f", table {number}" if len(tables) > 1 else "")
        grids.append(Grid(title, notes=[HOW_TO_READ_DIFFERENCES], level=2))
        corrected = dict(zip(table.differences, table.corrected, strict=True))
        metrics = dict.fromkeys(difference.metric for difference in table.differences)
        grids += [_differences_of(metric, corrected) for metric in metrics]
    return grids


def _differences_of(metric: str, corrected: Mapping[Difference, float | None]) -> Grid:
    found = {(d.variant, d.category): d for d in corrected if d.metric == metric}
    categories = sorted({category for _, category in found} - {""})
    lines = []
    for variant in dict.fromkeys(variant for variant, _ in found):
        whole = found[variant, ""]
        verdict, p_values = _verdict(whole), [_p_value(whole.p_value), _p_value(corrected[whole])]
        by_category = [found.get((variant, category)) for category in categories]
        cells = [shown(d.interval, metric) if d else "-" for d in by_category]
        counts = [str(whole.clips), str(whole.undefined)]
        lines.append([variant, verdict, shown(whole.interval, metric), *p_values, *cells, *counts])
    header = ["variant", "verdict", "all", "p", "p (Holm)", *categories, "clips", "undefined"]
    return Grid(heading(metric), header, lines)


def _verdict(difference: Difference) -> str:
    interval, sign = difference.interval, direction(difference.metric)
    if interval is None:
        return "undefined"
    if not interval.known:
        return "too few clips"
    if interval.low <= 0 <= interval.high:
        return "not told apart"
    if sign == 0:
        return "higher" if interval.low > 0 else "lower"
    return "better" if interval.low * sign > 0 else "worse"


def _p_value(p_value: float | None) -> str:
    return "-" if p_value is None else "<0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def _markdown(grid: Grid) -> str:
    parts = [f"{'#' * grid.level} {_plain(grid.title)}\n"] if grid.title else []
    parts += [f"{_plain(note)}\n" for note in grid.notes]
    if grid.header:
        rule = "|---|" + "---:|" * (len(grid.header) - 1)
        parts.append("\n".join([_line(grid.header), rule, *map(_line, grid.lines)]) + "\n")
    return "\n".join(parts)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Names come from users: nothing in them may end a cell or begin HTML."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _html(grid: Grid) -> str:
    parts = [f"<h{grid.level}>{escape(grid.title)}</h{grid.level}>"] if grid.title else []
    parts += [f"<p>{escape(note)}</p>" for note in grid.notes]
    if grid.header:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in grid.header)
        body = "\n".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in line)}</tr>" for line in grid.lines)
        parts.append(f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>')
    return "\n".join(parts)
