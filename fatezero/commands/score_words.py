"""What is said of scores at the end of a command: the few numbers, and what they are worth."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fatezero.shipped import JUDGE
from fatezero.system.terminal import quoted, say, shortened
from fatezero_eval.options import PICTUREBOOK_CLIP

if TYPE_CHECKING:
    from fatezero_eval.scoring.evaluation import Evaluation

WORDS_TOLD = 80  # characters of them, at most


def tell_scores(evaluation: Evaluation, judge: str) -> None:
    """Say the few scores that a person wants at once; and where the judge does not know the words it judged by.

    Args:
        evaluation: what came out.
        judge: its name, or where it lies.
    """
    from fatezero_eval.scoring.suite import by_id
    from fatezero_eval.tables.score_card import score_card

    judged = any(by_id(row.metric).network == "clip" for row in evaluation.rows)
    strange = unknown_words(evaluation.prompts) if judged and judge in {PICTUREBOOK_CLIP, str(JUDGE)} else []
    if strange:
        say(
            f"Judged by Picturebook-CLIP, which knows Picturebook's words alone, and not "
            f"{shortened(', '.join(map(quoted, strange)), WORDS_TOLD)}: for other clips name another judge, such as "
            "--judge ViT-B-32/openai."
        )
    card = score_card(evaluation.rows)
    if card:
        say(card)


def unknown_words(prompts: Iterable[str]) -> list[str]:
    """Words of prompts that the shipped judge reads letter by letter, each once."""
    vocabulary = json.loads((JUDGE / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = dict.fromkeys(word for prompt in prompts for word in re.findall(r"[^\W\d_]+", prompt.lower()))
    return [word for word in words if f"{word}</w>" not in vocabulary]
