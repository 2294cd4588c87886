"""Single files of SDXL in their authors' layout: what loads computes what diffusers computes, the rest is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMInverseScheduler,
    DDIMScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from fatezero.cli import main
from fatezero.config import ModelOptions
from fatezero.diffusion.checkpoint import find_checkpoint, native_size, vae_folder
from fatezero.diffusion.clip_vocabulary import tokenizer_files
from fatezero.diffusion.ddim import schedule
from fatezero.diffusion.inversion import invert
from fatezero.diffusion.model_families.unet import UNetBackbone, unet_denoiser
from fatezero.diffusion.original_layout import OriginalFile, text_configs, unet_config, vae_config
from fatezero.diffusion.original_weights import original_weights
from fatezero.errors import UserError
from tests.integration.original_files import (
    SDXL_UNET,
    clip_names,
    prefixed,
    projecting_open_clip_names,
    sdxl_names,
    tiny_sdxl_networks,
    unet_names,
    vae_names,
)
from tests.integration.sampling import STEPS, loaded, sampled_by_diffusers, sampled_here
from tests.integration.sdxl_checkpoints import SDXL_UNET as PUBLISHED_UNET
from tests.integration.test_sdxl import PLAIN

PROMPT = "a jeep, on the road"
UNET, SECOND_TEXT = "model.diffusion_model.", "conditioner.embedders.1.model."
MARKS = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}  # as NoobAI's files bear them


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATEZERO_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For a tokenizer's folder of each encoder, and model.safetensors; not to be written to."""
    return tmp_path_factory.mktemp("sdxl")


@pytest.fixture(scope="module")
def pipe(root: Path) -> Any:
    """The pipeline of which model.safetensors was made, under DDIM."""
    for part, padding in (("first", "<|endoftext|>"), ("second", "!")):
        (root / part).mkdir()
        for name, text in tokenizer_files(padding).items():
            (root / part / name).write_text(text, encoding="utf-8")
    made = tiny_sdxl_networks(root / "first", root / "second")
    made.set_progress_bar_config(disable=True)
    save_file(sdxl_names(made), root / "model.safetensors")
    return made.to(torch.float64)


@pytest.fixture(scope="module")
def file(root: Path, pipe: Any) -> Path:
    """`pipe` in its authors' layout."""
    assert pipe
    return root / "model.safetensors"


@pytest.fixture(scope="module")
def weights(file: Path) -> dict[str, Tensor]:
    return load_file(file)


@torch.no_grad()
def assert_inverts_as(pipe: Any, backbone: UNetBackbone) -> None:
    """The pictures' latents, and each of the chain, by diffusers' networks and its inverse scheduler."""
    frames = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)).double()
    latents = pipe.vae.encode(frames * 2 - 1).latent_dist.mode() * 0.13025
    torch.testing.assert_close(backbone.encode(frames), latents, rtol=1e-5, atol=1e-5)
    with unet_denoiser(backbone, PLAIN, 1, None) as denoiser:
        trajectory = invert(denoiser, latents, PROMPT, schedule(backbone.scheduler_config, STEPS))
    inverse = DDIMInverseScheduler.from_config(pipe.scheduler.config)
    inverse.set_timesteps(STEPS)
    hidden, _, pooled, _ = pipe.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=False)
    told = {"text_embeds": pooled, "time_ids": torch.tensor([[128, 128, 0, 0, 128, 128]])}
    x = trajectory.latents[1]  # diffusers starts from alpha 1, the original from the final alpha
    for index, step in enumerate(trajectory.steps[1:], 1):
        output = pipe.unet(x, step.timestep, hidden, added_cond_kwargs=told).sample
        x = inverse.step(output, step.timestep, x).prev_sample
        torch.testing.assert_close(trajectory.latents[index + 1], x, rtol=1e-5, atol=1e-5)


def assert_samples_as(pipe: Any, backbone: UNetBackbone) -> None:
    """Guided, with diffusers' zeros for no prompt."""
    wanted = sampled_by_diffusers(pipe, PROMPT, negative=None, height=128, width=128)
    torch.testing.assert_close(sampled_here(backbone, PROMPT), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_single_file_of_sdxl(pipe: Any, file: Path, tmp_path: Path) -> None:
    """Computes what diffusers makes of the file, offline, by the configurations of the folder that it was made of."""
    pipe.save_pretrained(tmp_path / "folder")
    tokenizers = {"tokenizer": pipe.tokenizer, "tokenizer_2": pipe.tokenizer_2}
    theirs = StableDiffusionXLPipeline.from_single_file(
        str(file), config=str(tmp_path / "folder"), local_files_only=True, add_watermarker=False, **tokenizers
    ).to(torch.float64)
    theirs.set_progress_bar_config(disable=True)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        found = getattr(theirs, part).state_dict()
        assert all(torch.equal(found[name], value) for name, value in getattr(pipe, part).state_dict().items()), part
    backbone = loaded(file)
    assert_samples_as(theirs, backbone)
    assert_inverts_as(theirs, backbone)
    assert native_size(backbone.checkpoint.folder) == (1024, 32)
    assert backbone.vae.config.force_upcast


@pytest.mark.slow
def test_marks_of_v_prediction_and_no_terminal_signal(
    pipe: Any, weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Are rescaled betas, trailing steps and v under diffusers' DDIM."""
    fields = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    monkeypatch.setattr(pipe, "scheduler", DDIMScheduler.from_config(pipe.scheduler.config, **fields))
    save_file(weights | MARKS, tmp_path / "marked.safetensors")
    backbone = loaded(tmp_path / "marked.safetensors")
    assert {name: backbone.scheduler_config[name] for name in fields} == fields
    assert_samples_as(pipe, backbone)
    assert_inverts_as(pipe, backbone)


def test_a_header_of_full_size_describes_sdxl() -> None:
    """By shapes alone, what stabilityai/stable-diffusion-xl-base-1.0 says in its folder."""
    text = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    first = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    second = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
    first |= {**text, "projection_dim": 768, "hidden_act": "quick_gelu"}
    second |= {**text, "projection_dim": 1280, "hidden_act": "gelu"}
    vae = {
        "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4, "in_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "out_channels": 3,
        "norm_num_groups": 32, "use_quant_conv": True, "use_post_quant_conv": True, "scaling_factor": 0.13025,
        "force_upcast": True,
    }  # fmt: skip
    unet = {name: list(value) if isinstance(value, tuple) else value for name, value in PUBLISHED_UNET.items()}
    unet |= {"in_channels": 4, "out_channels": 4, "layers_per_block": 2, "norm_num_groups": 32}
    with torch.device("meta"):
        whole = {
            **prefixed(UNET, unet_names(UNet2DConditionModel(**PUBLISHED_UNET))),
            **prefixed("first_stage_model.", vae_names(AutoencoderKL(**vae))),
            **prefixed("conditioner.embedders.0.", clip_names(CLIPTextModel(CLIPTextConfig(**first)))),
            **prefixed(
                "conditioner.embedders.1.",
                projecting_open_clip_names(CLIPTextModelWithProjection(CLIPTextConfig(**second))),
            ),
        }
    header = OriginalFile(Path("file"), {name: tuple(value.shape) for name, value in whole.items()}, {})
    found = {
        "unet": unet_config(header, "SDXL", 128),
        "vae": vae_config(header, "first_stage_model.", 0.13025),
        **text_configs(header, "SDXL"),
    }
    classes = {"architectures": ["CLIPTextModelWithProjection"], "model_type": "clip_text_model"}
    assert found == {
        "unet": {**unet, "_class_name": "UNet2DConditionModel"},
        "vae": {**vae, "_class_name": "AutoencoderKL"},
        "text_encoder": {**first, **classes, "architectures": ["CLIPTextModel"]},
        "text_encoder_2": {**second, **classes},
    }


def test_its_folder_says_what_sdxls_says(pipe: Any, file: Path) -> None:
    folder = find_checkpoint(ModelOptions(model=str(file))).folder
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    theirs = {name: value for name, value in pipe.config.items() if not name.startswith("_")}
    assert index == {name: list(value) if isinstance(value, tuple) else value for name, value in theirs.items()} | {
        "_class_name": "StableDiffusionXLPipeline"
    }
    for part, padding in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        settings = json.loads((folder / part / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert settings["pad_token"] == padding
    assert pipe.tokenizer_2("a", padding="max_length").input_ids[-1] == 0


def test_its_autoencoder_in_place_of_another(pipe: Any, file: Path) -> None:
    """With the scaling factor of the model that it is given to."""
    checkpoint = find_checkpoint(ModelOptions(model=str(file))).folder
    folder = vae_folder(str(file), checkpoint)
    assert folder
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["scaling_factor"] == 0.13025
    found = original_weights("AutoencoderKL", config, folder / "original.safetensors")
    assert all(torch.equal(found[name].view_as(value), value) for name, value in pipe.vae.state_dict().items())


@pytest.fixture(scope="module")
def light(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """With a header like the file's, but no vocabularies."""
    return {name: value[:1] if "token_embedding" in name else value for name, value in weights.items()}


@pytest.mark.slow
def test_what_it_predicts(light: dict[str, Tensor], tmp_path: Path) -> None:
    """Epsilon, unless the file or the user says v."""
    kinds: tuple[tuple[dict[str, str], Literal["epsilon", "v_prediction"] | None, str], ...] = (
        ({}, None, "epsilon"),
        ({}, "v_prediction", "v_prediction"),
        ({"modelspec.prediction_type": "v"}, None, "v_prediction"),
        ({"modelspec.prediction_type": "flow"}, "epsilon", "epsilon"),
    )
    path = tmp_path / "model.safetensors"
    for metadata, asked, predicted in kinds:
        save_file(light, path, metadata)
        folder = find_checkpoint(ModelOptions(model=str(path), prediction_type=asked)).folder
        written = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        assert written["prediction_type"] == predicted
    with pytest.raises(UserError, match="notes that it predicts 'flow'"):
        find_checkpoint(ModelOptions(model=str(path)))


def test_sigmas_of_another_schedule_are_refused(pipe: Any, light: dict[str, Tensor], tmp_path: Path) -> None:
    """As SDXL's trainers keep the noise levels: by the noise's deviation to one of the signal."""
    own = ((1 - pipe.scheduler.alphas_cumprod) / pipe.scheduler.alphas_cumprod).sqrt()
    path = tmp_path / "model.safetensors"
    save_file(light | {"denoiser.sigmas": own.half()}, path)
    find_checkpoint(ModelOptions(model=str(path)))
    save_file(light | {"denoiser.sigmas": own * 2}, path)
    with pytest.raises(UserError, match=r"noise schedule of its own \(denoiser.sigmas\)"):
        find_checkpoint(ModelOptions(model=str(path)))


CONDITIONER = "conditioner.embedders."
PARTIAL = {
    "without its text encoder, or one of its two": ("first_stage_model.a", f"{CONDITIONER}0.transformer.a"),
    "without its autoencoder": (f"{CONDITIONER}0.transformer.a", f"{CONDITIONER}1.model.a"),
    "a UNet alone": (f"{UNET}label_emb.0.0.weight",),
}


@pytest.mark.parametrize("sentence", PARTIAL)
def test_a_file_without_a_part_is_refused(sentence: str, tmp_path: Path) -> None:
    names = (f"{UNET}input_blocks.0.0.weight", *PARTIAL[sentence])
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match=sentence):
        find_checkpoint(ModelOptions(model=str(tmp_path / "part.safetensors")))


def test_distilled_unets_are_refused() -> None:
    """Of other depths on the way up, as Segmind's SSD-1B, or with no attention in the middle, as its Vega."""
    uneven = SDXL_UNET | {"reverse_transformer_layers_per_block": ((2, 4), (1, 1), 1)}
    with torch.device("meta"):
        even, other = (unet_names(UNet2DConditionModel(**config)) for config in (SDXL_UNET, uneven))
    emptied = {name: value for name, value in even.items() if not name.startswith("middle_block.1.")}
    for names in (other, emptied):
        shapes = {name: tuple(value.shape) for name, value in prefixed(UNET, names).items()}
        with pytest.raises(UserError, match="levels of different depths"):
            unet_config(OriginalFile(Path("file"), shapes, {}), "SDXL", 128)


def test_a_weight_too_many_or_too_few(light: dict[str, Tensor], tmp_path: Path) -> None:
    """In the second text encoder, of which diffusers passes over what it does not know."""
    path, config = tmp_path / "model.safetensors", CLIPTextConfig(hidden_size=64)
    save_file(light | {f"{SECOND_TEXT}extra.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"has a weight .*1\.model\.extra\.weight"):
        original_weights("CLIPTextModelWithProjection", config, path)
    save_file({name: value for name, value in light.items() if name != f"{SECOND_TEXT}text_projection"}, path)
    with pytest.raises(UserError, match=r"has no weight .*text_projection"):
        find_checkpoint(ModelOptions(model=str(path)))


@pytest.mark.slow
def test_the_doctor_says_what_it_is(
    file: Path, weights: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And of an inpainting model, why it does not serve."""
    assert main(["doctor", str(file)]) == 0
    said = capsys.readouterr().out
    for line in ("a single file of SDXL in", "text_encoder_2: CLIPTextModelWithProjection of", "1024 x 1024 pixels"):
        assert line in said
    name, path = f"{UNET}input_blocks.0.0.weight", tmp_path / "model.safetensors"
    save_file(weights | {name: torch.zeros(32, 9, 3, 3)}, path)
    assert main(["doctor", str(path)]) == 1
    assert "a UNet for 9 channels and latents of 4: inpainting" in capsys.readouterr().out
