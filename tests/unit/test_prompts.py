"""What a text encoder cannot read is refused, and messages stay readable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import CLIPTokenizer

from fatezero import shipped
from fatezero.attention.prompts import read_prompt
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.diffusion.backbone import Backbone
from fatezero.errors import UserError
from fatezero.pipeline import FateZero


@pytest.fixture(scope="module")
def picturebook() -> Any:
    """A tokenizer that knows ASCII alone."""
    return CLIPTokenizer.from_pretrained(shipped.CHECKPOINT / "tokenizer")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ein roter Käfer", "'Käfer'"),
        ("日本 jeep", "'日本'"),
        ("a 🦊 in the snow", "'🦊'"),
        ("a <|endoftext|> jeep", r"'<\|endoftext\|>'"),
        ("a <|startoftext|>", r"'<\|startoftext\|>'"),
        ("a jeep\x00in", r"'jeep\\x00in'"),
    ],
)
def test_what_turns_into_marks_is_refused(picturebook: Any, text: str, word: str) -> None:
    with pytest.raises(UserError, match=f"holds {word}, which"):
        read_prompt(picturebook, text)


@pytest.mark.parametrize("text", ["", "a jeep in the snow", "A JEEP, in the snow.", "a zebra!"])
def test_what_it_knows_or_spells_is_read(picturebook: Any, text: str) -> None:
    assert [word for word, _ in read_prompt(picturebook, text).words] == text.split()


def test_other_alphabets_are_read_where_the_tokenizer_knows_them(backbone32: Backbone) -> None:
    assert len(backbone32.read_prompt("ein roter Käfer 🦊").words) == 4


def test_words_that_are_spelled_are_known(picturebook: Any) -> None:
    assert read_prompt(picturebook, "a zebra in the snow, at 3").spelled == ("zebra",)


def test_the_user_is_told_of_spelled_words(backbone32: Backbone) -> None:
    said: list[str] = []
    editor = FateZero(backbone32, RuntimeConfig(device="cpu"), said.append)
    method = MethodConfig(steps=1, fusion=None, blending=None)
    editor.edit(np.zeros((1, 64, 64, 3), np.uint8), "a jeep", "a zyzzyx", method=method)
    assert [note for note in said if "letter by letter" in note] == [
        "'zyzzyx' is no word to this checkpoint, which reads it letter by letter"
    ]


def test_half_a_character_is_refused(picturebook: Any, backbone32: Backbone) -> None:
    for tokenizer in (picturebook, backbone32.tokenizer):
        with pytest.raises(UserError, match=r"'a \\ud800 jeep' holds half a character"):
            read_prompt(tokenizer, "a \ud800 jeep")


def test_messages_do_not_repeat_a_long_prompt(backbone32: Backbone) -> None:
    with pytest.raises(UserError) as refused:
        backbone32.read_prompt("jeep " * 10_000)
    assert len(str(refused.value)) < 400
    with pytest.raises(UserError) as refused:
        backbone32.read_prompt("a jeep").tokens_of("x" * 50_000)
    assert len(str(refused.value)) < 400


def test_words_are_quoted_one_by_one(backbone32: Backbone) -> None:
    with pytest.raises(UserError, match=r"'bus' is not .* its words are: 'a', 'silver', 'jeep,', '\\x1b\[1m'\.$"):
        backbone32.read_prompt("a silver jeep, \x1b[1m").tokens_of("bus")
