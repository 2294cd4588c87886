"""Which metric can be trusted: from scored runs to `trust.*` and `preferences.csv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fatezero.errors import UserError
from fatezero.system.publishing import replace_text
from fatezero.system.terminal import quoted
from fatezero_eval.file_names import PREFERENCES, TRUST
from fatezero_eval.scoring import provenance
from fatezero_eval.scoring.rows import BASELINES, Row
from fatezero_eval.scoring.suite import choose
from fatezero_eval.tables.joining import joined_rows
from fatezero_eval.tables.notation import markdown
from fatezero_eval.tables.scored_runs import ScoredRun, named_apart, read_scored_run
from fatezero_eval.tables.statistics import Score, scores
from fatezero_eval.tables.table_files import ends, write_json, write_records
from fatezero_eval.validity import trust_grids
from fatezero_eval.validity.agreement import (
    FEWEST_VERSIONS,
    Agreement,
    Edit,
    VersionPreference,
    Versions,
    agreements,
    goodness,
    pairs_of,
    preferences,
)
from fatezero_eval.validity.findings import Finding, findings
from fatezero_eval.validity.forest_plot import forest_plot

DISTANCES = {"mse/truth": 0.0, "lpips/truth": 0.0, "ssim/truth": 1.0, "psnr/truth": 100.0}
"""Metrics that say how near an edit is to the true one, with what they say of the true edit itself."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What is found of metrics; as a text, in short.

    Attributes:
        distance: id of the metric that says how near a version is to the true edit.
        distances: mean nearness of each version.
        agreements: of every other metric with it, over all edits and by category.
        among: of these metrics with one another.
        preferences: of these metrics between versions and the true edit.
        findings: what follows, the best metric first.
        problems: a sentence for each thing that is left out, as it cannot be read.
    """

    distance: str
    distances: tuple[Score, ...]
    agreements: tuple[Agreement, ...]
    among: tuple[Agreement, ...]
    preferences: tuple[VersionPreference, ...]
    findings: tuple[Finding, ...]
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = trust_grids.finding_grid(self.findings, self.distance)
        return "\n".join(map(markdown, (found, trust_grids.misled_grid(self.findings, self.preferences))))


def write_trust(runs: Sequence[Path], out: Path, distance: str = "mse/truth") -> Trust:
    """Compare metrics with nearness to the true edit; write `trust.{md,csv,json,svg}` and `preferences.csv`.

    Args:
        runs: run folders that were evaluated with a manifest that knows the true edits; all methods, or degrees of
            degradation, are versions of their edits.
        out: folder to write to.
        distance: one of `DISTANCES`.

    Raises:
        UserError: a run that cannot be read, or was scored otherwise than the first; no true edit is known.
    """
    if distance not in DISTANCES:
        raise UserError(f"{quoted(distance)} is no distance to the true edit; choose one of {', '.join(DISTANCES)}.")
    loaded = named_apart([read_scored_run(run) for run in runs])
    _check_alike(loaded)
    problems = tuple(problem for run in loaded for problem in run.problems)
    found = trust_of(joined_rows(loaded), distance, problems)
    replace_text(out / f"{TRUST}.md", _markdown(found))
    replace_text(out / f"{TRUST}.svg", forest_plot(found.findings, found.distance))
    write_json(out / f"{TRUST}.json", _as_json(found))
    write_records(out / f"{TRUST}.csv", [_flat_agreement(a) for a in (*found.agreements, *found.among)])
    write_records(out / f"{PREFERENCES}.csv", [_flat_preference(p) for p in found.preferences])
    return found


def trust_of(rows: Sequence[Row], distance: str, problems: tuple[str, ...] = ()) -> Trust:
    """What rows say of metrics.

    Args:
        rows: scores of several versions of the same edits.
        distance: one of `DISTANCES`.
        problems: what is left out.

    Raises:
        UserError: no row has the distance, there is no other metric, or no edit has versions to put in order.
    """
    (metric,) = choose((distance,))
    known = goodness(rows)
    others = [name for name in known if name != metric.id]
    _check_comparable(known.get(metric.id, {}), metric.name, others)
    categories = {(row.clip, row.edit): row.category for row in rows}
    with_distance = agreements(known, [(other, metric.id) for other in others], categories)
    preferred = preferences(known, metric.id, metric.direction * DISTANCES[distance])
    near = [row for row in rows if row.metric == metric.id and row.variant != BASELINES[0]]
    return Trust(
        distance=metric.id,
        distances=tuple(score for score in scores(near) if not score.category),
        agreements=tuple(with_distance),
        among=tuple(agreements(known, pairs_of(others), dict.fromkeys(categories, ""))),
        preferences=tuple(preferred),
        findings=tuple(findings(with_distance, preferred)),
        problems=problems,
    )


def _check_comparable(near: Mapping[Edit, Versions], distance: str, others: Sequence[str]) -> None:
    if not near:
        raise UserError(
            f"no edit has a {distance}: run fatezero evaluate with --manifest that states the true edits, and with "
            f"{distance} among its --metrics."
        )
    if not others:
        raise UserError(f"nothing but {distance} is scored: run fatezero evaluate with further --metrics.")
    most = max(map(len, near.values()))
    if most < FEWEST_VERSIONS:
        raise UserError(
            f"no edit has more than {most} versions, and an order takes {FEWEST_VERSIONS}: name further runs, or one "
            "of fatezero degrade."
        )


def _check_alike(runs: Sequence[ScoredRun]) -> None:
    for run in runs[1:]:
        reason = provenance.difference(runs[0].provenance, run.provenance)
        if reason:
            raise UserError(f"{run.path} cannot be counted with {runs[0].path}: {reason}; name runs scored alike.")


def _markdown(found: Trust) -> str:
    grids = [
        trust_grids.finding_grid(found.findings, found.distance),
        trust_grids.misled_grid(found.findings, found.preferences),
        trust_grids.preference_grid(found.preferences, found.findings, found.distances),
        trust_grids.distance_grid(found.distances),
        trust_grids.among_grid(found.among, found.findings),
    ]
    left_out = "".join(f"\nLeft out: {problem}\n" for problem in found.problems)
    return (
        f"# Trust\n\n![Spearman's coefficient of every metric]({TRUST}.svg)\n\n"
        + "\n".join(map(markdown, grids))
        + left_out
    )


def _as_json(found: Trust) -> dict[str, Any]:
    return {
        "distance": found.distance,
        "versions": [
            {"version": s.variant, **ends(s.interval), "clips": s.clips, "edits": s.rows} for s in found.distances
        ],
        "metrics": [
            {"metric": f.metric, "verdict": f.verdict, "sees_truth": f.sees_truth}
            | {"misled_by": list(f.misled_by), "blind_to": list(f.blind_to)}
            for f in found.findings
        ],
        "with_distance": [_flat_agreement(agreement) for agreement in found.agreements],
        "among": [_flat_agreement(agreement) for agreement in found.among],
        "preferences": [_flat_preference(preference) for preference in found.preferences],
    }


def _flat_agreement(found: Agreement) -> dict[str, Any]:
    values = {name: value for name, value in asdict(found).items() if name not in ("spearman", "kendall")}
    return values | _spread("spearman", found.spearman) | _spread("kendall", found.kendall)


def _flat_preference(found: VersionPreference) -> dict[str, Any]:
    values = {"metric": found.metric, "version": found.version, "clips": found.clips, "edits": found.edits}
    return values | _spread("better", found.better) | _spread("equal", found.equal)


def _spread(name: str, interval: Any) -> dict[str, float | None]:
    known = ends(interval)
    return {name: known["value"], f"{name}_low": known["low"], f"{name}_high": known["high"]}
