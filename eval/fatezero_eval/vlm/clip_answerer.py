"""A CLIP as an answerer: of captions that stand for answers, the one that is nearest to the frames."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from fatezero.errors import UserError
from fatezero_eval.networks.array_cache import ArrayCache, digest
from fatezero_eval.networks.clip import ImageTextEncoder
from fatezero_eval.vlm.answering import Reply
from fatezero_eval.vlm.questions import Question
from fatezero_eval.vlm.shown_frames import ShownFrames


class CaptionClassifier:
    """Answers where captions stand for the answers; says the same however often it is asked."""

    at_once = 1

    def __init__(self, encoder: ImageTextEncoder, cache: ArrayCache) -> None:
        self.id = f"captions by {encoder.id}"
        self._encoder = encoder
        self._cache = cache

    def __call__(self, question: Question, pictures: ShownFrames, repeat: int) -> Reply:  # noqa: ARG002
        """See `Answerer`; the mean cosine over the frames decides, and of equal ones the first."""
        if not question.captions:
            raise UserError("no caption stands for an answer to this question, and a CLIP reads captions alone.")
        begun = perf_counter()
        encoder, frames = self._encoder, pictures.edited
        key = digest("images", encoder.id, frames)
        seen = self._cache.get(key, lambda: encoder.images(frames))["projected"]
        said = encoder.texts([*question.captions.values()])
        near = (seen.astype(np.float64) @ said.astype(np.float64).T).mean(0)
        return Reply(text=[*question.captions][int(near.argmax())], seconds=perf_counter() - begun)
