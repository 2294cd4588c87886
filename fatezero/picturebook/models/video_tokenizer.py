"""The tokenizer of the video model's text encoder: one token a word of the grammar, letters for anything else."""

from __future__ import annotations

import string

from transformers import T5Tokenizer

from fatezero.picturebook.models.tokenizer import grammar_words

VIDEO_CONTEXT = 13  # tokens: the twelve of the longest caption, its end mark included, and one of padding
START_OF_WORD = "\u2581"
WORD, LETTER = -1.0, -10.0  # log-probabilities: a word as a whole is likelier than any of its spellings


def new_video_tokenizer() -> T5Tokenizer:
    """A T5 tokenizer (Unigram; Kudo, ACL 2018) over the grammar's words."""
    words = [f"{START_OF_WORD}{word}" for word in grammar_words()]
    letters = [START_OF_WORD, *string.ascii_letters, *string.digits, *string.punctuation]
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary = [*marks, *((word, WORD) for word in words), *((letter, LETTER) for letter in letters)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)
