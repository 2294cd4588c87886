"""All questions of a set put to one model, as often as was asked for; and what its answers cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from threading import Event

from fatezero_eval.vlm.answer_cache import AnswerCache, answer_key
from fatezero_eval.vlm.answering import Answerer, Reply, UnansweredError
from fatezero_eval.vlm.questions import Question
from fatezero_eval.vlm.shown_frames import ShownFrames


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer to one question, or why there is none.

    Attributes:
        version: name and version of the kind of question.
        question: every word of it, after the pictures.
        repeat: the how-manieth answer this is, counted from 0.
        text: the model's words; empty where it did not answer.
        score: what they are worth; None where they are no answer to what was asked.
        failure: why there is no answer; empty where there is one.
        kept: whether the answer was there already.
        prompt_tokens: what the model read.
        answer_tokens: what it wrote.
        seconds: how long it took.
        tries: how often it was asked until it answered.
        model: who answered.
    """

    version: str
    question: str
    repeat: int
    text: str
    score: float | None
    failure: str
    kept: bool
    prompt_tokens: int | None
    answer_tokens: int | None
    seconds: float
    tries: int
    model: str


@dataclass(frozen=True)
class Interviewer:
    """Puts questions to a model.

    Attributes:
        answerer: the model.
        repeats: how often each question is put.
        cache: keeps the answers.
        stopped: tells the answerer that nobody waits any more.
    """

    answerer: Answerer
    repeats: int = 1
    cache: AnswerCache = field(default_factory=AnswerCache)
    stopped: Event = field(default_factory=Event)
    _lost: list[UnansweredError] = field(default_factory=list)  # why no further question would get an answer

    @property
    def id(self) -> str:
        """The model and where it runs."""
        return self.answerer.id

    def with_cache(self, folder: Path | None) -> Interviewer:
        """The same, keeping answers in a folder."""
        return replace(self, cache=AnswerCache(folder))

    def ask(self, questions: Sequence[Question], pictures: ShownFrames) -> tuple[Answer, ...]:
        """Every answer: to each question in turn, then to each again; one that fails costs no other.

        Which questions are put at the same time changes no answer.

        Args:
            questions: what is asked.
            pictures: what it is asked about.

        Raises:
            UserError: the model cannot answer such questions at all.
        """
        jobs = [(question, repeat) for repeat in range(self.repeats) for question in questions]
        one = partial(self._answer, pictures)
        if self.answerer.at_once == 1:
            return tuple(one(*job) for job in jobs)
        with ThreadPool(self.answerer.at_once) as pool:  # whose threads are not waited for once this is interrupted
            try:
                return tuple(pool.starmap(one, jobs, chunksize=1))
            except BaseException:
                self.stopped.set()
                raise

    def _answer(self, pictures: ShownFrames, question: Question, repeat: int) -> Answer:
        key = answer_key(self.id, question, pictures, repeat)
        about = {"model": self.id, "version": question.version, "question": question.text, "repeat": repeat}
        failure = ""
        try:
            reply, kept = self.cache.get(key, about, lambda: self._reply(question, pictures, repeat))
        except UnansweredError as unanswered:
            reply, kept, failure = Reply(text="", tries=unanswered.tries), False, str(unanswered)
        score = None if failure else question.score(reply.text)
        return Answer(
            version=question.version,
            question=question.text,
            repeat=repeat,
            score=score,
            failure=failure,
            kept=kept,
            model=self.id,
            **vars(reply),
        )

    def _reply(self, question: Question, pictures: ShownFrames, repeat: int) -> Reply:
        for lost in self._lost:
            raise UnansweredError(str(lost), 0, lasting=True)
        try:
            return self.answerer(question, pictures, repeat)
        except UnansweredError as unanswered:
            if unanswered.lasting:
                self._lost.append(unanswered)
            raise
