"""Answers on disk, with the model's own words, under the digest of all that was put to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fatezero.data.files import read_json
from fatezero.system.publishing import replace_text
from fatezero_eval.networks.array_cache import digest
from fatezero_eval.vlm.answering import Reply
from fatezero_eval.vlm.questions import Question
from fatezero_eval.vlm.shown_frames import ShownFrames

_KINDS: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "prompt_tokens": (int, type(None)),
    "answer_tokens": (int, type(None)),
    "seconds": (int, float),
    "tries": (int,),
}


def answer_key(model: str, question: Question, pictures: ShownFrames, repeat: int) -> str:
    """Digest of a question as it is put: to whom, in which version, about which frames, for the how-manieth time."""
    shown = [pictures.edited, *([] if pictures.source is None else [pictures.source])]
    return digest("answer", model, question.version, question.text, str(repeat), *shown)


@dataclass(frozen=True)
class AnswerCache:
    """Replies kept as `<folder>/answers/<first two digits>/<digest>.json`; safe to share, to read and to delete.

    Attributes:
        folder: where they are kept; None keeps nothing.
    """

    folder: Path | None = None

    def get(self, key: str, about: dict[str, Any], ask: Callable[[], Reply]) -> tuple[Reply, bool]:
        """What is kept under the key, or else what `ask` returns; and whether it was kept.

        Args:
            key: of `answer_key`.
            about: what is written beside the reply, for whoever reads the file.
            ask: puts the question.
        """
        if self.folder is None:
            return ask(), False
        path = self.folder / "answers" / key[:2] / f"{key}.json"
        known = _read(path)
        if known is not None:
            return known, True
        reply = ask()
        replace_text(path, json.dumps({**about, **asdict(reply)}, ensure_ascii=False, indent=1) + "\n")
        return reply, False


def _read(path: Path) -> Reply | None:
    """The reply in a file; None where there is none, or a damaged one, which is asked for again."""
    try:
        values = read_json(path)
        found = {field.name: values[field.name] for field in fields(Reply)}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sound = all(type(value) in _KINDS[name] for name, value in found.items())
    return Reply(**found) if sound else None
