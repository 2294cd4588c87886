"""Checkpoints as people have them: every layout loads, computes what diffusers computes, or is refused in a sentence.

docs/reference/checkpoints.md lists the layouts, each with its test here.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMInverseScheduler,
    DDIMScheduler,
    MotionAdapter,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from open_clip import SimpleTokenizer
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTokenizer

from fatezero.cli import main
from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.checkpoint import adapter_folder, find_checkpoint, native_size
from fatezero.diffusion.clip_vocabulary import tokenizer_files
from fatezero.diffusion.components import load_motion_adapter
from fatezero.diffusion.ddim import move, schedule
from fatezero.diffusion.hub import HubName, hub_name, wanted_files
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.noise_schedule import STABLE_DIFFUSION
from fatezero.diffusion.original_layout import OriginalFile, text_configs, unet_config, vae_config
from fatezero.diffusion.pixels import to_unit_range
from fatezero.diffusion.vetting import read_scheduler
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from fatezero.results import Target
from tests.integration.original_files import (
    motion_names,
    prefixed,
    save_original,
    tiny_networks,
    unet_names,
    vae_names,
)

QUIET = RuntimeConfig(device="cpu", dtype="float32")
EXACT = RuntimeConfig(device="cpu", dtype="float64")  # in which what computes the same agrees, however it rounds
PROMPT, STEPS, GUIDANCE = "a jeep, on the road", 3, 4.0
PLAIN = MethodConfig(steps=STEPS, key_frames=(), norm_scope="frame", fusion=None, blending=None)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATEZERO_HOME", str(tmp_path / "home"))


def vocabulary(folder: Path, padding: str) -> Path:
    for name, text in tokenizer_files(padding).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 1.x: model.safetensors in its authors' layout, and the folder it was made of."""
    root = tmp_path_factory.mktemp("sd1")
    return _both_layouts(root, tiny_networks(vocabulary(root, "<|endoftext|>")), second=False)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 2.x that predicts v; its short prompts are filled up with "!", as published."""
    root = tmp_path_factory.mktemp("sd2")
    return _both_layouts(root, tiny_networks(vocabulary(root, "!"), second=True), second=True)


def _both_layouts(root: Path, pipe: Any, *, second: bool) -> Path:
    pipe.save_pretrained(root / "folder")
    save_original(pipe, root / "model.safetensors", second=second)
    return root


@pytest.fixture
def tiny(golden_folder: Path, tmp_path: Path) -> Path:
    """A copy of the golden checkpoint."""
    return Path(shutil.copytree(golden_folder / "model", tmp_path / "model"))


def load(model: Path | str, dtype: Any = "float32", **options: Any) -> UNetBackbone:
    return UNetBackbone.load(ModelOptions(model=str(model), **options), RuntimeConfig(device="cpu", dtype=dtype))


def assert_computes_as(pipe: Any, networks: ModelOptions) -> None:
    """The sampled image and the chain of an inversion equal those of a pipeline of diffusers."""
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(torch.float64)
    backbone = UNetBackbone.load(networks, EXACT)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    words = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "latents": noise, "output_type": "pt"}
    expected = pipe(PROMPT, **words).images
    torch.testing.assert_close(_sampled(backbone, noise), expected, rtol=1e-5, atol=1e-5)
    assert_inverts_as(pipe, FateZero(backbone, EXACT, report=lambda _: None))


def _sampled(backbone: UNetBackbone, x: Tensor) -> Tensor:
    text, empty = backbone.embed(PROMPT), backbone.embed("")
    for step in reversed(schedule(backbone.scheduler_config, STEPS)):
        alone, told = (backbone.predict(x, step.timestep, [one], 1) for one in (empty, text))
        output = alone + GUIDANCE * (told - alone)
        x = move(x, output, step.alpha_noisy, step.alpha_clean, backbone.prediction_type)
    return backbone.decode(x)


@torch.no_grad()
def assert_inverts_as(pipe: Any, editor: FateZero) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (1, 128, 128, 3), np.uint8)
    target = Target(prompt=PROMPT, edited_words=(), target_words=(), seed=0, method=PLAIN)
    trajectory = editor.invert(frames, PROMPT, [target]).trajectory
    assert trajectory is not None
    encoded = pipe.vae.encode(to_unit_range(frames) * 2 - 1).latent_dist.mode() * pipe.vae.config.scaling_factor
    torch.testing.assert_close(trajectory.latents[0], encoded, rtol=1e-5, atol=1e-5)
    inverse = DDIMInverseScheduler.from_config(pipe.scheduler.config)
    inverse.set_timesteps(STEPS)
    text, _ = pipe.encode_prompt(PROMPT, "cpu", 1, do_classifier_free_guidance=False)
    x = trajectory.latents[1]  # diffusers starts from alpha 1, the original from the final alpha
    for index, step in enumerate(trajectory.steps[1:], 1):
        output = pipe.unet(x, step.timestep, encoder_hidden_states=text).sample
        x = inverse.step(output, step.timestep, x).prev_sample
        torch.testing.assert_close(trajectory.latents[index + 1], x, rtol=1e-5, atol=1e-5)


def diffusers_own(root: Path) -> Any:
    """What diffusers makes of the single file, offline, by the folder's configurations."""
    return StableDiffusionPipeline.from_single_file(
        str(root / "model.safetensors"), config=str(root / "folder"), local_files_only=True, safety_checker=None
    )


@pytest.mark.slow
def test_a_single_file_of_stable_diffusion_1(first: Path) -> None:
    assert_computes_as(diffusers_own(first), ModelOptions(model=str(first / "model.safetensors")))


@pytest.mark.slow
def test_a_single_file_of_stable_diffusion_2(second: Path) -> None:
    """diffusers' conversion knows OpenCLIP's full depth only: the folder that the file was made of is the reference."""
    pipe = StableDiffusionPipeline.from_pretrained(second / "folder", safety_checker=None)
    networks = ModelOptions(model=str(second / "model.safetensors"), prediction_type="v_prediction")
    assert_computes_as(pipe, networks)


def test_the_vocabulary_is_clips(tmp_path: Path) -> None:
    """Token by token as open_clip's own tokenizer, which shares no code with transformers'."""
    ours, theirs = CLIPTokenizer.from_pretrained(vocabulary(tmp_path, "<|endoftext|>")), SimpleTokenizer()
    texts = (
        "a silver JEEP, on the road!",
        "café 日本 ½ naïve",
        "l'été 12345 -- it's",
        "antidisestablishmentarianism 🚗",
    )
    for text in texts:
        ids = ours(text)["input_ids"]
        assert ids == [theirs.sot_token_id, *theirs.encode(text), theirs.eot_token_id]
    assert len(ours.get_vocab()) == 49408


def test_a_header_of_full_size_describes_stable_diffusion_1() -> None:
    """By shapes alone, the published configuration, which is diffusers' default but for the width of the text."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, sample_size=64)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4,
        )  # fmt: skip
    weights = {**prefixed("model.diffusion_model.", unet_names(unet)), **prefixed("first_stage_model.", vae_names(vae))}
    header = OriginalFile(Path("file"), {name: tuple(value.shape) for name, value in weights.items()}, {})
    found = (unet_config(header, "Stable Diffusion 1.x", 64), vae_config(header, "first_stage_model.", 0.18215))
    for config, network in zip(found, (unet, vae), strict=True):
        for name, value in config.items():
            published = network.config.get(name)
            assert name == "_class_name" or value == (list(published) if isinstance(value, list) else published), name


@pytest.mark.parametrize("layers", [23, 24])
def test_the_text_encoder_of_stable_diffusion_2_has_23_layers(layers: int) -> None:
    """Whether the file has OpenCLIP's 24, of which the last is not used, or was made of a folder that has 23."""
    block = "cond_stage_model.model.transformer.resblocks."
    shapes = {
        "cond_stage_model.model.token_embedding.weight": (49408, 1024),
        "cond_stage_model.model.positional_embedding": (77, 1024),
        **{f"{block}{layer}.mlp.c_fc.weight": (4096, 1024) for layer in range(layers)},
    }
    (config,) = text_configs(OriginalFile(Path("file"), shapes, {}), "Stable Diffusion 2.x").values()
    assert (config["num_hidden_layers"], config["num_attention_heads"], config["hidden_act"]) == (23, 16, "gelu")


def test_a_single_file_says_what_it_predicts_or_is_told(second: Path, tmp_path: Path) -> None:
    file = second / "model.safetensors"
    with pytest.raises(UserError, match="does not say what its UNet predicts"):
        find_checkpoint(ModelOptions(model=str(file)))
    weights = load_file(file)
    save_file(weights, tmp_path / "noted.safetensors", {"modelspec.prediction_type": "v"})
    save_file({**weights, "v_pred": torch.zeros(0)}, tmp_path / "marked.safetensors")
    for name in ("noted", "marked"):
        found = find_checkpoint(ModelOptions(model=str(tmp_path / f"{name}.safetensors")))
        written = json.loads((found.folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        assert written["prediction_type"] == "v_prediction"
        assert native_size(found.folder) == (768, 64)
        with pytest.raises(UserError, match="predicts v_prediction, as it says itself"):
            find_checkpoint(ModelOptions(model=str(tmp_path / f"{name}.safetensors"), prediction_type="epsilon"))
    with pytest.raises(UserError, match="for single files"):
        find_checkpoint(ModelOptions(model=str(second / "folder"), prediction_type="v_prediction"))


def test_a_schedule_of_its_own_is_refused(first: Path, tmp_path: Path) -> None:
    weights = load_file(first / "model.safetensors")
    for name, alphas in (("half", weights["alphas_cumprod"].half()), ("other", torch.linspace(1, 0.1, 1000))):
        save_file({**weights, "alphas_cumprod": alphas}, tmp_path / f"{name}.safetensors")
    find_checkpoint(ModelOptions(model=str(tmp_path / "half.safetensors")))
    with pytest.raises(UserError, match="noise schedule of its own"):
        find_checkpoint(ModelOptions(model=str(tmp_path / "other.safetensors")))
    rescaled = DDIMScheduler(**STABLE_DIFFUSION, rescale_betas_zero_snr=True).alphas_cumprod
    save_file({**weights, "alphas_cumprod": rescaled}, tmp_path / "unmarked.safetensors")
    with pytest.raises(UserError, match="noise schedule of its own"):
        find_checkpoint(ModelOptions(model=str(tmp_path / "unmarked.safetensors")))


def test_a_mark_of_no_terminal_signal(second: Path, tmp_path: Path) -> None:
    """Is rescaled betas and trailing steps: the levels of diffusers' DDIM, whatever the file holds of those before."""
    fields = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    theirs = DDIMScheduler(**STABLE_DIFFUSION, **fields)
    theirs.set_timesteps(STEPS)
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    weights, path = load_file(second / "model.safetensors"), tmp_path / "model.safetensors"
    for left_behind in (weights["alphas_cumprod"], theirs.alphas_cumprod):
        save_file(weights | marks | {"alphas_cumprod": left_behind}, path)
        folder = find_checkpoint(ModelOptions(model=str(path))).folder
        steps = schedule(read_scheduler(folder / "scheduler" / "scheduler_config.json"), STEPS)
        assert [step.timestep for step in reversed(steps)] == theirs.timesteps.tolist()
        alphas = torch.tensor([step.alpha_noisy for step in reversed(steps)])
        torch.testing.assert_close(alphas, theirs.alphas_cumprod[theirs.timesteps], rtol=0, atol=1e-6)
        assert alphas[0] == 0


@pytest.mark.slow
def test_a_weight_of_a_single_file_that_no_layer_takes_is_refused(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the doctor too, who reads no weights."""
    for name in ("model.diffusion_model.time_embed.extra.weight", "first_stage_model.encoder.extra.weight"):
        save_file({**load_file(first / "model.safetensors"), name: torch.zeros(2)}, tmp_path / "more.safetensors")
        with pytest.raises(UserError, match=name.rpartition("model.")[2].replace(".", r"\.")):
            load(tmp_path / "more.safetensors")
    status, said = findings(str(tmp_path / "more.safetensors"), capsys=capsys)
    assert (status, "encoder.extra" in said) == (1, True)


@pytest.mark.slow
def test_a_single_file_without_a_weight_is_refused(first: Path, tmp_path: Path) -> None:
    weights = load_file(first / "model.safetensors")
    names = ("model.diffusion_model.middle_block.0.in_layers.0.bias", "first_stage_model.quant_conv.bias")
    for name in names:
        save_file({other: value for other, value in weights.items() if other != name}, tmp_path / "less.safetensors")
        with pytest.raises(UserError, match=r"has no weight|describes"):
            load(tmp_path / "less.safetensors")


def test_the_digest_is_of_the_files_content(first: Path, tmp_path: Path) -> None:
    """Not of where it lies; and another content under the same header is another checkpoint."""
    file = Path(shutil.copy(first / "model.safetensors", tmp_path / "model.safetensors"))
    digest = find_checkpoint(ModelOptions(model=str(file))).digest
    assert digest == find_checkpoint(ModelOptions(model=str(first / "model.safetensors"))).digest
    weights = load_file(file)
    weights["model.diffusion_model.out.2.bias"] += 1
    save_file(weights, file)
    assert find_checkpoint(ModelOptions(model=str(file))).digest != digest


def test_the_digest_is_of_linked_folders_too(tiny: Path, tmp_path: Path) -> None:
    """People share a UNet or text encoder among checkpoints."""
    (tiny / "unet").rename(tmp_path / "shared")
    (tiny / "unet").symlink_to(tmp_path / "shared")
    digest = find_checkpoint(ModelOptions(model=str(tiny))).digest
    file = tmp_path / "shared" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    save_file({**weights, "conv_out.bias": weights["conv_out.bias"] + 1}, file)
    assert find_checkpoint(ModelOptions(model=str(tiny))).digest != digest


def test_a_name_may_be_as_long_as_the_disk_lets_it(first: Path, tmp_path: Path) -> None:
    (tmp_path / f"{'é' * 120}.safetensors").symlink_to(first / "model.safetensors")
    assert find_checkpoint(ModelOptions(model=str(tmp_path / f"{'é' * 120}.safetensors"))).folder.is_dir()
    for name in ("x" * 5000, "~nobody-of-this-name/model"):
        with pytest.raises(UserError, match=r"There is no checkpoint .*: check the path"):
            find_checkpoint(ModelOptions(model=name))


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        (b"PK\x03\x04", "fatezero convert"),
        (b"\x80\x02", "fatezero convert"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"", "get it again"),
    ],
)
def test_what_is_not_safetensors_but_for_its_name(start: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(start + bytes(20) if start else b"")
    with pytest.raises(UserError, match=f"does not read as safetensors .*{sentence}"):
        find_checkpoint(ModelOptions(model=str(tmp_path / "model.safetensors")))


@pytest.mark.parametrize("pipeline", ["LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline"])
def test_pipelines_of_the_same_parts_load(pipeline: str, tiny: Path) -> None:
    index = tiny / "model_index.json"
    index.write_text(index.read_text(encoding="utf-8").replace("StableDiffusionPipeline", pipeline), encoding="utf-8")
    assert find_checkpoint(ModelOptions(model=str(tiny))).folder == tiny


def test_missing_and_misnamed_weights_are_named(tiny: Path) -> None:
    weights = tiny / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(tiny / "unet" / "model.safetensors")
    with pytest.raises(UserError, match=r"no diffusion_pytorch_model.safetensors but model.safetensors"):
        find_checkpoint(ModelOptions(model=str(tiny)))
    index = {"weight_map": {"conv_in.bias": "diffusion_pytorch_model-00001-of-00001.safetensors"}}
    Path(f"{weights}.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(UserError, match=r"00001-of-00001.safetensors is missing .* the index beside it names it"):
        find_checkpoint(ModelOptions(model=str(tiny)))


FOREIGN = {
    "lora_unet_down_blocks_0.lora_up.weight": "a LoRA",
    "control_model.input_blocks.0.0.weight": "a ControlNet",
    "emb_params": "a textual inversion",
    "model.diffusion_model.joint_blocks.0.x.weight": "Stable Diffusion 3",
    "model.diffusion_model.double_blocks.0.x.weight": "Flux",
    "conditioner.embedders.0.model.ln_final.weight": "the refiner of SDXL",
    "model.diffusion_model.input_blocks.1.1.time_stack.0.norm1.weight": "a video model",
    "model.diffusion_model.time_embed.cond_proj.weight": r"LCM.*guidance embedding.*give its folder",
    "edm_mean": "Playground",
    "edm_vpred.sigma_max": "CosXL",
    "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": "a motion module",
    "encoder.down.0.block.0.conv1.weight": "an autoencoder alone",
    "model.diffusion_model.input_blocks.0.0.weight": "a UNet alone",
    "something.else": "no Stable Diffusion checkpoint",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_refused_by_what_they_are(name: str, tmp_path: Path) -> None:
    save_file({name: torch.zeros(2, 2)}, tmp_path / "file.safetensors")
    with pytest.raises(UserError, match=FOREIGN[name]):
        find_checkpoint(ModelOptions(model=str(tmp_path / "file.safetensors")))


def test_a_unet_alone_in_diffusers_layout_is_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match="a UNet alone"):
        load(tiny / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".pth"])
def test_pickles_are_refused_with_the_way_in(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"model{suffix}").write_bytes(b"anything")
    for options in ({"model": "model"}, {"vae": "model"}, {"motion_adapter": "model"}):
        asked = {name: str(tmp_path / f"{value}{suffix}") for name, value in options.items()}
        with pytest.raises(UserError, match="fatezero convert"):
            find_checkpoint(ModelOptions(**asked))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["5MB", "20KB"], ids=["whole", "sharded"])
def test_a_folder_of_one_variant_loads(size: str, golden_folder: Path, tmp_path: Path) -> None:
    """There is one set of weights: that of another name."""
    pipe = StableDiffusionPipeline.from_pretrained(golden_folder / "model", safety_checker=None)
    pipe.save_pretrained(tmp_path, variant="fp16", max_shard_size=size)
    shards = list(tmp_path.glob("unet/*.fp16-*-of-*.safetensors"))
    assert bool(shards) == (size == "20KB")
    assert_computes_as(pipe, ModelOptions(model=str(tmp_path)))


@pytest.mark.slow
def test_shards_in_full_precision_load(golden_folder: Path, tmp_path: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(golden_folder / "model", safety_checker=None)
    pipe.save_pretrained(tmp_path, max_shard_size="20KB")
    assert_computes_as(pipe, ModelOptions(model=str(tmp_path)))


@pytest.mark.slow
def test_of_several_variants_the_one_that_fits_is_read(tiny: Path) -> None:
    """By dtype, or as asked for; in a network that has no such variant, as if nothing was asked."""
    stem = tiny / "unet" / "diffusion_pytorch_model"
    weights = load_file(f"{stem}.safetensors")
    for value, variant in enumerate(("fp16", "non_ema"), 1):
        changed = {**weights, "conv_out.bias": torch.full_like(weights["conv_out.bias"], value)}
        save_file(changed, f"{stem}.{variant}.safetensors", {"format": "pt"})

    def bias(dtype: str, variant: str | None) -> float:
        return float(load(tiny, dtype, weights_variant=variant).unet.conv_out.bias[0])

    full = float(weights["conv_out.bias"][0])
    assert bias("float32", None) == bias("float64", None) == pytest.approx(full)
    assert (bias("float16", None), bias("float32", "fp16"), bias("float16", "non_ema")) == (1, 1, 2)
    with pytest.raises(UserError, match="variants in it are fp16, non_ema"):
        load(tiny, weights_variant="ema")
    Path(f"{stem}.safetensors").unlink()
    with pytest.raises(UserError, match="fp16, non_ema and none for dtype float32"):
        load(tiny)


def test_a_variant_that_is_asked_for_changes_the_digest(tiny: Path) -> None:
    shutil.copy(
        tiny / "unet" / "diffusion_pytorch_model.safetensors", tiny / "unet" / "diffusion_pytorch_model.ema.safetensors"
    )
    asked, open_ = (find_checkpoint(ModelOptions(model=str(tiny), weights_variant=one)) for one in ("ema", None))
    assert asked.digest != open_.digest


def other_vae() -> AutoencoderKL:
    torch.manual_seed(5)
    return AutoencoderKL(
        block_out_channels=(32, 32, 32, 64), layers_per_block=1, norm_num_groups=32, scaling_factor=0.5,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip


@pytest.mark.slow
def test_another_autoencoder_from_a_folder(first: Path, tmp_path: Path) -> None:
    vae = other_vae()
    vae.save_pretrained(tmp_path / "vae", variant="fp16")
    pipe = StableDiffusionPipeline.from_pretrained(first / "folder", vae=vae, safety_checker=None)
    networks = ModelOptions(model=str(first / "model.safetensors"), vae=str(tmp_path / "vae"))
    assert_computes_as(pipe, networks)
    assert find_checkpoint(networks).digest != find_checkpoint(ModelOptions(model=networks.model)).digest


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_another_autoencoder_from_a_file(prefix: str, first: Path, tmp_path: Path) -> None:
    """No such file says its scale, which is that of the latents that the UNet knows."""
    vae = other_vae()
    vae.register_to_config(scaling_factor=0.18215)
    save_file({**prefixed(prefix, vae_names(vae)), "loss.logvar": torch.zeros(1)}, tmp_path / "vae.safetensors")
    pipe = StableDiffusionPipeline.from_pretrained(first / "folder", vae=vae, safety_checker=None)
    assert_computes_as(pipe, ModelOptions(model=str(first / "folder"), vae=str(tmp_path / "vae.safetensors")))


def tiny_autoencoder(folder: Path) -> Any:
    torch.manual_seed(0)
    vae = AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    vae.save_pretrained(folder)
    return vae


def test_another_autoencoder_may_be_tiny(golden_folder: Path, tmp_path: Path) -> None:
    vae = tiny_autoencoder(tmp_path / "vae")
    backbone = load(golden_folder / "model", vae=str(tmp_path / "vae"))
    frames = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(backbone.encode(frames), vae.encode(frames * 2 - 1).latents * vae.config.scaling_factor)


def test_an_autoencoder_of_other_latents_is_refused(golden_folder: Path, tmp_path: Path) -> None:
    AutoencoderKL(latent_channels=16).save_pretrained(tmp_path / "vae")
    with pytest.raises(UserError, match="latents of 16 channels, the model is for 4"):
        load(golden_folder / "model", vae=str(tmp_path / "vae"))
    AutoencoderKL(latent_channels=4).save_pretrained(tmp_path / "vae")
    with pytest.raises(UserError, match="one latent of 1 x 1 pixels, the model's own of 8 x 8"):
        load(golden_folder / "model", vae=str(tmp_path / "vae"))
    config = tmp_path / "vae" / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace("block_out_channels", "other"), encoding="utf-8")
    with pytest.raises(UserError, match="does not say the autoencoder's levels"):
        load(golden_folder / "model", vae=str(tmp_path / "vae"))


def tiny_adapter(**changes: Any) -> MotionAdapter:
    torch.manual_seed(7)
    shape = {"block_out_channels": (32, 32, 64, 64), "motion_max_seq_length": 24, "motion_norm_num_groups": 32}
    return MotionAdapter(**(shape | changes))


@pytest.mark.parametrize("middle", [True, False], ids=["version 2", "version 1"])
def test_a_motion_module_in_one_file(middle: bool, tmp_path: Path) -> None:
    """AnimateDiff's own layout gives the same network as the adapter's folder, and as diffusers' own reading."""
    adapter = tiny_adapter(use_motion_mid_block=middle)
    adapter.save_pretrained(tmp_path / "folder")
    names = motion_names(adapter)
    save_file({name: value.contiguous() for name, value in names.items()}, tmp_path / "mm.safetensors")
    both = ("folder", "mm.safetensors")
    folders = [adapter_folder(str(tmp_path / name)) for name in both]
    made = [load_motion_adapter(folder, torch.float32) for folder in folders if folder]
    theirs = MotionAdapter.from_single_file(str(tmp_path / "mm.safetensors"), config=str(tmp_path / "folder"))
    expected, found = (one.state_dict() for one in made)
    assert expected.keys() == found.keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():  # places in time are computed, by diffusers in the same way
        assert torch.equal(found[name], expected[name])
        assert torch.equal(found[name], value)
    digests = [find_checkpoint(ModelOptions(motion_adapter=str(tmp_path / name))).digest for name in both]
    assert len({*digests, find_checkpoint(ModelOptions()).digest}) == 3


def test_a_motion_adapter_of_one_variant(tmp_path: Path) -> None:
    adapter = tiny_adapter()
    adapter.save_pretrained(tmp_path / "fp16", variant="fp16")
    folder = adapter_folder(str(tmp_path / "fp16"))
    assert folder
    found = load_motion_adapter(folder, torch.float32).state_dict()
    assert all(torch.equal(found[name], value) for name, value in adapter.state_dict().items())


NAMES = {
    "owner/name": HubName("owner/name"),
    "owner/name/model.safetensors": HubName("owner/name", "model.safetensors"),
    "owner/name/sub folder/model.fp16.safetensors": HubName("owner/name", "sub folder/model.fp16.safetensors"),
    "https://huggingface.co/owner/name": HubName("owner/name"),
    "https://huggingface.co/owner/name/tree/v1.0": HubName("owner/name", revision="v1.0"),
    "https://huggingface.co/owner/name/blob/main/a/b.safetensors": HubName("owner/name", "a/b.safetensors", "main"),
    "https://hf.co/owner/name/resolve/v1.0/b.safetensors?download=true": HubName("owner/name", "b.safetensors", "v1.0"),
    "nobody": None,
    "./here": None,
    "/there/model.safetensors": None,
    "owner/../../etc/passwd.json": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_hub(name: str) -> None:
    assert hub_name(name) == NAMES[name]


def test_addresses_elsewhere_are_refused() -> None:
    for address in (
        "https://civitai.com/models/1",
        "http://huggingface.co/owner/name",
        "https://huggingface.co.evil/a/b",
    ):
        with pytest.raises(UserError, match="download it"):
            hub_name(address)


def test_of_a_repository_one_set_of_weights_is_fetched() -> None:
    stems = [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")]
    both = ["unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"]
    index = "vae/diffusion_pytorch_model.safetensors.index.fp16.json"
    shards = [f"vae/diffusion_pytorch_model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
    rest = ["model_index.json", "tokenizer/merges.txt", "unet/config.json"]
    others = ["text_encoder/pytorch_model.bin", "v1-5.ckpt", "v1-5.safetensors", "README.md", "evil.py"]
    paths = [*both, index, *shards, "text_encoder/model.safetensors", *rest, *others]
    always = {index, *shards, "text_encoder/model.safetensors", *rest}
    assert set(wanted_files(paths, stems, None)) == {both[0], *always}
    assert set(wanted_files(paths, stems, "fp16")) == {both[1], *always}


def test_what_the_hub_gave_before_loads_without_it(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a copy in the layout of the hub's own cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    copy = tmp_path / "models--owner--name"
    (copy / "refs").mkdir(parents=True)
    (copy / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    shutil.copytree(first / "folder", copy / "snapshots" / ("0" * 40))
    shutil.copy(first / "model.safetensors", copy / "snapshots" / ("0" * 40) / "model.safetensors")
    assert find_checkpoint(ModelOptions(model="owner/name")).folder.is_relative_to(copy)
    file = find_checkpoint(ModelOptions(model="owner/name/model.safetensors"))
    assert file.digest == find_checkpoint(ModelOptions(model=str(first / "model.safetensors"))).digest
    with pytest.raises(UserError, match="owner/other is neither a folder or file here nor"):
        find_checkpoint(ModelOptions(model="owner/other"))


@pytest.mark.slow
def test_pickles_become_safetensors(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the names they had, out of what trainers wrap them in; and load."""
    weights = load_file(first / "model.safetensors")
    torch.save({"state_dict": {**weights, "epoch": torch.tensor(3)}, "epoch": 3}, tmp_path / "model.ckpt")
    torch.save({"string_to_param": {"*": torch.ones(3, 32)}, "name": "cat"}, tmp_path / "cat.pt")
    assert main(["convert", str(tmp_path / "model.ckpt"), str(tmp_path / "model.safetensors")]) == 0
    assert main(["convert", str(tmp_path / "cat.pt"), str(tmp_path / "cat.safetensors")]) == 0
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == weights.keys() | {"epoch"}  # a counter, and no weight
    assert all(torch.equal(found[name], value) for name, value in weights.items())
    assert torch.equal(load_file(tmp_path / "cat.safetensors")["emb_params"], torch.ones(3, 32))
    find_checkpoint(ModelOptions(model=str(tmp_path / "model.safetensors")))
    assert main(["convert", str(tmp_path / "model.ckpt"), str(tmp_path / "folder")]) == 1
    assert "not the name of a new *.safetensors file" in capsys.readouterr().err


class ModelCheckpoint:
    """Of the name under which PyTorch Lightning 1.4 notes its settings."""


ModelCheckpoint.__module__ = "pytorch_lightning.callbacks.model_checkpoint"


def test_what_trainers_save_beside_the_weights_is_left_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the published files of Stable Diffusion 1.x and of textual inversion."""
    module = ModuleType(ModelCheckpoint.__module__)
    module.__dict__["ModelCheckpoint"] = ModelCheckpoint
    words = torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.ones(2, 8))})
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, ModelCheckpoint.__module__, module)
        beside = {"callbacks": {ModelCheckpoint: {"best": np.float64(0.5)}}, "losses": np.zeros(3)}
        torch.save({**beside, "state_dict": {"module.a.weight": torch.ones(3)}}, tmp_path / "model.ckpt")
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": words}, tmp_path / "words.pt")
    for source, name, value in (("model.ckpt", "a.weight", torch.ones(3)), ("words.pt", "emb_params", words["*"])):
        made = (tmp_path / source).with_suffix(".safetensors")
        assert main(["convert", str(tmp_path / source), str(made)]) == 0
        found = load_file(made)
        assert found.keys() == {name}
        assert torch.equal(found[name], value)


class Harmful:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickle_that_runs_code_is_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": torch.zeros(2), "more": Harmful(tmp_path / "harm")}, tmp_path / "model.ckpt")
    assert main(["convert", str(tmp_path / "model.ckpt"), str(tmp_path / "model.safetensors")]) == 1
    assert "does not read as tensors alone (it names '" in capsys.readouterr().err
    assert not (tmp_path / "harm").exists()
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.slow
def test_a_folder_of_pickles_becomes_one_of_safetensors(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole or of the only variant; a network that is safe already stays."""
    pickled = {"unet": "diffusion_pytorch_model", "text_encoder": "pytorch_model.fp16"}
    before = load(tiny).unet.state_dict()
    for part, stem in pickled.items():
        (file,) = (tiny / part).glob("*.safetensors")
        torch.save(load_file(file), tiny / part / f"{stem}.bin")
        file.unlink()
    with pytest.raises(UserError, match="fatezero convert"):
        load(tiny)
    assert main(["convert", str(tiny), str(tmp_path / "made")]) == 0
    found = load(tmp_path / "made")
    assert all(torch.equal(found.unet.state_dict()[name], value) for name, value in before.items())
    assert main(["convert", str(tmp_path / "made"), str(tmp_path / "again")]) == 1
    assert "holds safetensors files already" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "nothing.ckpt"), str(tmp_path / "again")]) == 1
    assert "There is no file or folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_single_file_with_another_autoencoder_is_tuned(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is written needs neither any more, and edits; what it does not hold is named for the edit."""
    tiny_autoencoder(tmp_path / "vae")
    (tmp_path / "clip").mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "clip" / f"{i}.png")
    file = Path(shutil.copy(first / "model.safetensors", tmp_path / "one.safetensors"))
    words = [
        *("--model", str(file), "--vae", str(tmp_path / "vae"), "--clip-skip", "1", "--clip", str(tmp_path / "clip")),
        *("--prompt", PROMPT, "--out", str(tmp_path / "tuned"), "--steps=2", "--rank=4", "--height=64", "--width=64"),
        *("--device=cpu", "--threads=1"),
    ]
    assert main(["tune", *words]) == 0
    assert f"--model {tmp_path}/tuned/model --clip-skip 1 --clip" in capsys.readouterr().out
    file.unlink()
    shutil.rmtree(tmp_path / "vae")
    shutil.rmtree(tmp_path / "home")
    with pytest.raises(UserError, match="is a video model already: leave --motion-adapter out"):
        load(tmp_path / "tuned" / "model", motion_adapter="picturebook-motion")
    tuned = load(tmp_path / "tuned" / "model", clip_skip=1)
    assert (type(tuned.vae), tuned.ties_frames) == (AutoencoderTiny, True)
    edited = FateZero(tuned, QUIET, report=lambda _: None).edit(frames, PROMPT, "a bus, on the road", method=PLAIN)
    assert bool(edited.latents.isfinite().all())


def findings(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(["doctor", *words])
    return status, capsys.readouterr().out


@pytest.mark.slow
def test_the_doctor_finds_a_torchvision_of_another_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "ok  torchvision " in findings(capsys=capsys)[1]
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('no torchvision::nms')", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, said = findings(capsys=capsys)
    assert status == 1
    assert "no  torchvision: does not load (RuntimeError: no torchvision::nms); install torch and it" in said


@pytest.mark.slow
def test_the_doctor_says_what_a_checkpoint_is(
    first: Path, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_adapter().save_pretrained(tmp_path / "motion")
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    halves = {f"{layer}.lora_A.weight": torch.ones(2, 64), f"{layer}.lora_B.weight": torch.ones(64, 2)}
    save_file(halves, tmp_path / "style.safetensors")
    save_file({"emb_params": torch.ones(3, 64)}, tmp_path / "cat.safetensors")
    words = (
        *(str(first / "model.safetensors"), "--motion-adapter", str(tmp_path / "motion"), "--clip-skip", "1"),
        *("--lora", f"{tmp_path}/style.safetensors:0.5", "--embedding", f"{tmp_path}/cat.safetensors=<cat>"),
    )
    status, said = findings(*words, capsys=capsys)
    assert status == 0, said
    for line in (
        "a single file of Stable Diffusion 1.x",
        "unet: UNet2DConditionModel of",
        "linear betas",
        "the noise levels are the motion adapter's",
        "style.safetensors, scale 0.5",
        "cat.safetensors for '<cat>', vectors: 3",
        "clip_skip: 1 of",
        "512 x 512 pixels",
        "motion adapters for UNets of widths 32 32 64 64",
        "motion adapter: MotionAdapter",
    ):
        assert line in said
    status, said = findings(str(second / "folder"), capsys=capsys)
    assert (status, "predicts v_prediction" in said, "a folder in diffusers' layout" in said) == (0, True, True)


@pytest.mark.slow
def test_the_doctor_reads_no_weights(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers that loading refuses are behind the headers."""
    file = tiny / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: torch.full_like(value, torch.nan) for name, value in load_file(file).items()}, file)
    assert findings(str(tiny), capsys=capsys)[0] == 0
    with pytest.raises(UserError, match="NaN"):
        load(tiny)


@pytest.mark.slow
def test_the_doctor_says_why_not(
    golden_folder: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_adapter(block_out_channels=(32, 64, 64, 64)).save_pretrained(tmp_path / "motion")
    config = json.loads((tiny / "unet" / "config.json").read_text(encoding="utf-8"))
    UNet2DConditionModel.from_config({**config, "in_channels": 9}).save_pretrained(tiny / "unet")
    (tmp_path / "model.ckpt").touch()
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    halves = {f"{layer}.lora_A.weight": torch.ones(2, 7), f"{layer}.lora_B.weight": torch.ones(7, 2)}
    save_file(halves, tmp_path / "style.safetensors")
    save_file({"<cat>": torch.ones(3, 7)}, tmp_path / "cat.safetensors")
    cases = {
        (str(tmp_path / "model.ckpt"),): "fatezero convert",
        (str(tmp_path / "nothing"),): "There is no checkpoint",
        (str(tmp_path / "motion"),): "holds one network, of the class 'MotionAdapter'",
        (str(tiny),): "inpainting",
        (str(golden_folder / "model"), "--motion-adapter", str(tmp_path / "motion")): "use an adapter of the same base",
        (str(golden_folder / "model"), "--lora", str(tmp_path / "style.safetensors")): "is changed by (7, 2) x (2, 7)",
        (str(golden_folder / "model"), "--embedding", str(tmp_path / "cat.safetensors")): "vectors of width 7",
    }
    for words, sentence in cases.items():
        status, said = findings(*words, capsys=capsys)
        assert (status, sentence in said, "Traceback" in said) == (1, True, False), said
