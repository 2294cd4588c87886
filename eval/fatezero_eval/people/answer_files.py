"""Answer files, which anyone may have written: what they say of a study, or why nothing of one counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fatezero.data.files import parse_json, read_text
from fatezero.data.layout import visible
from fatezero.errors import UserError, attempt
from fatezero.system.terminal import quoted
from fatezero_eval.people.study_key import StudyKey

FORMAT = "fatezero-study-answers@1"  # as the page writes it
MOST_BYTES = 2**24  # of a file; an answer has some 80
LONGEST_NAME = 100  # characters of a rater's name
_FIELDS = {"trial", "question", "choice", "left", "seconds"}


@dataclass(frozen=True)
class RaterAnswer:
    """What a rater said.

    Attributes:
        trial: id of the pair.
        question: its name.
        choice: 0 for the pair's first video, 1 for its second, None for no difference.
        left: which of the two stood left, 0 or 1.
        seconds: spent on the pair.
    """

    trial: str
    question: str
    choice: int | None
    left: int
    seconds: float


@dataclass(frozen=True)
class AnswerFile:
    """One rater's answers.

    Attributes:
        path: the file.
        rater: who answered.
        answers: each question of a pair at most once.
    """

    path: Path
    rater: str
    answers: tuple[RaterAnswer, ...]


def read_answers(paths: Sequence[Path], key: StudyKey) -> tuple[list[AnswerFile], list[str]]:
    """The answers of each rater, and a sentence for each file of which nothing counts.

    Of several files of one rater that with the most answers counts, of equally many the first: a rater may save several
    times. Of files with the same answers, given as quickly, under several names the first counts.

    Args:
        paths: files, and folders of `*.json` files.
        key: of the study that they should belong to.
    """
    problems: list[str] = []
    found: dict[str, AnswerFile] = {}
    for path in _listed(paths):
        file = attempt(partial(_read, path, key))
        if isinstance(file, UserError):
            problems.append(str(file))
            continue
        twin = next((one for one in found.values() if one.rater != file.rater and one.answers == file.answers), None)
        if twin is not None and file.answers:
            problems.append(
                f"{file.path}: has the answers of {twin.path} under another name, all as quickly; they count once."
            )
            continue
        known = found.get(file.rater)
        if known is None:
            found[file.rater] = file
            continue
        kept, other = (file, known) if len(file.answers) > len(known.answers) else (known, file)
        found[file.rater] = kept
        same = "the same answers" if kept.answers == other.answers else f"{len(other.answers)} answers"
        problems.append(
            f"{other.path}: has {same} of the rater {quoted(file.rater)}, of whom {kept.path} counts; if these are two "
            "people, give one another name."
        )
    return list(found.values()), problems


def _listed(paths: Sequence[Path]) -> list[Path]:
    """Each file once, those of folders by name."""
    files = [file for path in paths for file in (visible(path, "*.json") if path.is_dir() else [path])]
    return list({file.absolute(): file for file in files}.values())


def _read(path: Path, key: StudyKey) -> AnswerFile:
    try:
        values = parse_json(read_text(path, MOST_BYTES))
        stated = values.get("format")
        rater, study, answers = values["rater"], values["study"], values["answers"]
        _check(stated == FORMAT, "it does not say that it is one")
        _check(
            isinstance(rater, str) and rater.strip() != "" and len(rater) <= LONGEST_NAME,
            f"its rater is {quoted(rater)}",
        )
        own = _answers(answers, key) if study == key.study else ()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: not readable as answers to a study ({error}); ask its rater to save them again."
        ) from error
    if study != key.study:
        raise UserError(f"{path}: answers another study ({quoted(study)}); name the folder of that one.")
    return AnswerFile(path, rater, own)


def _answers(stated: Any, key: StudyKey) -> tuple[RaterAnswer, ...]:
    _check(isinstance(stated, list), "its answers are no list")
    answers = []
    for values in stated:
        _check(isinstance(values, dict) and values.keys() == _FIELDS, f"{quoted(values)} is no answer")
        answer = RaterAnswer(**values)
        sound = (
            answer.trial in key.trials
            and answer.question in key.questions
            and (_is_side(answer.choice) or (answer.choice is None and key.ties))
            and _is_side(answer.left)
            and isinstance(answer.seconds, int | float)
            and answer.seconds >= 0
        )
        _check(sound, f"{quoted(values)} is no answer to this study")
        answers.append(answer)
    _check(len({(one.trial, one.question) for one in answers}) == len(answers), "it answers a question twice")
    return tuple(answers)


def _is_side(value: Any) -> bool:
    return type(value) is int and value in (0, 1)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
