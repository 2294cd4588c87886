"""Writes what a study found: `votes.md`, `.html`, `.json` and `.csv`."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from math import exp, isfinite
from pathlib import Path
from typing import Any

from fatezero.system.publishing import replace_text, replacing
from fatezero_eval.file_names import VOTES
from fatezero_eval.people.automatic import FEWEST_METHODS
from fatezero_eval.people.draws import RESAMPLES
from fatezero_eval.people.polls import Findings, Poll
from fatezero_eval.people.preferences import GHOST, Preference
from fatezero_eval.scoring.rows import as_cell
from fatezero_eval.tables.notation import Grid, html_page, markdown
from fatezero_eval.tables.resampling import FEWEST_CLIPS, Interval

TITLE = "What people prefer"
HOW_TO_READ = (
    "Score is the method's Bradley-Terry strength: log odds of being preferred to a method of average strength. A tie "
    f"is half a win for each; {GHOST:g} wins and losses against a method of average strength are added to each, so "
    "that scores stay finite. Win rate is the share of a method's votes that it won. Brackets hold 95 % intervals "
    f"of {RESAMPLES} draws of clips and, apart from them, raters; with fewer than {FEWEST_CLIPS} clips there are none. "
    "A method's rank (#) is one more than the number of methods that are clearly better: whose difference in score has "
    "an interval above zero."
)
HOW_TO_READ_METRICS = (
    "Agreement is the share of pairs of videos on which the metric prefers what most raters prefer, mean over clips; "
    "0.5 is chance. Correlation is Spearman's, of the methods' scores with their means, better counted as higher; it "
    f"needs {FEWEST_METHODS} methods, and means little with few."
)
HOW_TO_READ_RATERS = (
    "Left is the share of a rater's choices that fell on the left video; far from 0.5 it tells of a habit."
)


def write_votes(findings: Findings, out: Path) -> list[Path]:
    """Write all files; names that raters chose cannot act in any of them.

    Returns:
        The files: tables as Markdown and HTML, the numbers as JSON, and every vote that counts as CSV.
    """
    base = out / VOTES
    paths = [base.with_suffix(suffix) for suffix in (".md", ".html", ".json", ".csv")]
    grids = [
        Grid("", notes=[HOW_TO_READ], level=2),
        *(grid for poll in findings.polls for grid in _poll(poll)),
        _raters(findings),
    ]
    left_out = [*findings.problems, *findings.notes]
    if left_out:
        grids.append(Grid("Left out", notes=left_out, level=2))
    replace_text(paths[0], f"# {TITLE}\n\n" + "\n".join(map(markdown, grids)))
    replace_text(paths[1], html_page(grids, TITLE))
    replace_text(paths[2], json.dumps(_numbers(findings), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _write_csv(paths[3], findings)
    return paths


def overview(findings: Findings) -> str:
    """The scores alone, for a terminal."""
    return "\n".join(markdown(_scores(poll, brief=True)) for poll in findings.polls)


def _poll(poll: Poll) -> list[Grid]:
    grids = [_scores(poll), _pairs(poll)]
    if poll.accordances:
        grids.append(_metrics(poll))
    return grids


def _scores(poll: Poll, *, brief: bool = False) -> Grid:
    lines = []
    for one in poll.preferences:
        rank = f" #{one.rank}" if one.rank else ""
        own = {name: next(p for p in found if p.method == one.method) for name, found in poll.by_category.items()}
        categories = [] if brief else [_rate(found) for found in own.values()]
        counts = [str(one.wins), str(one.ties), str(one.losses)]
        lines.append([one.method, f"{_shown(one.strength)}{rank}", _rate(one), *categories, *counts])
    names = [] if brief else [f"win rate, {name}" for name in poll.by_category]
    alpha = "not defined" if poll.alpha is None else _shown(poll.alpha)
    said = (
        f"{len(poll.votes)} votes of {poll.raters} raters on {poll.clips} clips. Krippendorff's alpha is "
        f"{alpha}, over {poll.shared} pairs of videos that several raters answered."
    )
    header = ["method", "score", "win rate", *names, "wins", "ties", "losses"]
    return Grid(f"{poll.question}: {poll.text}", header, lines, [said], level=2)


def _pairs(poll: Poll) -> Grid:
    """How often the line's method was preferred to the column's."""
    methods = [one.method for one in poll.preferences]
    lines = []
    for row, method in enumerate(methods):
        met = [poll.wins[row, column] + poll.wins[column, row] for column in range(len(methods))]
        cells = [f"{wins / n:.2f} ({n:g})" if n else "-" for wins, n in zip(poll.wins[row], met, strict=True)]
        lines.append([method, *cells])
    note = "Share of votes that the line's method won against the column's, and their number."
    return Grid("Against one another", ["method", *methods], lines, [note])


def _metrics(poll: Poll) -> Grid:
    lines = []
    for one in sorted(poll.accordances, key=lambda one: -(one.agreement.value if one.agreement else -1.0)):
        correlation = "-" if one.correlation is None else f"{one.correlation:.2f}"
        agreement = "-" if one.agreement is None else _shown(one.agreement)
        lines.append([one.metric, agreement, str(one.pairs), correlation, str(one.methods)])
    header = ["metric", "agreement", "pairs", "correlation", "methods"]
    return Grid("Beside automatic metrics", header, lines, [HOW_TO_READ_METRICS])


def _raters(findings: Findings) -> Grid:
    lines = []
    for one in findings.raters:
        left = "-" if one.left is None else f"{one.left:.2f}"
        seconds = "-" if one.seconds is None else f"{one.seconds:.1f}"
        checks = f"{one.right} of {one.checks}" if one.checks else "-"
        lines.append([one.name, "yes" if one.counts else "no", str(one.votes), checks, left, seconds])
    header = ["rater", "counts", "votes", "checks right", "left", "seconds a pair"]
    return Grid("Raters", header, lines, [HOW_TO_READ_RATERS], level=2)


def _rate(one: Preference) -> str:
    return "-" if one.win_rate is None else _shown(one.win_rate)


def _shown(interval: Interval) -> str:
    value = f"{interval.value:.2f}"
    return f"{value} [{interval.low:.2f}, {interval.high:.2f}]" if interval.known else value


def _numbers(findings: Findings) -> dict[str, Any]:
    return {
        "study": findings.key.study,
        "questions": [
            {
                "question": poll.question,
                "text": poll.text,
                "clips": poll.clips,
                "raters": poll.raters,
                "votes": len(poll.votes),
                "methods": list(map(_preference, poll.preferences)),
                "by_category": {name: list(map(_preference, own)) for name, own in poll.by_category.items()},
                "wins": poll.wins.tolist(),
                "alpha": _ends(poll.alpha),
                "shared_pairs": poll.shared,
                "metrics": [asdict(one) | {"agreement": _ends(one.agreement)} for one in poll.accordances],
            }
            for poll in findings.polls
        ],
        "raters": [asdict(rater) for rater in findings.raters],
        "problems": list(findings.problems),
        "notes": list(findings.notes),
    }


def _preference(one: Preference) -> dict[str, Any]:
    """With the win rate that the score alone predicts against a method of average strength."""
    predicted = 1 / (1 + exp(-one.strength.value))
    ends = {"strength": _ends(one.strength), "win_rate": _ends(one.win_rate)}
    return asdict(one) | ends | {"predicted_against_average": predicted}


def _ends(interval: Interval | None) -> dict[str, float | None] | None:
    """JSON knows no NaN."""
    return None if interval is None else {k: v if isfinite(v) else None for k, v in asdict(interval).items()}


def _write_csv(path: Path, findings: Findings) -> None:
    header = ["question", "rater", "trial", "edit", "clip", "category", "first", "second", "preferred"]
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for poll in findings.polls:
            for vote in poll.votes:
                trial = findings.key.trials[vote.trial]
                preferred = "" if vote.choice is None else (vote.first, vote.second)[vote.choice]
                named = [vote.rater, vote.trial, trial.edit, trial.clip, trial.category, vote.first, vote.second]
                writer.writerow(map(as_cell, [poll.question, *named, preferred]))
