"""What a text encoder cannot read is refused, and messages stay readable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import CLIPTokenizer

from fatezero import shipped
from fatezero.attention.prompts import read_prompt, read_weights
from fatezero.config import FusionConfig, MethodConfig, RuntimeConfig
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from fatezero.results import with_weights


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


def test_other_alphabets_are_read_where_the_tokenizer_knows_them(backbone32: UNetBackbone) -> None:
    assert len(backbone32.read_prompt("ein roter Käfer 🦊").words) == 4


def test_words_that_are_spelled_are_known(picturebook: Any) -> None:
    assert read_prompt(picturebook, "a zebra in the snow, at 3").spelled == ("zebra",)


def test_the_user_is_told_of_spelled_words(backbone32: UNetBackbone) -> None:
    said: list[str] = []
    editor = FateZero(backbone32, RuntimeConfig(device="cpu"), said.append)
    method = MethodConfig(steps=1, fusion=None, blending=None)
    editor.edit(np.zeros((1, 64, 64, 3), np.uint8), "a jeep", "a zyzzyx", method=method)
    assert [note for note in said if "letter by letter" in note] == [
        "'zyzzyx' is no word to this checkpoint, which reads it letter by letter: use words that it knows, or another "
        "model"
    ]


def test_half_a_character_is_refused(picturebook: Any, backbone32: UNetBackbone) -> None:
    for tokenizer in (picturebook, backbone32.tokenizer):
        with pytest.raises(UserError, match=r"'a \\ud800 jeep' holds half a character"):
            read_prompt(tokenizer, "a \ud800 jeep")


@pytest.mark.slow
def test_messages_do_not_repeat_a_long_prompt(backbone32: UNetBackbone) -> None:
    with pytest.raises(UserError) as refused:
        backbone32.read_prompt("jeep " * 10_000)
    assert len(str(refused.value)) < 400
    with pytest.raises(UserError) as refused:
        backbone32.read_prompt("a jeep").tokens_of("x" * 50_000)
    assert len(str(refused.value)) < 400


def test_words_are_quoted_one_by_one(backbone32: UNetBackbone) -> None:
    with pytest.raises(UserError, match=r"'bus' is not .* its words are: 'a', 'silver', 'jeep,', '\\x1b\[1m'\.$"):
        backbone32.read_prompt("a silver jeep, \x1b[1m").tokens_of("bus")


@pytest.mark.parametrize("word", ["jeep", "Jeep", "JEEP", "jeep,", "(jeep", '"jeep"!'])
def test_words_are_found_in_spite_of_punctuation_and_case(backbone32: UNetBackbone, word: str) -> None:
    prompt = backbone32.read_prompt("a (silver jeep, at night; one jeep)")
    (comma,) = [i for i, token in enumerate(prompt.ids) if token == backbone32.tokenizer(",").input_ids[1]]
    jeeps = [i for i, token in enumerate(prompt.ids) if token == backbone32.tokenizer("jeep").input_ids[1]]
    assert comma == jeeps[0] + 1
    assert prompt.tokens_of(word) == ((*jeeps[:1], comma) if word == "jeep," else tuple(jeeps))


def test_accents_may_be_written_in_two_ways(backbone32: UNetBackbone) -> None:
    prompt = backbone32.read_prompt("a Ka\u0308fer on the road")
    assert prompt.tokens_of("k\u00e4fer") == prompt.words[1][1] == prompt.tokens_of("Ka\u0308fer")


@pytest.mark.parametrize("phrase", ["silver jeep", "Silver Jeep", "(silver jeep", "silver jeep,"])
def test_phrases_are_found_as_they_stand(backbone32: UNetBackbone, phrase: str) -> None:
    prompt = backbone32.read_prompt("a (silver jeep, and a jeep in silver")
    whole = [tokens for _, tokens in prompt.words]
    silver, jeep = (prompt.bare_words[i][1] for i in (1, 2))
    expected = {"(silver jeep": whole[1] + jeep, "silver jeep,": silver + whole[2]}
    assert prompt.tokens_of(phrase) == expected.get(phrase, silver + jeep)


def test_what_is_written_is_meant_and_what_is_not_may_be_ambiguous(backbone32: UNetBackbone) -> None:
    prompt = backbone32.read_prompt("us in the US, and us")
    assert prompt.tokens_of("US") == prompt.bare_words[3][1]
    assert prompt.tokens_of("us") == prompt.words[0][1] + prompt.words[5][1]
    with pytest.raises(UserError, match="'Us' may be 'US' or 'us' in the prompt"):
        prompt.tokens_of("Us")


@pytest.mark.parametrize("word", ["jep", "jeeps", "silver", "jeep and", "", ",", "jeep jeep"])
def test_misspelled_words_are_refused(backbone32: UNetBackbone, word: str) -> None:
    with pytest.raises(UserError, match="is not a word of the prompt"):
        backbone32.read_prompt("a jeep, or one").tokens_of(word)


def test_punctuation_that_is_part_of_a_word_stays(backbone32: UNetBackbone) -> None:
    prompt = backbone32.read_prompt("sks* and spider-man, 50% !")
    assert [word for word, _ in prompt.bare_words] == ["sks*", "and", "spider-man", "50%", "!"]


def test_weights_are_read_from_brackets() -> None:
    text = "a (silver jeep:1.5) on the ( road :-2), at (noon: 0.5)"
    assert read_weights(text) == (
        "a silver jeep on the road, at noon", {"silver jeep": 1.5, "road": -2.0, "noon": 0.5}
    )  # fmt: skip
    assert read_weights("no weight") == ("no weight", {})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a (jeep:much)", "brackets that are no weight"),
        ("a (jeep)", "brackets that are no weight"),
        ("a ((jeep:2))", "brackets that are no weight"),
        ("a (jeep:1.5", "brackets that are no weight"),
        ("a ( :1.5)", "brackets that are no weight"),
        ("a (jeep:1.5) and a Jeep, red", "weighs 'jeep', which it holds more than once"),
    ],
)
def test_brackets_that_are_no_weight(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        read_weights(text)


def test_weights_are_reweighting_only_when_asked_for(backbone32: UNetBackbone) -> None:
    editor = FateZero(backbone32, RuntimeConfig(device="cpu"), lambda _: None)
    frames = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)

    def edited(prompt: str, **method: Any) -> Any:
        return editor.edit(frames, "a jeep", prompt, method=MethodConfig(steps=1, **method)).latents

    window = {"cross_window": (0.0, 1.0)}
    asked = edited("a (bus:1.5)", prompt_weights=True, fusion=FusionConfig(**window))
    named = edited("a bus", fusion=FusionConfig(reweight={"bus": 1.5}, **window))
    assert asked.equal(named)
    assert not asked.equal(edited("a bus", fusion=FusionConfig(**window)))
    assert not asked.equal(edited("a (bus:1.5)", fusion=FusionConfig(**window)))


@pytest.mark.parametrize(
    ("fusion", "complaint"),
    [
        (None, "turn fusion on"),
        (FusionConfig(reweight={"bus": 2.0}), "do it in one place"),
    ],
)
def test_weights_that_cannot_be_given(fusion: FusionConfig | None, complaint: str) -> None:
    method = MethodConfig(fusion=fusion, blending=None, prompt_weights=True)
    with pytest.raises(UserError, match=complaint):
        with_weights("a (bus:1.5)", method)
