"""Textual inversions of one vector and of many, from files and from checkpoints, as diffusers reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.additions import find_additions
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.textual_inversion import add_embeddings
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from tests.integration.sampling import diffusers_pipeline, loaded, sampled_by_diffusers, sampled_here
from tests.integration.sdxl_checkpoints import tiny_sdxl

CAT = "<cat>"
PROMPTS = ["a <cat> on the road", "a <cat>, <CAT> and catalogue", "<cat>'s jeep (<cat>)"]


@pytest.fixture
def model(golden_folder: Path) -> Path:
    return golden_folder / "model"


@pytest.fixture
def pipe(model: Path) -> Any:
    return diffusers_pipeline(model)


def vectors(count: int, width: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def embedded_by_diffusers(pipe: Any, prompt: str, **how: Any) -> Tensor:
    made: Tensor = pipe.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False, **how)[0]
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "kept"),
    [
        ("of one vector", {CAT: vectors(1)[0]}),
        ("of diffusers", {CAT: vectors(3)}),
        ("of A1111", {"emb_params": vectors(3)}),
    ],
)
def test_layouts(layout: str, kept: Any, pipe: Any, model: Path, tmp_path: Path) -> None:
    save_file(kept, tmp_path / "cat.safetensors")
    asked = f"{tmp_path}/cat.safetensors" + ("=<cat>" if layout == "of A1111" else "")
    backbone = loaded(model, embedding=(asked,))
    pipe.load_textual_inversion(str(tmp_path / "cat.safetensors"), token=CAT)
    for prompt in PROMPTS[::2]:
        torch.testing.assert_close(
            backbone.embed(prompt).hidden, embedded_by_diffusers(pipe, prompt), rtol=0, atol=1e-5
        )
    made, expected = sampled_here(backbone, PROMPTS[0]), sampled_by_diffusers(pipe, PROMPTS[0])
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_prompt_is_expanded_as_diffusers_does(pipe: Any, model: Path, tmp_path: Path) -> None:
    """In any case, although diffusers gives a word in another case its first vector alone."""
    save_file({CAT: vectors(3)}, tmp_path / "cat.safetensors")
    backbone = loaded(model, embedding=(f"{tmp_path}/cat.safetensors",))
    pipe.load_textual_inversion(str(tmp_path / "cat.safetensors"))
    for prompt in PROMPTS:
        expanded = pipe.maybe_convert_prompt(prompt.replace("<CAT>", CAT), pipe.tokenizer)
        assert list(backbone.read_prompt(prompt).ids) == pipe.tokenizer(expanded).input_ids


@pytest.mark.slow
def test_an_edited_word_means_all_its_vectors(model: Path, tmp_path: Path) -> None:
    save_file({CAT: vectors(3)}, tmp_path / "cat.safetensors")
    prompt = loaded(model, embedding=(f"{tmp_path}/cat.safetensors",)).read_prompt("a <cat>, and jeep")
    assert prompt.tokens_of(CAT) == (2, 3, 4)
    assert prompt.tokens_of("<cat>,") == (2, 3, 4, 5)
    assert prompt.tokens_of("jeep") == (7,)
    assert prompt.spelled == ()


@pytest.mark.slow
def test_words_saved_in_a_checkpoint(pipe: Any, model: Path, tmp_path: Path) -> None:
    """The tokenizer and the text encoder of a checkpoint that was saved with a textual inversion of three vectors."""
    save_file({"emb_params": vectors(3)}, tmp_path / "cat.safetensors")
    pipe.load_textual_inversion(str(tmp_path / "cat.safetensors"), token=CAT)
    pipe.save_pretrained(tmp_path / "saved")
    backbone = loaded(tmp_path / "saved")
    torch.testing.assert_close(
        backbone.embed(PROMPTS[0]).hidden, embedded_by_diffusers(pipe, PROMPTS[0]), rtol=0, atol=1e-5
    )  # fmt: skip
    assert backbone.read_prompt(PROMPTS[0]).tokens_of(CAT) == (2, 3, 4)


@pytest.mark.slow
def test_two_text_encoders_learn_a_word_together(golden_folder: Path, tmp_path: Path) -> None:
    """From a file, and saved in a checkpoint."""
    pipe = tiny_sdxl(golden_folder)
    pipe.save_pretrained(tmp_path / "model")
    learned = {"clip_g": vectors(3, width=24), "clip_l": vectors(3)}
    save_file(learned, tmp_path / "cat.safetensors")
    for key, end in (("clip_l", ""), ("clip_g", "_2")):
        own = {part: getattr(pipe, part + end) for part in ("tokenizer", "text_encoder")}
        pipe.load_textual_inversion(learned[key], token=CAT, **own)
    pipe.save_pretrained(tmp_path / "saved")
    pipe.to(torch.float64)
    hidden, _, pooled, _ = pipe.encode_prompt(PROMPTS[0], device="cpu", do_classifier_free_guidance=False)
    for backbone in (
        loaded(tmp_path / "model", embedding=(f"{tmp_path}/cat.safetensors=<cat>",)),
        loaded(tmp_path / "saved"),
    ):
        told = backbone.embed(PROMPTS[0])
        torch.testing.assert_close((told.hidden, told.pooled), (hidden, pooled), rtol=0, atol=1e-5)
        assert backbone.read_prompt(PROMPTS[0]).tokens_of(CAT) == (2, 3, 4)


def test_pivotal_tunings_names_of_two_text_encoders(tmp_path: Path) -> None:
    save_file({"text_encoders_1": vectors(2, width=24), "text_encoders_0": vectors(2)}, tmp_path / "cat.safetensors")
    (found,) = find_additions(ModelOptions(embedding=(f"{tmp_path}/cat.safetensors",))).embeddings
    assert (found.keys, found.token) == (("text_encoders_0", "text_encoders_1"), "cat")


def test_a_word_for_one_of_two_text_encoders_is_refused(golden_folder: Path, tmp_path: Path) -> None:
    save_file({"clip_l": vectors(2)}, tmp_path / "cat.safetensors")
    with pytest.raises(UserError, match=r"for one text encoder .*, the checkpoint has 2"):
        learn(tiny_sdxl(golden_folder), f"{tmp_path}/cat.safetensors=<cat>")


@pytest.mark.slow
def test_an_edit_of_a_learned_word_masks_by_all_its_vectors(model: Path, tmp_path: Path) -> None:
    """With all backends, which agree; the attention of the word is the sum of its vectors' maps."""
    save_file({CAT: vectors(2)}, tmp_path / "cat.safetensors")
    backbone = loaded(model, embedding=(f"{tmp_path}/cat.safetensors",))
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    method = MethodConfig(steps=2, guidance_scale=2)
    made = []
    for backend in ("recompute", "qk", "maps"):
        editor = FateZero(backbone, RuntimeConfig(device="cpu", dtype="float32", backend=backend), lambda _: None)
        made.append(editor.edit(frames, "a <cat> runs", "a jeep runs", edited_words=(CAT,), method=method))
    for other in made[1:]:
        torch.testing.assert_close(other.latents, made[0].latents, rtol=0, atol=1e-5)
    assert list(made[0].attention) == [CAT]


def learn(pipe: Any, asked: str) -> None:
    add_embeddings(pipe, find_additions(ModelOptions(embedding=(asked,))).embeddings)


@pytest.mark.slow
@pytest.mark.parametrize("skipped", [0, 1])
@pytest.mark.parametrize("negative", ["", "a road"])
def test_layers_skipped_and_negative_prompts(skipped: int, negative: str, pipe: Any, model: Path) -> None:
    backbone = loaded(model, clip_skip=skipped)
    made = sampled_here(backbone, "a jeep", negative)
    if skipped and not hasattr(pipe.text_encoder, "text_model"):  # which diffusers asks for
        object.__setattr__(pipe.text_encoder, "text_model", pipe.text_encoder)
    expected = sampled_by_diffusers(pipe, "a jeep", negative, clip_skip=skipped or None)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
    if skipped or negative:
        assert not torch.allclose(expected, sampled_by_diffusers(pipe, "a jeep"), atol=1e-3)


@pytest.mark.slow
def test_what_is_added_is_part_of_the_digest(model: Path, tmp_path: Path, backbone32: UNetBackbone) -> None:
    save_file({CAT: vectors(2)}, tmp_path / "cat.safetensors")
    save_file({CAT: vectors(2, seed=1)}, tmp_path / "dog.safetensors")
    asked: list[dict[str, Any]] = [
        *(
            {"embedding": (f"{tmp_path}/{name}.safetensors{token}",)}
            for name in ("cat", "dog")
            for token in ("", "=<x>")
        ),
        {"clip_skip": 1},
        {},
    ]
    digests = {find_additions(ModelOptions(**each)).digest_with("model") for each in asked}
    assert len(digests) == len(asked)
    assert "model" in digests
    digest = backbone32.checkpoint.digest
    assert loaded(model, clip_skip=1).checkpoint.digest != loaded(model).checkpoint.digest == digest


@pytest.mark.parametrize(
    ("kept", "token", "complaint"),
    [
        ({CAT: vectors(1, width=16)}, "", "vectors of width 16, the text encoder's are 32 wide"),
        ({CAT: vectors(2) * torch.inf}, "", "NaN or infinity"),
        ({CAT: vectors(2)}, "=jeep</w>", "has the word 'jeep</w>' already"),
        ({CAT: vectors(2)}, "=two words", "'two words' is no single word"),
        ({CAT: vectors(2)}, "=", "'' is no single word"),
        ({"clip_l": vectors(2), "clip_g": vectors(2)}, "=<cat>", "for SDXL's two text encoders, the checkpoint has 1"),
        ({"clip_l": vectors(2), "clip_g": vectors(3)}, "=<cat>", "for SDXL two of as many"),
        ({"clip_l": vectors(2), "other": vectors(2)}, "=<cat>", "for SDXL two of as many"),
        ({CAT: vectors(80)}, "", "is one tensor of 1 to 75 vectors"),
        ({CAT: vectors(4)[None]}, "", "is one tensor of 1 to 75 vectors"),
    ],
)
def test_files_that_do_not_fit(kept: Any, token: str, complaint: str, golden_folder: Path, tmp_path: Path) -> None:
    save_file(kept, tmp_path / "cat.safetensors")
    with pytest.raises(UserError, match=complaint):
        learn(diffusers_pipeline(golden_folder / "model"), f"{tmp_path}/cat.safetensors{token}")


@pytest.mark.parametrize("text", ["nothing.safetensors", "nothing.safetensors=<cat>"])
def test_files_that_are_nowhere(text: str) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        find_additions(ModelOptions(embedding=(text,)))


def test_a_word_is_learned_once(model: Path, tmp_path: Path) -> None:
    save_file({CAT: vectors(2)}, tmp_path / "cat.safetensors")
    with pytest.raises(UserError, match="has the word '<cat>' already"):
        loaded(model, embedding=(f"{tmp_path}/cat.safetensors",) * 2)


@pytest.mark.slow
def test_more_layers_skipped_than_there_are(model: Path) -> None:
    with pytest.raises(UserError, match=r"clip_skip is 2, the text encoder of .* has 2 layers"):
        loaded(model, clip_skip=2)


def test_a_negative_prompt_without_guidance_is_refused() -> None:
    with pytest.raises(UserError, match="guidance_scale 1 leaves the unconditional branch out"):
        MethodConfig(guidance_scale=1, negative_prompt="a road")
