"""Attention of places to the tokens of a prompt, and the prompts of two text encoders."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPTokenizer

from fatezero import UserError
from fatezero.attention.fusion import probabilities, text_probabilities
from fatezero.attention.prompts import joined_prompts, read_framed_prompt, read_prompt, read_unmarked_prompt
from fatezero.attention.recorders import QUERIES_AT_ONCE, CrossMapAverage
from fatezero.attention.sites import Site
from fatezero.diffusion.model_families.sd3 import StableDiffusion3Networks
from tests.tiny_pipelines import CLIP_TOKENIZER, clip_tokenizer, llama_tokenizer, t5_tokenizer

TEXT = "a silver jeep, on the road"


@pytest.mark.parametrize("tokens", [1, 5, 11])  # of heads 4 wide: in one call, in two, all of the text
def test_words_are_columns_of_the_joint_map(tokens: int) -> None:
    queries, keys, text = (torch.randn(2, n, 3, 4, dtype=torch.float64) for n in (7, 7, 11))
    logits = torch.einsum("fqhd,fkhd->fqhk", queries, torch.cat([keys, text], 1)) / 2
    expected = logits.softmax(-1)[..., 7 : 7 + tokens]
    torch.testing.assert_close(text_probabilities(queries, keys, text, tokens), expected)


def test_small_shares_survive_half_precision() -> None:
    queries, keys, text = (torch.randn(1, n, 2, 8) for n in (3, 40_000, 4))
    exact = text_probabilities(queries, keys, text, 4)
    assert exact.max() < 1e-3
    rounded = text_probabilities(queries.half(), keys.half(), text.half(), 4)
    assert rounded.dtype == torch.float32
    assert ((rounded - exact).abs() / exact).max() < 0.02


def test_maps_of_long_clips_are_the_same_part_by_part() -> None:
    site = Site("one", "cross", "blocks", 1, 8, 2, 4)
    queries, keys = (torch.randn(1, n, 2, 4, dtype=torch.float64) for n in (2 * QUERIES_AT_ONCE + 6, 5))
    average = CrossMapAverage({"one"}, 3)
    average.see(site, queries, keys, None)
    seen = average.mean((2, 1)).flatten(0, 2)
    torch.testing.assert_close(seen, probabilities(queries, keys)[0, ..., :3].mean(0))


def test_a_prompt_that_both_clips_read_unlike_is_refused() -> None:
    clip = clip_tokenizer()
    other = CLIPTokenizer.from_pretrained(CLIP_TOKENIZER, pad_token="sil")  # taken out of words, as "!" in SD3's second
    pipe = SimpleNamespace(tokenizer=clip, tokenizer_2=other, tokenizer_3=None)
    networks = StableDiffusion3Networks("tiny", pipe)
    assert networks.read_prompt("a jeep").words
    with pytest.raises(UserError, match=r"tokens in the first text encoder and .* in the second, which reads 'sil'"):
        networks.read_prompt("a silver jeep")


def test_a_word_of_two_encoders_is_in_both_places() -> None:
    clip = clip_tokenizer()
    prompt = joined_prompts(
        read_prompt(clip, TEXT, most=1), read_unmarked_prompt(t5_tokenizer(), TEXT, 256, attends_to_padding=True), 0
    )
    first, second = (tuple(prompt.ids[place] for place in prompt.tokens_of("jeep")[i::2]) for i in (0, 1))
    assert first == tuple(clip("jeep").input_ids[1:-1])
    assert second == (t5_tokenizer()("jeep").input_ids[0],)
    assert prompt.tokens_of("jeep")[-1] >= 77
    assert prompt.places == 77 + 256


def test_a_prompt_within_a_template_has_its_own_places() -> None:
    tokenizer = llama_tokenizer()
    template = "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    before = len(tokenizer("<|start_header_id|>user<|end_header_id|>\n\n").input_ids)
    prompt = read_framed_prompt(tokenizer, TEXT, 64, template, before)
    read = {word: tokenizer.decode([prompt.ids[i] for i in prompt.tokens_of(word)]) for word in ("a", "silver", "road")}
    assert read == {"a": "a", "silver": " silver", "road": " road"}
    assert prompt.ids[-1] == tokenizer.convert_tokens_to_ids("<|eot_id|>")
