"""A model's words as a number. What is not the answer that was asked for is None, never guessed."""

from __future__ import annotations

import re

# what models that think aloud write first, and thoughts that never came to an end
_THOUGHTS = re.compile(r"^.*</think(?:ing)?>|<think(?:ing)?>.*", re.DOTALL)
_WRAPPING = re.compile(r"</?answer>|\\boxed|[{}]")  # of an answer, in tags, LaTeX or JSON
_LEAD = re.compile(r"^(?:the )?(?:final )?(?:right |correct )?(?:answer|grade|option)(?: is)?\s*[:=]?\s*")
_MARKS = str.maketrans("", "", "*_`\"'\u201c\u201d\u2018\u2019#$")  # emphasis and quotes around an answer
_OUT_OF_FIVE = re.compile(r"(?<=\d)\s*(?:/|out of)\s*5\b")


def yes_no_score(text: str, right: str) -> float | None:
    """1 for the right one of "yes" and "no", 0 for the other; None unless the text begins with one and lacks the other.

    Args:
        text: as the model wrote it.
        right: "yes" or "no".
    """
    words = re.findall(r"[^\W\d_]+", _plain(text))
    said = {"yes", "no"} & {*words}
    return float(words[0] == right) if len(said) == 1 and words[0] in said else None


def letter_score(text: str, right: str, letters: str) -> float | None:
    """1 for the right letter, 0 for another; None where no one letter is named.

    A letter stands alone, or before its bracket, full stop or colon: "A flamingo" names none.

    Args:
        text: as the model wrote it.
        right: the letter of the right answer.
        letters: all that the question has.
    """
    plain = _plain(text)
    alone = re.fullmatch(r"\W*([a-z])\W*", plain)
    named = {alone[1]} if alone else {*re.findall(r"(?<!\w)([a-z])(?=[).:])", plain)}
    return float(named == {right}) if len(named) == 1 and named <= {*letters} else None


def grade_score(text: str) -> float | None:
    """The one whole number from 1 to 5 in the text, "/5" and "out of 5" after it left aside; None for anything else."""
    numbers = re.findall(r"-?\d+(?:[.,]\d+)?", _OUT_OF_FIVE.sub("", _plain(text)))
    return float(numbers[0]) if len(numbers) == 1 and numbers[0] in {"1", "2", "3", "4", "5"} else None


def _plain(text: str) -> str:
    """Small letters, without thoughts, wrapping, marks, and words that lead up to an answer."""
    said = _WRAPPING.sub(" ", _THOUGHTS.sub("", text.lower()))
    return _LEAD.sub("", said.translate(_MARKS).strip())
