"""What is asked, what is shown, and how a model's words are read."""

from __future__ import annotations

import numpy as np
import pytest

from fatezero.errors import UserError
from fatezero_eval.options import AskingOptions
from fatezero_eval.scoring.asking import ASKING_METRICS
from fatezero_eval.vlm import questions
from fatezero_eval.vlm.answer_texts import grade_score, letter_score, yes_no_score
from fatezero_eval.vlm.questions import AskedEdit, StatedQuestions, only_adds
from fatezero_eval.vlm.shown_frames import LONGER_SIDE, ShownFrames, reduced, shown_indices

FIVE = {  # a FiVE-Bench entry's own fields
    "source_yes_no_question": "Is there a swan in the video?",
    "target_yes_no_question": "Is there a flamingo in the video?",
    "multiple_choice_question": "What is in the video? \na) A swan \nb) A flamingo",
}


@pytest.mark.parametrize(
    ("text", "score"),
    [
        *[(text, 1.0) for text in ("yes", "Yes.", "**YES**", '"Yes"', "Yes, the owl is red.", "Answer: yes")],
        *[(text, 0.0) for text in ("no", "No!", "NO\n", "No, it shows a swan.", "<think>Yes? A swan.</think>\nNo.")],
        *[(text, 1.0) for text in ("<think>\nA swan?\n</think>\n<answer> Yes </answer>", r"$\boxed{yes}$")],
        *[(text, 1.0) for text in ('{"answer": "Yes"}', "<thinking>No.</thinking>Yes")],
        *[(text, None) for text in ("", "Yes and no.", "I have no idea.", "I'm sorry, I can't.", "Maybe yes", "1")],
        *[(text, None) for text in ("Yes... no, a swan.", "nope", "Not sure", "yesterday", "<think>Yes")],
    ],
)
def test_yes_and_no_are_read_and_nothing_is_guessed(text: str, score: float | None) -> None:
    assert yes_no_score(text, "yes") == score
    assert yes_no_score(text, "no") == (None if score is None else 1 - score)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        *[(text, "b") for text in ("b", "B", "b)", "(b)", "B.", "b) A flamingo", "Answer: b", "The answer is **B**.")],
        *[(text, "a") for text in ("a", "a) A swan", "Option A")],
        *[
            (text, None)
            for text in (
                "A flamingo",
                "a) or b)",
                "d",
                "",
                "both",
                "A swan and a flamingo",
                "<think>a) is",
                "I see a b",
            )
        ],
    ],
)
def test_a_letter_is_read_where_one_is_named(text: str, letter: str | None) -> None:
    for right in "ab":
        assert letter_score(text, right, "abc") == (None if letter is None else float(letter == right))


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        *[("4", 4.0), ("Grade: 4", 4.0), ("**5**", 5.0), ("3/5", 3.0), ("2 out of 5.", 2.0), ("I give it a 1.", 1.0)],
        *[
            (text, None)
            for text in ("", "four", "4.5", "0", "6", "10", "4 or 5", "-3", "1. Good: 4", "<think>Rather 4", "n/a")
        ],
    ],
)
def test_a_grade_is_one_whole_number_of_the_scale(text: str, grade: float | None) -> None:
    assert grade_score(text) == grade


def test_the_source_is_asked_for_only_where_the_target_denies_it() -> None:
    assert only_adds("an owl in the snow", "a red owl in the snow")
    assert not only_adds("a jeep on the road", "a jeep in the snow")
    red = questions.YES_NO.of_edit(AskedEdit(source_prompt="an owl", target_prompt="a red owl"))
    assert [question.text.splitlines()[1] for question in red] == ["a red owl"]
    assert red[0].score("yes") == 1
    snow = questions.YES_NO.of_edit(AskedEdit(source_prompt="a jeep on the road", target_prompt="a jeep in the snow"))
    assert [(question.text.splitlines()[1], question.score("Yes")) for question in snow] == [
        ("a jeep in the snow", 1),
        ("a jeep on the road", 0),
    ]
    assert not questions.YES_NO.of_edit(AskedEdit(source_prompt="an owl", target_prompt="An owl."))


def test_a_choice_is_put_both_ways_round_and_offers_neither() -> None:
    first, second = questions.CHOICE.of_edit(AskedEdit(source_prompt="a cat", target_prompt="a dog"))
    assert first.text.splitlines()[1:4] == ["a) a dog", "b) a cat", "c) neither of the two"]
    assert second.text.splitlines()[1:3] == ["a) a cat", "b) a dog"]
    assert [first.score("a"), second.score("b"), first.score("c"), second.score("a")] == [1, 1, 0, 0]


def test_a_benchmarks_own_questions_are_asked_word_for_word() -> None:
    stated = StatedQuestions.of({**FIVE, "editing_type_id": 1})
    edit = AskedEdit(source_prompt="a swan", target_prompt="a flamingo", stated=stated)
    asked = questions.STATED.of_edit(edit)
    assert [question.text.rpartition("\n")[0] for question in asked] == list(FIVE.values())
    assert [question.score(text) for question, text in zip(asked, ("No", "Yes", "b) A flamingo"), strict=True)] == [
        1
    ] * 3
    assert stated is not None
    of_source = questions.STATED.of_edit(
        AskedEdit(source_prompt="a flamingo", target_prompt="a swan", stated=stated.of_the_source)
    )
    scores = [question.score(text) for question, text in zip(of_source, ("No", "Yes", "a) A swan"), strict=True)]
    assert scores == [1] * 3  # no flamingo, a swan
    assert "flamingo" in of_source[0].text


def test_an_edit_that_adds_has_no_question_about_the_source() -> None:
    stated = StatedQuestions.of({**FIVE, "source_yes_no_question": ""})
    asked = questions.STATED.of_edit(AskedEdit(source_prompt="", target_prompt="", stated=stated))
    assert [question.version for question in asked] == ["yes_no/stated@1", "choice/stated@1"]
    assert StatedQuestions.of({"source_prompt": "a swan"}) is None
    assert not questions.STATED.of_edit(AskedEdit(source_prompt="a", target_prompt="b"))


def test_questions_that_are_none_are_refused() -> None:
    with pytest.raises(UserError, match="target_yes_no_question is 3, which is no question"):
        StatedQuestions.of({"target_yes_no_question": 3})
    with pytest.raises(UserError, match="offers no answers"):
        StatedQuestions.of({"multiple_choice_question": "What is in the video? A swan or a flamingo?"})
    inline = StatedQuestions.of({"multiple_choice_question": "What is in the video? a) A swan b) A flamingo"})
    (question,) = questions.STATED_CHOICE.of_edit(AskedEdit(source_prompt="", target_prompt="", stated=inline))
    assert [question.score(text) for text in ("b", "a", "c")] == [1, 0, None]


def test_the_metrics_id_names_the_version_of_its_questions() -> None:
    edit = AskedEdit(
        source_prompt="a swan on the water",
        target_prompt="a flamingo on the water",
        edited_words=("swan",),
        target_words=("flamingo",),
        stated=StatedQuestions.of(FIVE),
    )
    for metric in ASKING_METRICS:
        assert metric.asks is not None
        versions = {question.version for question in metric.asks.of_edit(edit)}
        if not metric.name.startswith("vlm_five_acc"):
            assert {f"vlm_{version}" for version in versions} == {metric.id.replace("/spread", "")}
    (instruction,) = questions.INSTRUCTION.of_edit(edit)
    assert "a flamingo on the water (the change: flamingo in place of swan)\n" in instruction.text


@pytest.mark.parametrize(
    ("frames", "shown"), [(1, [0]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (8, [1, 3, 5, 7]), (40, [5, 15, 25, 35])]
)
def test_frames_are_from_the_middles_of_four_parts(frames: int, shown: list[int]) -> None:
    assert shown_indices(frames) == shown


def test_the_source_is_shown_before_the_edit_and_nothing_too_large() -> None:
    wide = np.random.default_rng(0).integers(0, 256, (2, 30, 4 * LONGER_SIDE, 3), dtype=np.uint8)
    small = reduced(wide)
    assert small.shape == (2, 8, LONGER_SIDE, 3)
    assert np.abs(small.mean((1, 2)) - wide.mean((1, 2))).max() < 3  # areas are averaged
    assert reduced(small) is small
    parts = ShownFrames(edited=small, source=255 - small).parts
    assert [type(part) is str for part in parts] == [True, False, False] * 2
    assert [part for part in parts if isinstance(part, str)] == [
        "The first video; 2 frames of it, in order of time:",
        "The second video; 2 frames of it, in order of time:",
    ]
    assert np.array_equal(np.asarray(parts[1]), 255 - small[0])
    assert np.array_equal(np.asarray(parts[5]), small[1])
    assert ShownFrames(edited=small[:1]).parts[0] == "A video; one frame of it:"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"vlm": "http://localhost:8000/v1"}, "--vlm-model"),
        ({"vlm_model": "qwen"}, "--vlm with an address"),
        ({"vlm_answers": 0}, "at least 1"),
        ({"vlm_timeout": 0.0}, "between 0 and 86,400"),
        ({"vlm_temperature": 3.0}, "between 0 and 2"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        AskingOptions(**options)  # type: ignore[arg-type]
