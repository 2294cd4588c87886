"""What was asked and answered in an evaluation, beside its rows, and what it cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fatezero_eval.vlm.interview import Answer


@dataclass(frozen=True, kw_only=True)
class AnswerCosts:
    """What the answers of an evaluation cost when they were given.

    Attributes:
        model: who answered.
        answers: how many answers there are.
        kept: how many of them were there already, from the same question about the same frames, and cost nothing.
        unclear: how many are no answer to what was asked.
        failed: how many questions got no answer.
        tries: how often questions were put in vain, failed ones included.
        prompt_tokens: what the model read for all other answers, as far as it says.
        answer_tokens: what it wrote.
        seconds: the sum over these.
    """

    model: str
    answers: int
    kept: int
    unclear: int
    failed: int
    tries: int
    prompt_tokens: int
    answer_tokens: int
    seconds: float

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.model}: {self.answers:,} answers ({self.kept:,} known before, {self.unclear:,} neither as asked), "
            f"{self.failed:,} questions unanswered, {self.tries:,} tries in vain; {self.prompt_tokens:,} tokens read, "
            f"{self.answer_tokens:,} written, {self.seconds:,.1f} seconds"
        )


def costs_of(lines: Sequence[Mapping[str, Any]]) -> AnswerCosts | None:
    """The costs of the answers in a log; None where nothing was asked."""
    if not lines:
        return None
    answered = [line for line in lines if not line["failure"]]
    paid = [line for line in answered if not line["kept"]]
    return AnswerCosts(
        model=lines[0]["model"],
        answers=len(answered),
        kept=len(answered) - len(paid),
        unclear=sum(line["score"] is None for line in answered),
        failed=len(lines) - len(answered),
        tries=sum(line["tries"] - (not line["failure"]) for line in lines if not line["kept"]),
        prompt_tokens=sum(line["prompt_tokens"] or 0 for line in paid),
        answer_tokens=sum(line["answer_tokens"] or 0 for line in paid),
        seconds=sum(line["seconds"] for line in paid),
    )


def to_lines(answers: Iterable[Answer]) -> str:
    """The answers about one edit as JSON lines; one that several metrics use stands there once."""
    first: dict[tuple[str, str, int], Answer] = {}
    for answer in answers:
        first.setdefault((answer.version, answer.question, answer.repeat), answer)
    return "".join(f"{json.dumps(asdict(answer), ensure_ascii=False)}\n" for answer in first.values())
