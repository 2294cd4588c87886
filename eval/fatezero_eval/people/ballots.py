"""From answer files to votes: who paid attention, and which method stood behind each choice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from fatezero.system.terminal import quoted
from fatezero_eval.people.answer_files import AnswerFile, RaterAnswer
from fatezero_eval.people.preferences import Vote
from fatezero_eval.people.study_key import StudyKey


@dataclass(frozen=True)
class Rater:
    """How one rater answered.

    Attributes:
        name: as the rater gave it.
        votes: answers that are no checks.
        checks: answered pairs with a known answer.
        right: how many of those were right.
        left: share of choices that fell on the left video, in [0, 1]; None without any.
        seconds: median time on a pair; None without any.
        counts: whether the votes count.
    """

    name: str
    votes: int
    checks: int
    right: int
    left: float | None
    seconds: float | None
    counts: bool


@dataclass(frozen=True)
class Ballots:
    """What was said, with the methods' names.

    Attributes:
        votes: by question, those of raters who count.
        raters: all of them.
        problems: a sentence for each rater who does not count.
    """

    votes: dict[str, list[Vote]]
    raters: list[Rater]
    problems: list[str]


def open_ballots(files: Sequence[AnswerFile], key: StudyKey, attention: float) -> Ballots:
    """Give each choice the name of its method.

    Args:
        files: answers, one file for each rater.
        key: of the study.
        attention: share of a rater's checks that are right, at least, for the votes to count, in [0, 1].
    """
    has_checks = any(trial.right is not None for trial in key.trials.values())
    raters = [_rater(file, key, attention if has_checks else None) for file in files]
    votes: dict[str, list[Vote]] = {question: [] for question in key.questions}
    for file, rater in zip(files, raters, strict=True):
        if rater.counts:
            for answer in file.answers:
                if key.trials[answer.trial].right is None:
                    votes[answer.question].append(_vote(file.rater, answer, key))
    return Ballots(votes, raters, [_left_out(rater) for rater in raters if not rater.counts])


def _rater(file: AnswerFile, key: StudyKey, attention: float | None) -> Rater:
    checks: dict[str, list[int | None]] = defaultdict(list)
    for answer in file.answers:
        if key.trials[answer.trial].right is not None:
            checks[answer.trial].append(answer.choice)
    right = sum(_passed(choices, key.trials[trial].right) for trial, choices in checks.items())
    decided = [answer.choice == answer.left for answer in file.answers if answer.choice is not None]
    by_trial = {answer.trial: answer.seconds for answer in file.answers}
    return Rater(
        name=file.rater,
        votes=len(file.answers) - sum(map(len, checks.values())),
        checks=len(checks),
        right=right,
        left=sum(decided) / len(decided) if decided else None,
        seconds=median(by_trial.values()) if by_trial else None,
        counts=attention is None or (bool(checks) and right >= attention * len(checks)),
    )


def _passed(choices: Sequence[int | None], right: int | None) -> bool:
    """Whether the whole video was preferred on some question, and that in pieces on none.

    Where the whole one does not show what a question asks for either, "no difference" is an honest answer to it.
    """
    return right in choices and not any(choice not in (right, None) for choice in choices)


def _left_out(rater: Rater) -> str:
    why = f"{rater.right} of {rater.checks} checks were answered rightly" if rater.checks else "no check was answered"
    return f"The {rater.votes} votes of the rater {quoted(rater.name)} do not count: {why}."


def _vote(rater: str, answer: RaterAnswer, key: StudyKey) -> Vote:
    trial = key.trials[answer.trial]
    return Vote(
        clip=trial.clip,
        rater=rater,
        trial=answer.trial,
        first=trial.first.method,
        second=trial.second.method,
        choice=answer.choice,
    )
