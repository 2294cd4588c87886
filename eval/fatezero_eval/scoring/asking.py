"""Metrics that ask: their questions and values as data, and how one of them sees a clip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from fatezero.errors import UserError
from fatezero_eval.metrics.answered import (
    ANSWER_GRADE,
    ANSWER_SUCCESS,
    FIVE_ACC,
    five_of_repeats,
    grade_of_repeats,
    intersection_of_repeats,
    spread,
    success_of_repeats,
    union_of_repeats,
)
from fatezero_eval.scoring.metric import Metric, Need
from fatezero_eval.scoring.windows import ClipVersions, frames_at
from fatezero_eval.vlm import questions
from fatezero_eval.vlm.interview import Answer, Interviewer
from fatezero_eval.vlm.questions import AskedEdit
from fatezero_eval.vlm.shown_frames import ShownFrames, reduced, shown_indices

NO_ANSWER = "no answer: "  # begins reasons that may be gone when the clip is scored again
UNCLEAR = "the model's words are no answer to what was asked"
ASKED_ONCE = "fewer than two clear answers to the same question; ask more often (--vlm-answers 3)"
_BOTH: tuple[Need, ...] = ("source_prompt", "target_prompt")

_asked = partial(Metric, undefined=UNCLEAR)
_right = partial(_asked, unit="share of right answers", family=ANSWER_SUCCESS, of_answers=success_of_repeats)
_five = partial(_asked, unit="share of right answers", family=FIVE_ACC, asks=questions.STATED)
_graded = partial(_asked, unit="grade from 1 to 5", family=ANSWER_GRADE, of_answers=grade_of_repeats)

_VALUES = (
    _right(name="vlm_yes_no", asks=questions.YES_NO, needs=_BOTH),
    _right(name="vlm_choice", asks=questions.CHOICE, needs=_BOTH),
    _right(name="vlm_yes_no/stated", asks=questions.STATED_YES_NO),
    _right(name="vlm_choice/stated", asks=questions.STATED_CHOICE),
    _five(name="vlm_five_acc", of_answers=five_of_repeats),
    _five(name="vlm_five_acc/union", of_answers=union_of_repeats),
    _five(name="vlm_five_acc/intersection", of_answers=intersection_of_repeats),
    _graded(name="vlm_instruction", asks=questions.INSTRUCTION, needs=("source", "target_prompt")),
    _graded(name="vlm_rendering", asks=questions.RENDERING, needs=("source",)),
    _graded(name="vlm_preservation", asks=questions.PRESERVATION, needs=("source", "target_prompt")),
)


def _spread_of(metric: Metric) -> Metric:
    """How far a metric's values vary when the same is asked again."""
    of_answers = metric.of_answers
    assert of_answers is not None
    return Metric(
        name=f"{metric.name}/spread",
        version=metric.version,
        unit=f"standard deviation, {metric.unit}",
        family=None,
        needs=metric.needs,
        undefined=ASKED_ONCE,
        asks=metric.asks,
        of_answers=lambda scores: spread(of_answers(scores)).reshape(1),
    )


ASKING_METRICS = (*_VALUES, *(_spread_of(metric) for metric in _VALUES if "/" not in metric.name))


def ask(
    metric: Metric, clip: ClipVersions, frames: int, interviewer: Interviewer | None
) -> tuple[Tensor | UserError, tuple[Answer, ...]]:
    """A metric's values, one for each repeat, or why there are none; and the answers behind them.

    Args:
        metric: one that asks.
        clip: its frames are read again, since which of them are shown follows from their number.
        frames: how many the clip has.
        interviewer: puts the questions.

    Raises:
        UserError: the model cannot answer such questions at all.
    """
    assert metric.asks is not None
    assert metric.of_answers is not None
    assert interviewer is not None
    asked = metric.asks.of_edit(_edit_of(clip))
    if not asked:
        return UserError(metric.asks.none), ()
    indices = shown_indices(frames)
    source = reduced(frames_at(clip.source, indices)) if metric.asks.beside_source and clip.source else None
    answers = interviewer.ask(asked, ShownFrames(reduced(frames_at(clip.edited, indices)), source))
    failure = next((answer.failure for answer in answers if answer.failure), "")
    if failure:
        return UserError(f"{NO_ANSWER}{failure}"), answers
    return metric.of_answers(_scores(answers, len(asked))), answers


def _edit_of(clip: ClipVersions) -> AskedEdit:
    return AskedEdit(
        source_prompt=clip.source_prompt,
        target_prompt=clip.target_prompt,
        edited_words=clip.edited_words,
        target_words=clip.target_words,
        stated=clip.questions,
    )


def _scores(answers: Sequence[Answer], questions_asked: int) -> Tensor:
    """Repeats, questions: what each answer is worth; NaN for one that is unclear."""
    worth = [torch.nan if answer.score is None else answer.score for answer in answers]
    return torch.tensor(worth, dtype=torch.float64).reshape(-1, questions_asked)
