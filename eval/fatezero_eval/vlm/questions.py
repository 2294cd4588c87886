"""What is asked about an edit, word for word. A change to any word, or to what is shown, is a new version.

Yes/no and multiple-choice questions follow FiVE-Acc (Li et al. 2025, FiVE-Bench `evaluation/metrics_calculator.py`);
the three graded axes are those of VEFX-Bench (Gao et al. 2026): instruction following, rendering quality and edit
exclusivity. The wording, and the scale of the grades, are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero_eval.vlm.answer_texts import grade_score, letter_score, yes_no_score

_ARTICLES = {"a", "an", "the"}
_LETTER_OF_OPTION = re.compile(r"(?<!\S)\(?([a-z])[).:](?=\s)", re.IGNORECASE)
_YES_NO = "Answer with one word, yes or no."
_LETTER = "Answer with the letter of the right answer alone."
_GRADE = "Answer with the grade alone, a whole number from 1 to 5."
_STATED_AS = {
    "source": "source_yes_no_question",
    "target": "target_yes_no_question",
    "choice": "multiple_choice_question",
}


@dataclass(frozen=True, kw_only=True)
class StatedQuestions:
    """A benchmark's own questions about an edit, as FiVE-Bench states them; an empty one is not asked.

    Attributes:
        source: a question that is to be answered with no once the edit is made.
        target: a question that is to be answered with yes then.
        choice: a question with its answers, each behind a letter: a) and b).
        right: the letter of the right one.
    """

    source: str = ""
    target: str = ""
    choice: str = ""
    right: str = "b"

    @classmethod
    def of(cls, extras: Mapping[str, Any]) -> StatedQuestions | None:
        """The questions among what a benchmark says of an edit; None where it asks none.

        Raises:
            UserError: one is no text, or a choice has no answers a) and b).
        """
        asked = {name: text for name, key in _STATED_AS.items() if (text := _text(extras, key))}
        if "choice" in asked and not _letters_of(asked["choice"]).startswith("ab"):
            raise UserError(
                f"{_STATED_AS['choice']} {quoted(asked['choice'])} offers no answers; write a) and b) before them."
            )
        return cls(**asked) if asked else None

    @property
    def of_the_source(self) -> StatedQuestions:
        """The same questions about the unedited clip: what was wrong is right, of a choice between two as well."""
        choice = self.choice if _letters_of(self.choice) == "ab" else ""
        return replace(self, source=self.target, target=self.source, choice=choice, right="a")


@dataclass(frozen=True, kw_only=True)
class AskedEdit:
    """What of an edit questions are made of.

    Attributes:
        source_prompt: describes the source.
        target_prompt: describes what the edit should show.
        edited_words: words of the source prompt that change.
        target_words: words of the target prompt that stand for them.
        stated: the benchmark's own questions; None where it has none.
    """

    source_prompt: str
    target_prompt: str
    edited_words: tuple[str, ...] = ()
    target_words: tuple[str, ...] = ()
    stated: StatedQuestions | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question.

    Attributes:
        version: name and version of the kind of question it is.
        text: every word of it, after the pictures.
        score: a model's words as a number; None where they are not the answer that was asked for.
        captions: by answer, what the pictures show if it is right; empty where no caption says it.
    """

    version: str
    text: str
    score: Callable[[str], float | None]
    captions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """Questions that make one score.

    Attributes:
        of_edit: the questions; none where the edit gives no occasion for them.
        none: why there are none then.
        beside_source: whether the source's frames are shown before the edit's.
        captioned: whether captions stand for the answers, so that a CLIP can tell them apart.
    """

    of_edit: Callable[[AskedEdit], Sequence[Question]]
    none: str = "no question can be made of this edit"
    beside_source: bool = False
    captioned: bool = False


def _text(extras: Mapping[str, Any], key: str) -> str:
    text = extras.get(key) or ""
    if not isinstance(text, str):
        raise UserError(f"{key} is {quoted(text)}, which is no question; write a text.")
    return text.strip()


def _letters_of(choice: str) -> str:
    return "".join(_LETTER_OF_OPTION.findall(choice)).lower()


def only_adds(shorter: str, longer: str) -> bool:
    """Whether a prompt says all that another says, in its order, and perhaps more; articles do not count."""
    rest = iter(_content(longer))
    return all(word in rest for word in _content(shorter))


def _content(prompt: str) -> list[str]:
    return [word for word in re.findall(r"[^\W_]+", prompt.lower()) if word not in _ARTICLES]


def _yes_no(edit: AskedEdit) -> list[Question]:
    """Does it show the target? Does it still show the source? The second only where the target denies the source."""
    source, target = edit.source_prompt, edit.target_prompt
    if _content(source) == _content(target):
        return []
    questions = [_shows(target, "yes", {"yes": target, "no": source})]
    if not only_adds(source, target):  # else a right edit shows what the source prompt says, too
        questions.append(_shows(source, "no", {"yes": source, "no": target}))
    return questions


def _shows(prompt: str, right: str, captions: Mapping[str, str]) -> Question:
    text = f"Does the video show the following?\n{prompt}\n{_YES_NO}"
    score = partial(yes_no_score, right=right)
    return Question(version="yes_no@1", text=text, score=score, captions=captions)


def _choice(edit: AskedEdit) -> list[Question]:
    """Which prompt fits best? Once with the target first and once with it second, so that no place is favoured."""
    source, target = edit.source_prompt, edit.target_prompt
    if _content(source) == _content(target):
        return []
    return [_best("a", target, source), _best("b", source, target)]


def _best(right: str, first: str, second: str) -> Question:
    options = f"a) {first}\nb) {second}\nc) neither of the two"
    return Question(
        version="choice@1",
        text=f"Which of these describes the video best?\n{options}\n{_LETTER}",
        score=partial(letter_score, right=right, letters="abc"),
        captions={"a": first, "b": second},
    )


def _stated_yes_no(edit: AskedEdit) -> list[Question]:
    stated = edit.stated or StatedQuestions()
    asked = ((stated.source, "no"), (stated.target, "yes"))
    return [
        Question(version="yes_no/stated@1", text=f"{text}\n{_YES_NO}", score=partial(yes_no_score, right=right))
        for text, right in asked
        if text
    ]


def _stated_choice(edit: AskedEdit) -> list[Question]:
    stated = edit.stated or StatedQuestions()
    if not stated.choice:
        return []
    score = partial(letter_score, right=stated.right, letters=_letters_of(stated.choice))
    return [Question(version="choice/stated@1", text=f"{stated.choice}\n{_LETTER}", score=score)]


def _stated(edit: AskedEdit) -> list[Question]:
    """Yes/no questions, then the choice; none unless there are both."""
    yes_no, choice = _stated_yes_no(edit), _stated_choice(edit)
    return [*yes_no, *choice] if yes_no and choice else []


def _instruction(edit: AskedEdit) -> list[Question]:
    return [
        _graded(
            "instruction@1",
            f"The first video was to be edited so that it shows: {edit.target_prompt}{_change(edit)}\n"
            "How far does the second video, the result, follow this instruction? 1: nothing of it was done; 2: little "
            "of it, or something else; 3: about half of it; 4: nearly all of it; 5: all of it, in every frame. Do not "
            "count how well the result is drawn, nor what else has changed.",
        )
    ]


def _rendering(_: AskedEdit) -> list[Question]:
    return [
        _graded(
            "rendering@1",
            "The second video is an edit of the first. How good are the pictures of the second video, whatever they "
            "show? Look for blur, noise, torn or misshapen things, seams, and for shapes, colours or textures that "
            "flicker or drift from frame to frame. 1: broken; 2: bad faults; 3: faults that disturb; 4: small faults; "
            "5: none, as good as the first video.",
        )
    ]


def _preservation(edit: AskedEdit) -> list[Question]:
    return [
        _graded(
            "preservation@1",
            f"The first video was to be edited so that it shows: {edit.target_prompt}{_change(edit)}\n"
            "How well was everything kept that this does not ask to change: other things, the background, colours, "
            "light, motion and the camera? 1: nothing is as it was; 2: much has changed; 3: some things have changed; "
            "4: hardly anything has changed; 5: all is as it was. Do not count whether the edit itself was made.",
        )
    ]


def _graded(version: str, text: str) -> Question:
    return Question(version=version, text=f"{text}\n{_GRADE}", score=grade_score)


def _change(edit: AskedEdit) -> str:
    """The words that change, where the request names them."""
    if not edit.target_words:
        return ""
    before = f" in place of {' '.join(edit.edited_words)}" if edit.edited_words else ""
    return f" (the change: {' '.join(edit.target_words)}{before})"


_ALIKE = "the prompts say the same"
_UNASKED = "the benchmark states no such questions about this edit"
YES_NO = QuestionSet(of_edit=_yes_no, none=_ALIKE, captioned=True)
CHOICE = QuestionSet(of_edit=_choice, none=_ALIKE, captioned=True)
STATED_YES_NO = QuestionSet(of_edit=_stated_yes_no, none=_UNASKED)
STATED_CHOICE = QuestionSet(of_edit=_stated_choice, none=_UNASKED)
STATED = QuestionSet(of_edit=_stated, none=_UNASKED)
INSTRUCTION = QuestionSet(of_edit=_instruction, beside_source=True)
RENDERING = QuestionSet(of_edit=_rendering, beside_source=True)
PRESERVATION = QuestionSet(of_edit=_preservation, beside_source=True)
