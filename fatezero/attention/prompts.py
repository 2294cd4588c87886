"""A prompt as the text encoder reads it: words, and the tokens of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fatezero.errors import UserError


@dataclass(frozen=True)
class Prompt:
    """A prompt as the text encoder reads it.

    Attributes:
        text: the prompt.
        ids: token ids with begin and end, without padding.
        words: the words between white space, as (word, positions of its tokens).
    """

    text: str
    ids: tuple[int, ...]
    words: tuple[tuple[str, tuple[int, ...]], ...]

    def tokens_of(self, word: str | int) -> tuple[int, ...]:
        """Positions of the tokens of a word.

        Args:
            word: a word as it stands in the prompt, case and punctuation included, all its occurrences; several
                words that follow each other; or the index of a word.

        Raises:
            UserError: if the prompt has no such word.
        """
        if isinstance(word, int):
            if not 0 <= word < len(self.words):
                raise UserError(f"The prompt {self.text!r} has {len(self.words)} words, so none has index {word}.")
            return self.words[word][1]
        wanted = word.split()
        spoken = [w for w, _ in self.words]
        starts = [i for i in range(len(spoken)) if wanted and spoken[i : i + len(wanted)] == wanted]
        if not starts:
            raise UserError(f"{word!r} is not a word of the prompt {self.text!r}; its words are: {', '.join(spoken)}.")
        return tuple(token for i in starts for _, tokens in self.words[i : i + len(wanted)] for token in tokens)


def read_prompt(tokenizer: Any, text: str) -> Prompt:
    """Tokenise a prompt and find its words' tokens by their character offsets.

    Raises:
        UserError: if the prompt is longer than the text encoder's context.
    """
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    if len(ids) > tokenizer.model_max_length:
        raise UserError(
            f"The prompt {text!r} has {len(ids)} tokens with begin and end, the text encoder reads "
            f"{tokenizer.model_max_length}: shorten it."
        )
    words = tuple(
        (
            match.group(),
            tuple(i for i, (a, b) in enumerate(offsets) if a < b and a < match.end() and b > match.start()),
        )
        for match in re.finditer(r"\S+", text)
    )
    return Prompt(text, tuple(ids), words)
