"""The model that the options name, ready to be asked."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event

from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.clip import ImageTextEncoder
from fatezero_eval.options import AskingOptions
from fatezero_eval.vlm.answer_cache import AnswerCache
from fatezero_eval.vlm.answering import Answerer
from fatezero_eval.vlm.clip_answerer import CaptionClassifier
from fatezero_eval.vlm.http_answerer import HttpAnswerer
from fatezero_eval.vlm.interview import Interviewer


def load_interviewer(
    options: AskingOptions, judge: ImageTextEncoder | None, cache: Path | None, device: str = "cpu"
) -> Interviewer:
    """Whoever answers: the model at an address or in a folder, or else the judge, which tells captions apart.

    Args:
        options: which model, and how it is asked.
        judge: the CLIP that answers where no other model is named.
        cache: folder that keeps answers and embeddings.
        device: where a model in a folder runs.

    Raises:
        UserError: there is no such model here.
    """
    stopped = Event()
    return Interviewer(
        _answerer(options, judge, cache, device, stopped), options.vlm_answers, AnswerCache(cache), stopped
    )


def _answerer(
    options: AskingOptions, judge: ImageTextEncoder | None, cache: Path | None, device: str, stopped: Event
) -> Answerer:
    if options.vlm is None:
        if judge is None:
            raise UserError("no model answers questions: name one with --vlm, or a CLIP with --judge.")
        return CaptionClassifier(judge, ArrayCache(cache))
    if options.is_address:
        if options.vlm_key != AskingOptions.vlm_key and options.vlm_key not in os.environ:
            raise UserError(f"--vlm-key names the environment variable {quoted(options.vlm_key)}, which is not set.")
        return HttpAnswerer(
            options.vlm,
            options.vlm_model or "",
            key=os.environ.get(options.vlm_key, ""),
            temperature=options.vlm_temperature,
            timeout=options.vlm_timeout,
            at_once=options.vlm_at_once,
            stopped=stopped,
        )
    from fatezero_eval.vlm.local_answerer import load_local  # noqa: PLC0415  (imports transformers)

    return load_local(Path(options.vlm), device, options.vlm_temperature)
