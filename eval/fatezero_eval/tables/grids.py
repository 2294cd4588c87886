"""What stands in each table of a leaderboard, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from fatezero_eval.scoring.rows import BASELINES
from fatezero_eval.tables.joining import Method, Table
from fatezero_eval.tables.notation import Grid, html_page, markdown
from fatezero_eval.tables.resampling import FEWEST_CLIPS, Interval
from fatezero_eval.tables.statistics import Difference, Score

if TYPE_CHECKING:
    from fatezero_eval.scoring.metric import Metric

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


def leaderboard_markdown(tables: Sequence[Table], problems: Sequence[str] = ()) -> str:
    """The whole leaderboard, with a sentence for each thing that it leaves out."""
    return "# Leaderboard\n\n" + "\n".join(markdown(grid) for grid in [*_leaderboard(tables), *_left_out(problems)])


def overview_markdown(tables: Sequence[Table]) -> str:
    """One line for each method and no intervals, for a terminal."""
    return "\n".join(markdown(grid) for grid in _leaderboard(tables, brief=True))


def leaderboard_html(tables: Sequence[Table], problems: Sequence[str] = ()) -> str:
    """The same with its differences; nothing is loaded from elsewhere, columns sort on a click."""
    return html_page([*_leaderboard(tables), *_differences(tables), *_left_out(problems)])


def differences_markdown(tables: Sequence[Table]) -> str:
    """Paired differences to the reference."""
    return "# Differences\n\n" + "\n".join(markdown(grid) for grid in _differences(tables))


def shown(interval: Interval | None, metric: str) -> str:
    """Value and interval as tables print them, in the metric's display unit; a dash where undefined."""
    if interval is None:
        return "-"
    factor = _known(metric).display
    value = f"{interval.value * factor:.4g}"
    return f"{value} [{interval.low * factor:.4g}, {interval.high * factor:.4g}]" if interval.known else value


def heading(metric: str) -> str:
    """A metric's id with its arrow and the factor that tables show it by."""
    known = _known(metric)
    return f"{metric} {known.arrow}".rstrip() + (f" (x{known.display:g})" if known.display != 1 else "")


def _known(metric: str) -> Metric:
    from fatezero_eval.scoring.suite import by_id  # noqa: PLC0415  (imports torch)

    return by_id(metric)


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


def _left_out(problems: Sequence[str]) -> list[Grid]:
    return [Grid("Left out", notes=problems, level=2)] if problems else []


def _overview(table: Table, metrics: Sequence[str], scores: Mapping[tuple[str, str, str], Score]) -> Grid:
    lines = []
    for method in table.methods:
        cells = []
        for metric in metrics:
            score = scores.get((metric, "", method.variant))
            value = score.interval.value * _known(metric).display if score and score.interval else None
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
        return score.variant in BASELINES, rank, score.interval is None, -_known(score.metric).direction * value

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
    interval, sign = difference.interval, _known(difference.metric).direction
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
