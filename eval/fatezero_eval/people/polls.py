"""What a study found: preferences, agreement and accordance with metrics, question by question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fatezero.errors import UserError
from fatezero_eval.people.answer_files import read_answers
from fatezero_eval.people.automatic import Accordance, accordances, read_automatic
from fatezero_eval.people.ballots import Rater, open_ballots
from fatezero_eval.people.draws import draw
from fatezero_eval.people.krippendorff import alpha_over_clips
from fatezero_eval.people.preferences import Preference, Vote, Wins, count_wins, preferences
from fatezero_eval.people.study_key import StudyKey, read_key
from fatezero_eval.scoring.rows import Row
from fatezero_eval.tables.resampling import Interval

CHOICES = ("first", "second", "no difference")


@dataclass(frozen=True, kw_only=True)
class Poll:
    """What was found on one question.

    Attributes:
        question: its name.
        text: as raters read it.
        clips: how many clips were voted on.
        raters: how many raters voted.
        votes: all that count.
        preferences: of all edits, the best first.
        by_category: likewise, of the edits of each category.
        wins: how often each method, in the order of `preferences`, was preferred to each other, M,M; ties as halves.
        alpha: Krippendorff's α over pairs of videos; None where no two raters answered the same.
        shared: pairs that at least two raters answered.
        accordances: of automatic metrics.
    """

    question: str
    text: str
    clips: int
    raters: int
    votes: Sequence[Vote]
    preferences: Sequence[Preference]
    by_category: Mapping[str, Sequence[Preference]]
    wins: Wins
    alpha: Interval | None
    shared: int
    accordances: Sequence[Accordance]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a study found.

    Attributes:
        key: of the study.
        polls: on each question that was answered.
        raters: all who answered.
        problems: a sentence for each file, rater and run that does not count.
        notes: a sentence for each run of the study's own that is not scored.
    """

    key: StudyKey
    polls: Sequence[Poll]
    raters: Sequence[Rater]
    problems: Sequence[str] = field(default=())
    notes: Sequence[str] = field(default=())


def conclude(study: Path, answers: Sequence[Path], runs: Sequence[Path], attention: float) -> Findings:
    """Read a study's answers and weigh them.

    Args:
        study: the folder that the study was written to, or its key.
        answers: answer files, or folders of them.
        runs: scored runs; none takes those that the study was made from.
        attention: share of a rater's checks that are right, at least, for the votes to count, in [0, 1].

    Raises:
        UserError: there is no key, or no vote that counts.
    """
    if not 0 <= attention <= 1:
        raise UserError(f"attention is {attention:g}: it is a share from 0 to 1.")
    key = read_key(study)
    files, problems = read_answers(answers, key)
    ballots = open_ballots(files, key, attention)
    problems = [*problems, *ballots.problems]
    if not any(ballots.votes.values()):
        raise UserError("\n".join([f"{study}: no vote counts.", *problems]))
    rows, unread = read_automatic(runs or [Path(run) for run in key.runs], key)
    polls = [_poll(question, votes, rows, key) for question, votes in ballots.votes.items() if votes]
    return Findings(key=key, polls=polls, raters=ballots.raters, **_said(problems, unread, asked=bool(runs)))


def _said(problems: Sequence[str], unread: Sequence[str], *, asked: bool) -> dict[str, Sequence[str]]:
    """Runs that were asked for and have no scores are a problem; the study's own need none."""
    return {"problems": (*problems, *unread)} if asked else {"problems": problems, "notes": unread}


def _poll(question: str, votes: Sequence[Vote], rows: Sequence[Row], key: StudyKey) -> Poll:
    met = {name for vote in votes for name in (vote.first, vote.second)}
    found = _preferences(votes, [method for method in key.methods if method in met])
    categories: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        categories[key.trials[vote.trial].category].append(vote)
    methods = [one.method for one in found]
    by_trial, units = _units(votes), defaultdict(list)
    for trial, values in by_trial.items():
        units[key.trials[trial].clip].append(values)
    clips, raters = sorted(units), sorted({vote.rater for vote in votes})
    return Poll(
        question=question,
        text=key.questions[question],
        clips=len(clips),
        raters=len(raters),
        votes=votes,
        preferences=found,
        by_category={
            name: _preferences(own, methods) for name, own in sorted(categories.items()) if name and len(categories) > 1
        },
        wins=count_wins(votes, methods),
        alpha=alpha_over_clips(units, draw(clips, raters)),
        shared=sum(len(values) > 1 for values in by_trial.values()),
        accordances=accordances(rows, found, votes, key),
    )


def _preferences(votes: Sequence[Vote], methods: Sequence[str]) -> list[Preference]:
    """The best first."""
    draws = draw(sorted({vote.clip for vote in votes}), sorted({vote.rater for vote in votes}))
    return sorted(preferences(votes, methods, draws), key=lambda one: (-one.strength.value, one.method))


def _units(votes: Sequence[Vote]) -> dict[str, list[str]]:
    """By pair of videos, what raters said of it."""
    units: dict[str, list[str]] = defaultdict(list)
    for vote in votes:
        units[vote.trial].append(CHOICES[2 if vote.choice is None else vote.choice])
    return units
