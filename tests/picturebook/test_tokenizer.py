from __future__ import annotations

from fatezero.picturebook.models.tokenizer import CONTEXT, END, START, grammar_words, new_tokenizer
from fatezero.picturebook.world.scenes import BACKGROUNDS, COLOURS, OBJECTS, STYLES, Scene


def test_every_word_of_the_grammar_is_one_token() -> None:
    tokenizer = new_tokenizer()
    for word in grammar_words():
        assert tokenizer.tokenize(word) == [f"{word}</w>"]


def test_other_words_fall_back_to_pieces_and_lose_nothing() -> None:
    tokenizer = new_tokenizer()
    assert "".join(tokenizer.tokenize("silver zeppelin")) == "silver</w>zeppelin</w>"


def test_longest_caption_fits() -> None:
    tokenizer = new_tokenizer()
    longest = max(
        (
            Scene(object=thing, background=place, colour=colour, style=style).caption
            for thing in OBJECTS
            for place in BACKGROUNDS
            for colour in COLOURS
            for style in STYLES
        ),
        key=lambda caption: len(caption.split()),
    )
    assert len(tokenizer(longest).input_ids) < CONTEXT


def test_marks_surround_a_caption_and_end_ranks_highest() -> None:
    tokenizer = new_tokenizer()
    tokens = tokenizer("a fox in the snow").input_ids
    assert tokenizer.convert_ids_to_tokens([tokens[0], tokens[-1]]) == [START, END]
    assert tokens[-1] == len(tokenizer) - 1  # open_clip finds the end of a text by the highest number
