"""A prompt as the text encoder reads it: words, and the tokens of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fatezero.errors import UserError
from fatezero.system.terminal import quoted, shortened

WORDS_SHOWN = 1000  # characters of a prompt's words in a message


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

    @property
    def spelled(self) -> tuple[str, ...]:
        """Words that the tokenizer knows in no other way than letter by letter."""
        return tuple(word for word, tokens in self.words if 2 < len(word) <= len(tokens))

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
                raise UserError(f"The prompt {quoted(self.text)} has {len(self.words)} words: none has index {word}.")
            return self.words[word][1]
        wanted = word.split()
        spoken = [w for w, _ in self.words]
        starts = [i for i in range(len(spoken)) if wanted and spoken[i : i + len(wanted)] == wanted]
        if not starts:
            listed = shortened(", ".join(map(quoted, spoken)), WORDS_SHOWN)
            raise UserError(f"{quoted(word)} is not a word of the prompt {quoted(self.text)}; its words are: {listed}.")
        return tuple(token for i in starts for _, tokens in self.words[i : i + len(wanted)] for token in tokens)


def read_prompt(tokenizer: Any, text: str) -> Prompt:
    """Tokenise a prompt and find its words' tokens by their character offsets.

    Raises:
        UserError: if the prompt is longer than the text encoder's context, or holds what its tokenizer cannot read.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"The prompt {quoted(text)} holds half a character (a lone surrogate): write it in UTF-8.")
    encoded = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    if len(ids) > tokenizer.model_max_length:
        raise UserError(
            f"The prompt {quoted(text)} has {len(ids)} tokens with begin and end, the text encoder reads "
            f"{tokenizer.model_max_length}: shorten it."
        )
    words = tuple(
        (
            match.group(),
            tuple(i for i, (a, b) in enumerate(offsets) if a < b and a < match.end() and b > match.start()),
        )
        for match in re.finditer(r"\S+", text)
    )
    special = {*tokenizer.all_special_ids}
    unread = [i for i in range(1, len(ids) - 1) if ids[i] in special]  # it begins and ends with such marks
    for word, tokens in words:
        if not set(tokens).isdisjoint(unread):
            raise UserError(
                f"The prompt {quoted(text)} holds {quoted(word)}, which the checkpoint's tokenizer reads as a mark of "
                "begin, end or the unknown: write it in letters that the checkpoint knows."
            )
    return Prompt(text, tuple(ids), words)
