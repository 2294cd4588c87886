"""Prompts beyond the text encoder's context: read in several contexts, which stand side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fatezero.attention.mask_layers import MaskLayers
from fatezero.attention.word_maps import refinement_map, replacement_map
from fatezero.config import BlendingConfig, FusionConfig, MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.checkpoint import Checkpoint
from fatezero.diffusion.ddim import schedule
from fatezero.diffusion.inversion import invert
from fatezero.diffusion.model_families.unet import UNetBackbone, unet_denoiser
from fatezero.edit_plan import plan_edit
from fatezero.editing import EditStep, edit
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from fatezero.runs.inversion_cache import InversionCache
from fatezero.source_attention.backends import KeepMaps, KeepQueriesAndKeys, SourceAttention
from fatezero.source_attention.stores import MemoryStore
from tests.golden import reference
from tests.golden.reference import Reference, load_networks
from tests.integration.sdxl_checkpoints import POOLED, tiny_sdxl

FIRST = (  # 74 words of a token each: a context's room but for one token
    "the and our with all are now red man art low ball photo next side den black water white against blue style boy "
    "green dog board rock cute near woman met cat sky van river across round wall snow track bus brown painting color "
    "train fox pink ski berry moving craft hat golden plant wonder walking square flowers flower floor forest orange "
    "bear eating driver yellow wave truck trees colour ocean sitting grey lion"
)
SOURCE = f"{FIRST} silver jeep driving down a road"
TARGET = f"{FIRST} photorealistic car driving down a long road"  # the first new word lies in both contexts
SHORT, SHORT_TARGET = "a silver jeep driving down a road", "a car driving down a long road"
BACKENDS: dict[str, Callable[[], Any] | None] = {"recompute": None, "qk": KeepQueriesAndKeys, "maps": KeepMaps}


def by_hand(tokenizer: Any, prompt: str, contexts: int) -> Tensor:
    """Token ids of each context, cut and padded without the project's help."""
    begin, *own, end = tokenizer(prompt).input_ids
    rows = [[begin, *own[75 * i : 75 * (i + 1)], end] for i in range(contexts)]
    return torch.tensor([row + [tokenizer.pad_token_id] * (77 - len(row)) for row in rows])


@pytest.mark.slow
def test_places_are_those_of_the_contexts_side_by_side(backbone32: UNetBackbone) -> None:
    prompt = backbone32.read_prompt(TARGET, 3)
    rows = by_hand(backbone32.tokenizer, TARGET, 3)
    assert list(prompt.ids) == rows.flatten()[: len(prompt.ids)].tolist()
    assert prompt.tokens_of("the") == (1,)
    assert prompt.tokens_of("photorealistic") == (75, 78)
    assert prompt.tokens_of("car") == (79,)
    assert (prompt.places, prompt.ends) == (231, [76, 77 + 10, 154 + 1])  # "long" is three tokens
    assert backbone32.read_prompt(SHORT, 3).ids == backbone32.read_prompt(SHORT).ids


@pytest.mark.parametrize(
    ("words", "contexts", "sentence"),
    [
        (76, 1, "has 76 tokens, which take 2 contexts .* is 1: shorten it, or set prompt_contexts of the edit to 2"),
        (151, 2, "has 151 tokens, which take 3 contexts .* is 2: shorten it, or set prompt_contexts of the edit to 3"),
        (2000, 2, r"has 2000 tokens, which take 27 contexts .* is 2: shorten it\.$"),
    ],
)
def test_longer_prompts_are_refused(words: int, contexts: int, sentence: str, backbone32: UNetBackbone) -> None:
    backbone32.read_prompt("jeep " * 75 * contexts, contexts)
    with pytest.raises(UserError, match=sentence):
        backbone32.embed("jeep " * words, contexts)
    plan = (MethodConfig(steps=1, prompt_contexts=contexts, negative_prompt="jeep " * words), 1)
    with pytest.raises(UserError, match=sentence):
        plan_edit(backbone32, *plan, SHORT, SHORT_TARGET)


@pytest.mark.parametrize("skipped", [0, 1])
def test_each_context_is_encoded_by_itself(skipped: int, backbone32: UNetBackbone) -> None:
    encoder = backbone32.texts.encoder  # type: ignore[attr-defined]
    norm = getattr(encoder, "text_model", encoder).final_layer_norm
    for prompt in (TARGET, SHORT, ""):
        states = []
        for row in by_hand(backbone32.tokenizer, prompt, 2):
            said = encoder(row[None], output_hidden_states=True)
            states.append(norm(said.hidden_states[-2]) if skipped else said.last_hidden_state)
        hidden = backbone32.texts.embed(prompt, skipped, 2).hidden
        torch.testing.assert_close(hidden, torch.cat(states, dim=1), rtol=0, atol=1e-5)
    assert torch.equal(backbone32.embed_negative("", 2).hidden, backbone32.texts.embed("", 0, 2).hidden)


def test_sdxl_reads_both_encoders_and_pools_the_first_context(golden_folder: Path) -> None:
    pipe = tiny_sdxl(golden_folder)
    backbone = UNetBackbone.of_pipeline(
        pipe, Checkpoint(ModelOptions(model="sdxl"), golden_folder), torch.device("cpu")
    )
    told, nothing = backbone.embed(TARGET, 2), backbone.embed_negative("", 2)
    states, pooled = [], None
    for tokenizer, encoder in ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2)):
        said = [encoder(row[None], output_hidden_states=True) for row in by_hand(tokenizer, TARGET, 2)]
        states.append(torch.cat([one.hidden_states[-2] for one in said], dim=1))
        pooled = said[0].text_embeds if tokenizer is pipe.tokenizer_2 else None
    torch.testing.assert_close(told.hidden, torch.cat(states, dim=-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(told.pooled, pooled, rtol=0, atol=1e-5)
    assert nothing.pooled is not None
    assert (nothing.hidden.shape, nothing.pooled.shape) == ((1, 154, 56), (1, POOLED))
    assert not nothing.hidden.any()  # what this checkpoint is told in place of the empty prompt
    backbone.unet(torch.zeros(2, 4, 16, 16), 1, **backbone.conditioning([nothing, told], 1, (16, 16)))


@pytest.mark.parametrize("align", [refinement_map, replacement_map])
def test_short_prompts_align_as_in_one_context(align: Any, backbone32: UNetBackbone) -> None:
    pair = (SHORT, "a photorealistic car driving down a road")
    one, two = (align(*(backbone32.read_prompt(text, contexts) for text in pair)) for contexts in (1, 2))
    empty = torch.eye(77, dtype=torch.float64)
    torch.testing.assert_close(two.from_source, torch.block_diag(one.from_source, empty), rtol=0, atol=0)
    torch.testing.assert_close(two.own, torch.cat([one.own, torch.zeros(77)]), rtol=0, atol=0)


@pytest.mark.parametrize("align", [refinement_map, replacement_map])
def test_words_align_across_contexts(align: Any, backbone32: UNetBackbone) -> None:
    """A changed word of two tokens in the place of one moves "lion" into the second context, and all that follow."""
    source = backbone32.read_prompt(f"{FIRST} silver jeep", 2)
    target = backbone32.read_prompt(f"{FIRST} silver jeep".replace("boy", "photorealistic"), 2)
    assert (source.tokens_of("lion"), target.tokens_of("lion")) == ((74,), (75,))
    assert (source.tokens_of("silver"), target.tokens_of("silver")) == ((75,), (78,))
    word_map = align(source, target)
    for word in [*FIRST.replace("boy ", "").split(), "silver", "jeep"]:
        column = word_map.from_source[:, target.tokens_of(word)[0]]
        assert column.nonzero().flatten().tolist() == list(source.tokens_of(word))
    for context in (0, 1):  # begin stands behind begin, end behind end
        assert word_map.from_source[77 * context, 77 * context] == 1
        assert word_map.from_source[source.ends[context], target.ends[context]] == 1
    new = word_map.from_source[:, target.tokens_of("photorealistic")].sum(0)
    assert new.tolist() == ([0, 0] if align is refinement_map else [0.5, 0.5])


class InTwoContexts(Reference):
    """The reference, whose prompts fill two contexts of 77: places are moved, and each context encoded by itself."""

    def _embed(self, prompt: str) -> Tensor:
        rows = by_hand(self.pipe.tokenizer, prompt, 2)
        return torch.cat([self.pipe.text_encoder(row[None])[0] for row in rows], dim=1)

    def _words(self, prompt: str) -> list[list[int]]:
        return [[_moved(place) for place in word] for word in super()._words(prompt)]

    def _refinement(self) -> Tensor:
        mapper = torch.arange(154)
        count = len(self._ids(self.target))
        for place, behind in enumerate(super()._refinement()[: count - 1].tolist()):
            mapper[_moved(place)] = _moved(behind)
        mapper[_moved(count - 2) + 1] = _moved(len(self._ids(self.source)) - 2) + 1  # the second end
        return mapper


def _moved(place: int) -> int:
    """Where the token at a place of the prompt in one piece is."""
    return place + 2 * (max(place - 1, 0) // 75) if place >= 0 else place


METHOD = MethodConfig(
    steps=5,
    prompt_contexts=2,
    fusion=FusionConfig(
        cross_window=(0.0, 0.8), self_window=(0.0, 0.6), word_windows={"long": (0.0, 0.3)}, reweight={"car": 2.0}
    ),
    blending=BlendingConfig(threshold=0.8, latent_window=(0.2, 0.6)),
)
CONFIG: dict[str, Any] = {  # the same, in the words of FateZero's own configurations
    "dataset_config": {"prompt": SOURCE},
    "model_config": {"SparseCausalAttention_index": [0, "mid"]},
    "patched_token_limit": 8 * 8,
    "editing_config": {
        "editing_prompts": [TARGET],
        "num_inference_steps": 5,
        "guidance_scale": 7.5,
        "prompt2prompt_edit": True,
        "p2p_config": {
            0: {
                "cross_replace_steps": {"default_": 0.8, "long": 0.3},
                "self_replace_steps": 0.6,
                "is_replace_controller": False,
                "eq_params": {"words": ["car"], "values": [2.0]},
                "blend_words": [["jeep"], ["car"]],
                "blend_self_attention": True,
                "blend_latents": True,
                "blend_th": [0.8],
            }
        },
    },
}


@pytest.mark.slow
def test_an_edit_in_the_second_context_equals_the_reference(
    golden_folder: Path, backbone64: UNetBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every backend, in float64 to 1e-9: inversion, every step of the edit, and masks."""
    monkeypatch.setattr(reference, "CONTEXT", 154)
    clean = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    wanted = InTwoContexts(load_networks(golden_folder / "model"), CONFIG, {}, bugs=False).run(clean)
    steps = schedule(backbone64.scheduler_config, METHOD.steps)
    plan = plan_edit(backbone64, METHOD, METHOD.steps, SOURCE, TARGET, ("jeep",), ("car",))
    for keep in BACKENDS.values():
        attention = SourceAttention(keep(), MemoryStore(torch.device("cpu")), plan.needs) if keep else None
        seen: list[EditStep] = []
        with unet_denoiser(backbone64, METHOD, 2, None) as denoiser, torch.no_grad():
            trajectory = invert(denoiser, clean, SOURCE, steps, MaskLayers(4), attention)
            edit(denoiser, plan, trajectory, seen.append)
        for ours, theirs in zip([trajectory.latents[-1], *(step.latents for step in seen)],
                                [wanted.inverted, *wanted.edited], strict=True):  # fmt: skip
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * float(theirs.abs().max()))
        masks = {step.index: step.attention_mask.hard((16, 16)) for step in seen if step.attention_mask}
        assert masks.keys() == wanted.attention_masks.keys()
        assert all(torch.equal(mask, wanted.attention_masks[index]) for index, mask in masks.items())
        assert any(0 < float(mask.float().mean()) < 1 for mask in masks.values()), "a mask that says something"


def test_a_kept_inversion_is_one_of_as_many_contexts(backbone32: UNetBackbone, tmp_path: Path) -> None:
    said: list[str] = []
    cache = InversionCache(tmp_path)
    editor = FateZero(backbone32, RuntimeConfig(device="cpu"), cache=cache, detail=said.append)
    frames = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
    method = replace(METHOD, steps=1, fusion=FusionConfig(), blending=BlendingConfig())
    made = [
        editor.edit(
            frames, prompt, TARGET if contexts == 2 else SHORT_TARGET, edited_words=("jeep",),
            method=replace(method, prompt_contexts=contexts),
        )
        for prompt, contexts in ((SHORT, 1), (SHORT, 2), (SOURCE, 2), (SOURCE, 2))
    ]  # fmt: skip
    assert [note.endswith("from the cache") for note in said if note.startswith("kept")] == [False, False, False, True]
    np.testing.assert_array_equal(made[3].frames, made[2].frames)
    assert made[3].attention["jeep"].max() == 1
