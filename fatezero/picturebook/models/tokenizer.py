"""The tokenizer of both text encoders: one token a word of the grammar, letters for anything else."""

from __future__ import annotations

import string

from transformers import CLIPTokenizer

from fatezero.picturebook.world.scenes import COLOURS, OBJECTS, PLACES, STYLES

CONTEXT = 20  # tokens, the start and end marks included
START, END = "<|startoftext|>", "<|endoftext|>"


def grammar_words() -> list[str]:
    """Every word a caption can hold, each once, in a fixed order."""
    phrases = [*OBJECTS, *COLOURS, *PLACES.values(), *STYLES, "of a an the"]
    return list(dict.fromkeys(word for phrase in phrases for word in phrase.split()))


def byte_pairs(words: list[str], merges: list[tuple[str, str]]) -> None:
    """Append to `merges` what makes each word one token.

    Later pairs rank behind earlier ones, so a word that is whole stays whole.
    """
    for word in words:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        for pair in merges:
            at = 0
            while at < len(pieces) - 1:
                if (pieces[at], pieces[at + 1]) == pair:
                    pieces[at : at + 2] = ["".join(pair)]
                at += 1
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces[0:2] = ["".join(pieces[0:2])]


def new_tokenizer() -> CLIPTokenizer:
    """A CLIPTokenizer over the grammar's words; START and END have the highest numbers, as in CLIP."""
    merges: list[tuple[str, str]] = []
    byte_pairs(grammar_words(), merges)
    letters = string.ascii_lowercase + string.digits + string.punctuation
    tokens = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), START, END])
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)}, merges=merges, model_max_length=CONTEXT
    )
