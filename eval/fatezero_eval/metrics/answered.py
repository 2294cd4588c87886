"""How much of what is asked about an edit is answered as for a right one?

Shapes: R repeats of each question, Q questions about one clip. Scores are 1 for a right answer, 0 for a wrong
one, or a grade from 1 to 5; NaN where a model's words were no answer to the question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fatezero_eval.metrics.families import MetricFamily, classes_of
from fatezero_eval.metrics.means import mean_defined

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean


def success_of_repeats(scores_RQ: Tensor) -> Tensor:
    """R: 1 where all answers are right, 0 where one is wrong; NaN where one is undefined.

    Source: FiVE-Acc (Li et al. 2025): an edit succeeds if every question about it is answered as for a right one.
    """
    return scores_RQ.double().prod(-1)


def five_parts(scores_RQ: Tensor) -> tuple[Tensor, Tensor]:
    """R each: success in the yes/no questions, and in the choice, which comes last."""
    return success_of_repeats(scores_RQ[:, :-1]), scores_RQ[:, -1].double()


def five_of_repeats(scores_RQ: Tensor) -> Tensor:
    """R: FiVE-Acc, the mean of yes/no, choice, their union and their intersection; so the mean of the first two."""
    yes_no, choice = five_parts(scores_RQ)
    return (yes_no + choice + union_of_repeats(scores_RQ) + intersection_of_repeats(scores_RQ)) / 4


def union_of_repeats(scores_RQ: Tensor) -> Tensor:
    """R: 1 where the yes/no questions or the choice succeed."""
    return torch.maximum(*five_parts(scores_RQ))


def intersection_of_repeats(scores_RQ: Tensor) -> Tensor:
    """R: 1 where the yes/no questions and the choice succeed."""
    return torch.minimum(*five_parts(scores_RQ))


def grade_of_repeats(scores_RQ: Tensor) -> Tensor:
    """R: the grade, the mean where several questions give one."""
    return scores_RQ.double().mean(-1)


def spread(values_R: Tensor) -> Tensor:
    """Standard deviation (n - 1) of what repeats say of the same clip; NaN for fewer than two that say anything."""
    defined = values_R.double()[~values_R.isnan()]
    return defined.std() if len(defined) > 1 else torch.tensor(torch.nan, dtype=torch.float64)


def success(scores_RQ: Tensor) -> Tensor:
    """Mean over repeats of `success_of_repeats`, 0..1."""
    return mean_defined(success_of_repeats(scores_RQ))


def five_acc(scores_RQ: Tensor) -> Tensor:
    """Mean over repeats of `five_of_repeats`, 0..1."""
    return mean_defined(five_of_repeats(scores_RQ))


def grade(scores_RQ: Tensor) -> Tensor:
    """Mean over repeats of `grade_of_repeats`, 1..5."""
    return mean_defined(grade_of_repeats(scores_RQ))


ANSWER_SUCCESS = MetricFamily("AnswerSuccess", success, higher_is_better=True)
FIVE_ACC = MetricFamily("FiveAcc", five_acc, higher_is_better=True)
ANSWER_GRADE = MetricFamily("AnswerGrade", grade, higher_is_better=True)
AnswerSuccess: type[ClipMean]
FiveAcc: type[ClipMean]
AnswerGrade: type[ClipMean]
if not TYPE_CHECKING:
    __getattr__ = classes_of(__name__, ANSWER_SUCCESS, FIVE_ACC, ANSWER_GRADE)
