"""What answers questions, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fatezero.errors import UserError
from fatezero_eval.vlm.questions import Question
from fatezero_eval.vlm.shown_frames import ShownFrames


class UnansweredError(UserError):
    """A question got no answer, for a reason that may be gone when it is asked again.

    Attributes:
        tries: how often it was asked.
        lasting: whether the next question would get none either.
    """

    def __init__(self, sentence: str, tries: int = 1, *, lasting: bool = False) -> None:
        super().__init__(sentence)
        self.tries = tries
        self.lasting = lasting


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model said.

    Attributes:
        text: its words, as they came.
        prompt_tokens: what it read, pictures included; None where it does not say.
        answer_tokens: what it wrote.
        seconds: from the question to the answer, without the tries that failed.
        tries: how often it was asked until it answered.
    """

    text: str
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    seconds: float = 0.0
    tries: int = 1


class Answerer(Protocol):
    """A model that answers questions about pictures.

    Attributes:
        id: the model, where it runs, and what its answers depend on; part of every row and cache key.
        at_once: how many questions it takes at the same time.
    """

    id: str
    at_once: int

    def __call__(self, question: Question, pictures: ShownFrames, repeat: int) -> Reply:
        """The answer to a question that is put for the `repeat`-th time, counted from 0.

        Raises:
            UnansweredError: there is none now.
            UserError: there can be none.
        """
        ...
