"""What of SDXL loads, what is refused by which sentence, and what edits with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffSDXLPipeline, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from fatezero.cli import main
from fatezero.clips.video import write_video
from fatezero.config import BlendingConfig, MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.checkpoint import Checkpoint, find_checkpoint, native_size
from fatezero.diffusion.components import check_description
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from tests.integration.sdxl_checkpoints import SDXL_UNET, UNET, change, motion_adapter, tiny_sdxl, whole_sdxl

SOURCE, TARGET = "a jeep on a road", "a bus on a road"
QUIET = RuntimeConfig(device="cpu", dtype="float32")
EXACT = RuntimeConfig(device="cpu", dtype="float64")  # in which what computes the same agrees, however it rounds


@pytest.fixture(scope="module")
def saved(golden_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SDXL checkpoint's folder; not to be written to."""
    folder = tmp_path_factory.mktemp("sdxl")
    tiny_sdxl(golden_folder).save_pretrained(folder)
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def pictures(frames: int = 2, side: int = 128) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (frames, side, side, 3), np.uint8)


def edit(backbone: UNetBackbone, runtime: RuntimeConfig = QUIET, **method: Any) -> np.ndarray:
    editor = FateZero(backbone, runtime, report=lambda _: None)
    chosen = MethodConfig(steps=2, **method)
    frames = editor.edit(pictures(), SOURCE, TARGET, edited_words=("jeep",), method=chosen).frames
    assert frames.shape == (2, 128, 128, 3)
    return frames


@pytest.mark.parametrize("pipeline", ["StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"])
def test_pipelines_of_the_same_parts_load(model: Path, pipeline: str) -> None:
    change(model / "model_index.json", _class_name=pipeline)
    assert find_checkpoint(ModelOptions(model=str(model))).folder == model


def test_sizes_are_around_what_the_checkpoint_says(model: Path) -> None:
    assert native_size(model) == (128, 32)
    change(model / "unet" / "config.json", sample_size=128)
    assert native_size(model) == (1024, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, torch.float32), ({"force_upcast": True}, torch.float32), ({"force_upcast": False}, torch.float16)],
)
def test_the_autoencoder_is_float32_where_float16_overflows(
    model: Path, settings: dict[str, Any], expected: torch.dtype
) -> None:
    """As its configuration says, or does not: older ones of SDXL's own do not, and mended ones do."""
    file = model / "vae" / "config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    del values["force_upcast"]
    file.write_text(json.dumps(values | settings), encoding="utf-8")
    backbone = UNetBackbone.load(str(model), RuntimeConfig(device="cpu", dtype="float16"))
    assert (backbone.vae.dtype, backbone.dtype) == (expected, torch.float16)
    frames = torch.rand(1, 3, 64, 64)
    found = backbone.decode(backbone.encode(frames))
    assert found.shape == frames.shape


@pytest.mark.slow
def test_a_large_activation_overflows_no_more(model: Path) -> None:
    """Weights whose activations go beyond float16's 65504: in float32 they decode."""
    file = model / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["post_quant_conv.weight"] *= 1e6
    save_file(tensors, file, {"format": "pt"})
    half = RuntimeConfig(device="cpu", dtype="float16")
    latents = torch.ones(1, 4, 8, 8)
    assert bool(UNetBackbone.load(str(model), half).decode(latents).isfinite().all())
    change(model / "vae" / "config.json", force_upcast=False)
    with pytest.raises(UserError, match="NaN or infinity"):
        UNetBackbone.load(str(model), half).decode(latents)


@pytest.mark.slow
def test_a_distilled_unet(golden_folder: Path, tmp_path: Path) -> None:
    """With other depths on the way up and no attention in the middle, as Segmind's SSD-1B."""
    shape = UNET | {"reverse_transformer_layers_per_block": ((2, 1, 2), (1, 1, 2), 1), "mid_block_type": None}
    tiny_sdxl(golden_folder, unet=UNet2DConditionModel(**shape)).save_pretrained(tmp_path)
    edit(UNetBackbone.load(str(tmp_path), QUIET))


@pytest.mark.slow
def test_autoencoder_tiny(model: Path) -> None:
    shape = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    AutoencoderTiny(**shape).save_pretrained(model / "vae")
    change(model / "model_index.json", vae=["diffusers", "AutoencoderTiny"])
    edit(UNetBackbone.load(str(model), QUIET))


def test_the_second_encoder_is_part_of_the_digest(model: Path) -> None:
    before = find_checkpoint(ModelOptions(model=str(model))).digest
    file = model / "text_encoder_2" / "model.safetensors"
    tensors = load_file(file)
    tensors["text_projection.weight"] += 1
    save_file(tensors, file, {"format": "pt"})
    assert find_checkpoint(ModelOptions(model=str(model))).digest != before


@pytest.mark.slow
def test_the_second_tokenizers_padding_is_read_from_older_files(saved: Path, model: Path, golden_folder: Path) -> None:
    """As SDXL was published: words and merges without tokenizer.json."""
    shutil.rmtree(model / "tokenizer_2")
    shutil.copytree(golden_folder / "model" / "tokenizer", model / "tokenizer_2")
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        change(model / "tokenizer_2" / name, pad_token="!")
    before, after = (UNetBackbone.load(str(folder), QUIET) for folder in (saved, model))
    assert torch.equal(before.embed(SOURCE).hidden, after.embed(SOURCE).hidden)
    second = after.texts.tokenizers[1]  # type: ignore[attr-defined]
    assert second("a", padding="max_length").input_ids[3:] == [0] * 74


REFINER = {"requires_aesthetics_score": True, "text_encoder": [None, None], "tokenizer": [None, None]}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (REFINER, "SDXL's refiner"),
        ({"text_encoder": [None, None], "tokenizer": [None, None]}, "SDXL's refiner"),
        ({"_class_name": "StableDiffusion3Pipeline"}, "it is diffusers.s FlowMatchEuler"),
        ({"_class_name": "FluxPipeline"}, "it is diffusers.s FlowMatchEuler"),
        ({"_class_name": "StableDiffusionXLInstructPix2PixPipeline"}, "of the class"),
        ({"_class_name": "StableDiffusionPipeline"}, "has no such part"),
        ({"text_encoder_2": ["transformers", "T5EncoderModel"]}, "'text_encoder_2'"),
        ({"tokenizer_2": ["evil", "CLIPTokenizer"]}, "'tokenizer_2'"),
        ({"force_zeros_for_empty_prompt": "yes"}, "it is true or false"),
    ],
)
def test_other_models_are_refused_by_name(model: Path, values: dict[str, Any], sentence: str) -> None:
    change(model / "model_index.json", **values)
    with pytest.raises(UserError, match=sentence):
        find_checkpoint(ModelOptions(model=str(model)))


def test_a_unet_of_stable_diffusion_in_a_folder_of_sdxl_is_refused(model: Path) -> None:
    change(model / "unet" / "config.json", addition_embed_type=None)
    with pytest.raises(UserError, match="no SDXL checkpoint: its UNet is of another kind"):
        find_checkpoint(ModelOptions(model=str(model)))


def _other_words(model: Path) -> None:
    file = model / "tokenizer_2" / "tokenizer.json"
    words = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = words["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(words), encoding="utf-8")


def _another_length(model: Path) -> None:
    change(model / "tokenizer_2" / "tokenizer_config.json", model_max_length=40)


def _without_projection(model: Path) -> None:
    file = model / "text_encoder_2" / "model.safetensors"
    tensors = load_file(file)
    tensors["nothing"] = tensors.pop("text_projection.weight")
    save_file(tensors, file, {"format": "pt"})


def _of_another_pooled_width(model: Path) -> None:
    """As the refiner's, which is told five numbers."""
    shape = UNET | {"projection_class_embeddings_input_dim": 64 - 8}
    UNet2DConditionModel(**shape).save_pretrained(model / "unet")


def _of_another_width(model: Path) -> None:
    UNet2DConditionModel(**(UNET | {"cross_attention_dim": 32})).save_pretrained(model / "unet")


def _nine_channels(model: Path) -> None:
    UNet2DConditionModel(**(UNET | {"in_channels": 9})).save_pretrained(model / "unet")


def _no_deviation(model: Path) -> None:
    change(model / "vae" / "config.json", latents_mean=[0.0] * 4, latents_std=[1.0, 0.0, 1.0, 1.0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_other_words, "know other words or lengths"),
        (_another_length, "know other words or lengths"),
        (_without_projection, "text_projection"),
        (_of_another_pooled_width, "told 56 numbers beside the prompt, SDXL's pooled text and sizes are 64"),
        (_of_another_width, "text encoder of width 56 and a UNet for 32"),
        (_nine_channels, "inpainting"),
        (_no_deviation, "latents_std"),
    ],
)
def test_parts_that_do_not_belong_together(model: Path, damage: Callable[[Path], None], sentence: str) -> None:
    damage(model)
    with pytest.raises(UserError, match=sentence):
        UNetBackbone.load(str(model), QUIET)


@pytest.mark.slow
def test_a_prompt_that_the_second_encoder_reads_with_more_tokens(golden_folder: Path, tmp_path: Path) -> None:
    """It takes its padding out of words; were they "!" and "!!", the places of all words behind would differ."""
    padding = CLIPTokenizer.from_pretrained(golden_folder / "model" / "tokenizer", pad_token="sil")
    tiny_sdxl(golden_folder, tokenizer_2=padding).save_pretrained(tmp_path)
    backbone = UNetBackbone.load(str(tmp_path), QUIET)
    backbone.read_prompt("a jeep!")
    with pytest.raises(UserError, match="tokens in the first text encoder"):
        backbone.read_prompt("a silver jeep")


@pytest.mark.slow
def test_a_motion_adapter_changes_nothing_untrained_and_something_trained(saved: Path, tmp_path: Path) -> None:
    """All that SDXL's UNet is told reaches it, which diffusers forgets of its embedding of sizes."""
    image = UNetBackbone.load(str(saved), EXACT)
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    texts = [image.embed_negative(""), image.embed(SOURCE)]
    alone = image.predict(torch.cat([latents, latents]), 501, texts, 4)
    for trained in (False, True):
        folder = motion_adapter(tmp_path / str(trained), trained=trained)
        video = UNetBackbone.load(ModelOptions(model=str(saved), motion_adapter=str(folder)), EXACT)
        moved = video.predict(torch.cat([latents, latents]), 501, texts, 4)
        assert torch.allclose(moved, alone, rtol=0, atol=1e-5) is not trained
    edit(video, EXACT, key_frames=())
    pipe = tiny_sdxl(Path(__file__).parents[1] / "golden")
    parts = {name: part for name, part in pipe.components.items() if name not in {"unet", "image_encoder"}}
    parts.pop("feature_extractor")
    AnimateDiffSDXLPipeline(**parts, unet=video.unet, motion_adapter=None).save_pretrained(tmp_path / "whole")
    whole = UNetBackbone.load(str(tmp_path / "whole"), EXACT)
    assert torch.allclose(whole.predict(torch.cat([latents, latents]), 501, texts, 4), moved, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_tune_and_edit_from_the_command_line(saved: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", pictures(3), 8)
    common = [f"--clip={tmp_path}/clip.mp4", "--height=128", "--width=128", "--device=cpu"]
    tuned, run = tmp_path / "tuned", tmp_path / "run"
    options = [f"--model={saved}", f"--prompt={SOURCE}", f"--out={tuned}", "--steps=2"]
    assert main(["tune", *common, *options]) == 0
    options = [
        f"--model={tuned}/model",
        f"--source={SOURCE}",
        f"--target={TARGET}",
        f"--out={run}",
        "--id=it",
        "--steps=2",
    ]
    assert main(["edit", *common, *options, "--edited_words=[jeep]"]) == 0
    assert (run / "fatezero" / "it" / "edited.mp4").stat().st_size > 500


@pytest.mark.slow
def test_masks_at_levels_without_words_are_refused(saved: Path) -> None:
    with pytest.raises(UserError, match=r"set blending.mask_downsampling to one of \[2, 4\]"):
        edit(UNetBackbone.load(str(saved), QUIET), blending=BlendingConfig(mask_downsampling=1))


@pytest.mark.slow
def test_the_whole_unet_is_vetted_without_weights() -> None:
    empty = check_description("UNet2DConditionModel", SDXL_UNET, "unet/config.json")
    assert sum(value.numel() for value in empty.parameters()) == 2_567_463_684


@pytest.mark.slow
def test_sdxl_in_its_own_shape(golden_folder: Path) -> None:
    """Two frames inverted and edited by 3.3 billion random numbers in bfloat16."""
    pipe = whole_sdxl(golden_folder, torch.bfloat16)
    backbone = UNetBackbone.of_pipeline(
        pipe, Checkpoint(ModelOptions(model="random SDXL"), Path()), torch.device("cpu")
    )
    del pipe
    method = MethodConfig(steps=1)
    editor = FateZero(backbone, RuntimeConfig(device="cpu", dtype="bfloat16"), report=lambda _: None)
    result = editor.edit(pictures(2, 32), SOURCE, TARGET, edited_words=("jeep",), method=method)
    assert result.frames.shape == (2, 32, 32, 3)
    assert bool(result.latents.isfinite().all())
