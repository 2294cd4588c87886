"""Which metric can be trusted, as tables in words."""

from __future__ import annotations

from collections.abc import Sequence

from fatezero_eval.scoring.suite import by_id
from fatezero_eval.tables.grids import heading, shown
from fatezero_eval.tables.notation import Grid
from fatezero_eval.tables.resampling import FEWEST_CLIPS, Interval
from fatezero_eval.tables.statistics import Score
from fatezero_eval.validity.agreement import FEWEST_VERSIONS, Agreement, VersionPreference
from fatezero_eval.validity.findings import HALF, STRONG, WEAK, Finding

HOW_TO_READ = (
    "For each edit, its versions (results of methods, or true edits degraded by known amounts) are put in order by a "
    "metric and by their nearness to the true edit. 1: the same order; 0: no relation; -1: the opposite order. "
    "Spearman's coefficient, also by category, and Kendall's tau-b are averaged over a clip's edits, then over clips, "
    f"with 95 % bootstrap intervals over clips in brackets (none below {FEWEST_CLIPS} clips). Every metric counts so "
    "that more is better. An edit is undefined and left out where a metric is the same for all versions, or has fewer "
    f"than {FEWEST_VERSIONS}."
)
WORDS = (
    f"Strong: Spearman's coefficient is at least {STRONG}; fair: at least {WEAK}; weak: less, but above zero; says "
    "nothing: the interval holds zero; points away: it lies below; too few clips: there is no interval; undefined: no "
    "edit is in order. The numbers depend on which versions were compared."
)
_MISLED = "What misleads them"
NO_TRUE_EDIT = "This cannot be said here: no version is the true edit itself. fatezero degrade makes one."
HOW_TO_READ_PREFERENCES = (
    "Share of edits on which a version scores better than the true edit; in brackets the share on which both score the "
    "same. A metric that is right has 0 % everywhere."
)


def finding_grid(found: Sequence[Finding], distance: str) -> Grid:
    """How each metric agrees with nearness to the true edit."""
    categories = list(dict.fromkeys(name for finding in found for name in finding.agreements if name))
    lines = []
    for finding in found:
        whole = finding.agreements[""]
        own = (finding.agreements.get(name) for name in categories)
        cells = [coefficient(agreement.spearman if agreement else None) for agreement in own]
        counts = [str(whole.clips), str(whole.edits), str(whole.undefined)]
        first = [named(finding), finding.verdict, coefficient(whole.spearman), coefficient(whole.kendall)]
        lines.append([*first, *cells, *counts])
    header = ["metric", "verdict", "Spearman", "Kendall", *categories]
    notes = [HOW_TO_READ, WORDS, f"Nearness is {heading(distance)}."]
    if any(finding.sees_truth for finding in found):
        notes.append("*: compares with the true edit itself, which no benchmark of real clips has.")
    title = "Which metrics follow the true edit"
    return Grid(title, [*header, "clips", "edits", "undefined"], lines, notes, level=2)


def misled_grid(found: Sequence[Finding], preferences: Sequence[VersionPreference]) -> Grid:
    """The versions that metrics take for better than the true edit, or for as good."""
    if not preferences:
        return Grid(_MISLED, notes=[NO_TRUE_EDIT], level=2)
    lines = [
        [named(finding), ", ".join(finding.misled_by) or "-", ", ".join(finding.blind_to) or "-"]
        for finding in found
        if finding.misled_by or finding.blind_to
    ]
    note = f"On more than half of the edits, the whole interval above {HALF:.0%}."
    header = ["metric", "scores these better than the true edit", "scores these as the true edit"]
    return Grid(_MISLED, header if lines else [], lines, [note if lines else f"Nothing. {note}"], level=2)


def preference_grid(
    preferences: Sequence[VersionPreference], order: Sequence[Finding], distances: Sequence[Score]
) -> Grid:
    """Each metric beside each version, the nearest first."""
    seen = {preference.version for preference in preferences}
    versions = [score.variant for score in nearest_first(distances) if score.variant in seen]
    cells = {(p.metric, p.version): p for p in preferences}
    lines = [
        [named(f), *(_share(cells.get((f.metric, version))) for version in versions)]
        for f in order
        if any((f.metric, version) in cells for version in versions)
    ]
    if not lines:
        return Grid("Beside the true edit", notes=[NO_TRUE_EDIT], level=2)
    return Grid("Beside the true edit", ["metric", *versions], lines, [HOW_TO_READ_PREFERENCES], level=2)


def distance_grid(distances: Sequence[Score]) -> Grid:
    """How far each version is from the true edit, the nearest first."""
    (distance,) = {score.metric for score in distances}
    lines = [
        [score.variant, shown(score.interval, distance), str(score.clips), str(score.rows)]
        for score in nearest_first(distances)
    ]
    header = ["version", heading(distance), "clips", "edits"]
    return Grid("How far the versions are from the true edit", header, lines, level=2)


def nearest_first(distances: Sequence[Score]) -> list[Score]:
    """Versions in order of their mean nearness to the true edit."""

    def key(score: Score) -> tuple[bool, float]:
        value = score.interval.value if score.interval else 0.0
        return score.interval is None, -by_id(score.metric).direction * value

    return sorted(distances, key=key)


def among_grid(among: Sequence[Agreement], order: Sequence[Finding]) -> Grid:
    """How metrics agree with one another."""
    metrics = [finding.metric for finding in order]
    cells = {frozenset((a.metric, a.other)): a.spearman for a in among if not a.category}
    lines = [
        [f"{place} {m}", *("" if m == o else coefficient_only(cells.get(frozenset((m, o)))) for o in metrics)]
        for place, m in enumerate(metrics, 1)
    ]
    note = (
        "Spearman's coefficient of the orders in which two metrics put the versions of an edit, averaged as above; "
        "columns in the order of the lines."
    )
    header = ["metric", *map(str, range(1, len(metrics) + 1))]
    return Grid("Metrics beside one another", header, lines, [note], level=2)


def named(finding: Finding) -> str:
    """A metric as its line is headed."""
    arrow = by_id(finding.metric).arrow
    return f"{finding.metric} {arrow}{' *' if finding.sees_truth else ''}"


def coefficient(interval: Interval | None) -> str:
    """A correlation with its interval; a dash where undefined."""
    if interval is None or not interval.known:
        return coefficient_only(interval)
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def coefficient_only(interval: Interval | None) -> str:
    """A correlation; a dash where undefined."""
    return "-" if interval is None else f"{interval.value:.2f}"


def _share(preference: VersionPreference | None) -> str:
    if preference is None:
        return "-"
    equal = f" (={preference.equal.value:.0%})" if preference.equal.value else ""
    return f"{preference.better.value:.0%}{equal}"
