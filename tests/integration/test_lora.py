"""LoRA files of every layout change the networks as diffusers, PEFT and kohya's own formula say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import MotionAdapter, StableDiffusionPipeline, UNetMotionModel
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fatezero.clips.video import write_video
from fatezero.config import ModelOptions
from fatezero.diffusion.additions import LoraFile, find_additions
from fatezero.diffusion.checkpoint import find_checkpoint, folder_of_clip
from fatezero.diffusion.lora import add_loras, check_lora
from fatezero.diffusion.lora_names import LoraLayers
from fatezero.errors import UserError
from tests.integration.sampling import diffusers_pipeline, loaded, sampled_by_diffusers, sampled_here

PROMPT = "a silver jeep"
BLOCK, MOTION = "down_blocks.0.attentions.0.transformer_blocks.0", "down_blocks.0.motion_modules.0"
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj"]
UNET_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1", "ff.net.0.proj"]


@pytest.fixture
def model(golden_folder: Path) -> Path:
    return golden_folder / "model"


@pytest.fixture
def pipe(model: Path) -> Any:
    return diffusers_pipeline(model)


@pytest.fixture(scope="module")
def moving_pipe(golden_folder: Path) -> Any:
    """With motion modules."""
    pipe = diffusers_pipeline(golden_folder / "model")
    widths = pipe.unet.config.block_out_channels
    modules = MotionAdapter(block_out_channels=widths, motion_norm_num_groups=8, motion_max_seq_length=6)
    pipe.unet = UNetMotionModel.from_unet2d(pipe.unet, modules)
    return pipe


@pytest.fixture(scope="module")
def kept_pipe(golden_folder: Path) -> Any:
    """For files that are refused, which change nothing."""
    return diffusers_pipeline(golden_folder / "model")


def layers_of(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            yield name, layer.weight.detach()


def kohya(pipe: Any, alphas: tuple[float, ...], seed: int = 0) -> dict[str, Tensor]:
    """A LoRA of every layer in kohya's layout, of rank 3."""
    generator, made = torch.Generator().manual_seed(seed), {}
    fronts = {"lora_unet_": pipe.unet, "lora_te_text_model_": pipe.text_encoder}
    named = [(front + name, weight) for front, network in fronts.items() for name, weight in layers_of(network)]
    for i, (name, weight) in enumerate(named):
        key, (outputs, inputs, *kernel) = name.replace(".", "_"), weight.shape
        made[f"{key}.lora_down.weight"] = torch.randn(3, inputs, *kernel, generator=generator) / inputs**0.5
        made[f"{key}.lora_up.weight"] = torch.randn(outputs, 3, *(1 for _ in kernel), generator=generator) / 10
        made[f"{key}.alpha"] = torch.tensor(alphas[i % len(alphas)])
    return made


def fuse(pipe: Any, file: Path, scale: float) -> None:
    """As diffusers does it."""
    pipe.load_lora_weights(load_file(file), adapter_name="style")
    pipe.set_adapters(["style"], [scale])
    pipe.fuse_lora(adapter_names=["style"])
    pipe.unload_lora_weights()


def trained(pipe: Any, seed: int = 0, **settings: Any) -> None:
    """Add PEFT's adapters to a pipeline, with random weights."""
    torch.manual_seed(seed)
    shape = {"r": 3, "init_lora_weights": False, **settings}
    inject_adapter_in_model(LoraConfig(target_modules=UNET_LAYERS, **shape), pipe.unet)
    inject_adapter_in_model(LoraConfig(target_modules=TEXT_LAYERS, **shape), pipe.text_encoder)
    for network in pipe_networks(pipe).values():
        for name, value in network.named_parameters():
            if "lora_B" in name:
                value.data.mul_(0.1)  # a change so large that it amplifies rounding says nothing


def save_as_diffusers(pipe: Any, folder: Path, *, settings: bool) -> None:
    kept = {name: dict(network.peft_config["default"].to_dict()) for name, network in pipe_networks(pipe).items()}
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=get_peft_model_state_dict(pipe.unet),
        text_encoder_lora_layers=get_peft_model_state_dict(pipe.text_encoder),
        unet_lora_adapter_metadata=kept["unet"] if settings else None,
        text_encoder_lora_adapter_metadata=kept["text_encoder"] if settings else None,
    )


def pipe_networks(pipe: Any) -> dict[str, Any]:
    return {"unet": pipe.unet, "text_encoder": pipe.text_encoder}


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, -0.7])
def test_kohyas_layout(scale: float, pipe: Any, model: Path, tmp_path: Path) -> None:
    save_file(kohya(pipe, (2.0,)), tmp_path / "style.safetensors")
    plain = sampled_by_diffusers(pipe, PROMPT)
    fuse(pipe, tmp_path / "style.safetensors", scale)
    expected = sampled_by_diffusers(pipe, PROMPT)
    asked = str(tmp_path / "style.safetensors") + ("" if scale == 1 else f":{scale}")
    made = sampled_here(loaded(model, lora=(asked,)), PROMPT)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(plain, expected, atol=1e-2)


@pytest.mark.slow
def test_kohyas_alphas_of_single_layers(pipe: Any, model: Path, tmp_path: Path) -> None:
    """Every layer by kohya's own formula, W + scale * alpha / rank * up @ down."""
    tensors = kohya(pipe, (1.0, 2.0, 3.0))
    save_file(tensors, tmp_path / "style.safetensors")
    backbone = loaded(model, lora=(f"{tmp_path}/style.safetensors:0.5",))
    for front, before, after in (
        ("lora_unet_", pipe.unet, backbone.unet),
        ("lora_te_text_model_", pipe.text_encoder, backbone.texts.encoder),
    ):
        changed = dict(layers_of(after))
        for name, weight in layers_of(before):
            key = front + name.replace(".", "_")
            up, down = (tensors[f"{key}.lora_{half}.weight"].flatten(1) for half in ("up", "down"))
            change = 0.5 * tensors[f"{key}.alpha"] / 3 * (up @ down)
            torch.testing.assert_close(changed[name], weight + change.view_as(weight), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_layouts_agree_that_differ_in_names_only(pipe: Any, model: Path, tmp_path: Path) -> None:
    """diffusers' older names of the halves, without alpha, against PEFT's names in its newer files."""
    trained(pipe)
    save_as_diffusers(pipe, tmp_path, settings=False)
    tensors = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    older = {
        name.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): value for name, value in tensors.items()
        if name.startswith("unet.")
    }  # fmt: skip
    newer = {name: value for name, value in tensors.items() if name.startswith("unet.")}
    for name, one in (("older", older), ("newer", newer)):
        save_file(one, tmp_path / f"{name}.safetensors")
    made = [dict(layers_of(loaded(model, lora=(f"{tmp_path}/{n}.safetensors",)).unet)) for n in ("older", "newer")]
    for name, weight in made[0].items():
        assert torch.equal(weight, made[1][name])


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"lora_alpha": 6}, {"lora_alpha": 6, "use_rslora": True}])
def test_diffusers_layout_with_its_settings(settings: Any, pipe: Any, model: Path, tmp_path: Path) -> None:
    patterns = {"alpha_pattern": {"attn1.to_q": 1.5}, **settings} if settings else {"lora_alpha": 3}
    trained(pipe, **patterns)
    save_as_diffusers(pipe, tmp_path, settings=bool(settings))
    made = sampled_here(loaded(model, lora=(str(tmp_path),)), PROMPT)
    torch.testing.assert_close(made, sampled_by_diffusers(pipe, PROMPT), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("named", "own"),
    [
        ("unet.down_blocks.0.attentions.0.proj_in", "down_blocks.0.attentions.0.proj_in"),
        ("down_blocks.0.attentions.0.proj_in", "down_blocks.0.attentions.0.proj_in"),
        (f"{BLOCK}.attn1.processor.to_q", f"{BLOCK}.attn1.to_q"),
        (f"unet.{BLOCK}.attn1.processor.to_out", f"{BLOCK}.attn1.to_out.0"),
        ("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k", f"{BLOCK}.attn2.to_k"),
        (f"unet.{MOTION}.transformer_blocks.0.attn1.processor.to_q", f"{MOTION}.transformer_blocks.0.attn1.to_q"),
        (
            f"{MOTION}.temporal_transformer.transformer_blocks.0.attention_blocks.1.processor.to_out",
            f"{MOTION}.transformer_blocks.0.attn2.to_out.0",
        ),
        ("text_encoder.text_model.encoder.layers.0.self_attn.to_out", "encoder.layers.0.self_attn.out_proj"),
        ("encoder.layers.0.self_attn.out_proj", None),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", None),
        ("lora_unet_input_blocks_99_1_proj_in", None),
    ],
)
def test_names_of_layers(named: str, own: str | None, moving_pipe: Any) -> None:
    """diffusers' of several ages, with the network or without, ComfyUI's, and AnimateDiff's of motion LoRAs."""
    layers = LoraLayers.of({"unet": moving_pipe.unet, "text_encoder": moving_pipe.text_encoder})
    place = layers.place(named, "unet")
    assert (place and layers.networks[place[0]][place[1]][0]) == own


@pytest.mark.parametrize("network", ["text_encoder", "text_encoder_2"])
def test_pefts_folders_of_either_text_encoder(network: str, tmp_path: Path) -> None:
    """Which the file does not name; with settings of single layers."""
    settings = LoraConfig(
        r=2, lora_alpha=5, init_lora_weights=False, target_modules=["q_proj", "fc1"], use_rslora=True,
        rank_pattern={"fc1": 3}, alpha_pattern={"layers.1.self_attn.q_proj": 7},
    )  # fmt: skip
    wrapped = get_peft_model(getattr(tiny_sdxl(), network), settings)
    wrapped.save_pretrained(tmp_path)
    pipe = tiny_sdxl()
    add_loras(pipe, find_additions(ModelOptions(lora=(str(tmp_path),))).loras)
    expected = dict(layers_of(wrapped.merge_and_unload()))
    for name, weight in layers_of(getattr(pipe, network)):
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_numbers_of_every_width(dtype: torch.dtype, tmp_path: Path) -> None:
    pipe, before = tiny_sdxl(), tiny_sdxl().unet.conv_in.weight
    made = {name: (value / 8).to(dtype) for name, value in halves("lora_unet_conv_in", 8, 36).items()}
    save_file(made, tmp_path / "style.safetensors")
    add_loras(pipe, [LoraFile(tmp_path / "style.safetensors", 1)])
    torch.testing.assert_close(pipe.unet.conv_in.weight, before + 2 / 64, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["unet", "text_encoder"])
def test_pefts_folders(network: str, pipe: Any, model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    targets = UNET_LAYERS if network == "unet" else TEXT_LAYERS
    config = LoraConfig(r=2, lora_alpha=5, init_lora_weights=False, target_modules=targets)
    wrapped = get_peft_model(getattr(pipe, network), config)
    wrapped.save_pretrained(tmp_path)
    setattr(pipe, network, wrapped.merge_and_unload())
    made = sampled_here(loaded(model, lora=(str(tmp_path),)), PROMPT)
    torch.testing.assert_close(made, sampled_by_diffusers(pipe, PROMPT), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_several_add_up_and_leave_the_processors_alone(pipe: Any, model: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{seed}: style.safetensors" for seed in range(2)]  # a path may hold a colon
    for seed, file in enumerate(files):
        save_file(kohya(pipe, (3.0,), seed), file)
    for file, scale in zip(files, (0.3, 0.6), strict=True):
        fuse(pipe, file, scale)
    backbone = loaded(model, lora=(f"{files[0]}:0.3", f"{files[1]}:0.6"))
    made = sampled_here(backbone, PROMPT)
    torch.testing.assert_close(made, sampled_by_diffusers(pipe, PROMPT), rtol=0, atol=1e-5)
    plain = loaded(model)
    assert backbone.unet.state_dict().keys() == plain.unet.state_dict().keys()
    kinds = [[type(one) for one in each.unet.attn_processors.values()] for each in (backbone, plain)]
    assert kinds[0] == kinds[1]


@pytest.mark.slow
def test_files_and_scales_are_part_of_the_digest(pipe: Any, model: Path, tmp_path: Path) -> None:
    tensors = kohya(pipe, (1.0,))
    for name in ("one", "two", "copy"):
        save_file(tensors | ({next(iter(tensors)): next(iter(tensors.values())) + 1} if name == "two" else {}),
                  tmp_path / f"{name}.safetensors")  # fmt: skip

    def digest(*loras: str) -> str:
        return find_checkpoint(ModelOptions(model=str(model), lora=tuple(f"{tmp_path}/{one}" for one in loras))).digest

    asked = [(), ("one.safetensors",), ("one.safetensors:0.5",), ("two.safetensors",),
             ("one.safetensors", "two.safetensors")]  # fmt: skip
    assert len({digest(*loras) for loras in asked}) == len(asked)
    assert digest("one.safetensors") == digest("copy.safetensors:1")
    tuned = folder_of_clip(ModelOptions(model="{clip}", lora=(f"{tmp_path}/one.safetensors:0.5",)), "jeep.mp4")
    assert (tuned.networks.model, [lora.scale for lora in tuned.additions.loras]) == ("jeep", [0.5])
    backbone = loaded(model, lora=(f"{tmp_path}/one.safetensors:0.5",))
    assert backbone.checkpoint.digest == digest("one.safetensors:0.5")
    (said,) = backbone.checkpoint.additions.record()["loras"]
    assert (said["name"], said["scale"]) == ("one.safetensors", 0.5)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nothing.safetensors", "there is no such file"),
        ("nothing.safetensors:0.5", "there is no such file"),
        ("good.safetensors:much", "the scale 'much' is no number"),
        ("good.safetensors:nan", "the scale 'nan' is no number"),
        ("good.safetensors:1e9", "it is a number from -1000 to 1000"),
        ("pickle.bin", "other formats can run code"),
        (".", "holds neither adapter_model.safetensors nor pytorch_lora_weights.safetensors"),
        ("x" * 300, "there is no such file"),
    ],
)
def test_what_is_no_lora(text: str, complaint: str, tmp_path: Path) -> None:
    save_file({"lora_unet_conv_in.alpha": torch.ones(())}, tmp_path / "good.safetensors")
    (tmp_path / "pickle.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=complaint):
        find_additions(ModelOptions(lora=(str(tmp_path / text),)))


def halves(key: str, outputs: int, inputs: int, rank: int = 2) -> dict[str, Tensor]:
    return {f"{key}.lora_down.weight": torch.ones(rank, inputs), f"{key}.lora_up.weight": torch.ones(outputs, rank)}


GOOD = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        (halves("lora_te2_text_model_encoder_layers_0_self_attn_q_proj", 32, 32), "another kind of model"),
        (halves("lora_transformer_blocks_0_attn_to_q", 32, 32), "another kind of model"),
        (
            halves(GOOD, 32, 32) | halves(GOOD.replace("0", "7"), 32, 32),
            r"layers_7_self_attn_q_proj.*for which this checkpoint has no layer: it is a LoRA of another model",
        ),
        (halves(GOOD, 32, 16), r"by \(32, 2\) x \(2, 16\), its weight is \(32, 32\)"),
        (halves(GOOD, 32, 32) | {f"{GOOD}.dora_scale": torch.ones(32)}, "a layer of DoRA"),
        ({f"{GOOD}.hada_w1_a": torch.ones(2, 2)}, "a layer of LoHa"),
        ({"conv_in.weight": torch.ones(2, 2)}, "'conv_in.weight', which is no LoRA's"),
        (halves(GOOD, 32, 32) | {f"{GOOD}x.alpha": torch.ones(())}, "x.alpha', for which this checkpoint has no layer"),
        ({f"unet.{GOOD}.lora_A.weight": torch.ones(2, 2)}, "another kind of model"),
        ({"base_model.model.conv_in.lora_A.weight": torch.ones(2, 2)}, "give the folder of both"),
        (halves(GOOD, 32, 32) | halves(GOOD.replace("te_", "te1_"), 32, 32), "for which this checkpoint has no layer"),
        (halves(GOOD, 32, 32, rank=0), "for which this checkpoint has no layer"),
        ({}, "holds no tensors"),
        (halves("down_blocks.0.motion_modules.0.attn1.to_q", 32, 32), "motion modules; give the --motion-adapter"),
        (dict([*halves(GOOD, 32, 32).items()][:1]), "has down alone, without the rest"),
        ({name: value * torch.nan for name, value in halves(GOOD, 32, 32).items()}, "NaN or infinity"),
        ({name: value.to(torch.int8) for name, value in halves(GOOD, 32, 32).items()}, "quantised"),
    ],
)
def test_files_that_do_not_fit(tensors: Any, complaint: str, kept_pipe: Any, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "style.safetensors")
    with pytest.raises(UserError, match=complaint):
        add_loras(kept_pipe, find_additions(ModelOptions(lora=(str(tmp_path / "style.safetensors"),))).loras)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"use_dora": True}, "use_dora is True"),
        ({"lora_alpha": None}, "has no lora_alpha"),
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"lora_alpha": "much"}, "lora_alpha is 'much'"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "no layer's name"),
        ({"alpha_pattern": ["to_q"]}, "of another type"),
        ({"auto_mapping": {"parent_library": "os.py"}}, "would run code"),
    ],
)
def test_settings_that_are_no_plain_loras(settings: Any, complaint: str, tmp_path: Path) -> None:
    layer = "base_model.model.encoder.layers.0.self_attn.q_proj"
    made = {f"{layer}.lora_A.weight": torch.ones(2, 32), f"{layer}.lora_B.weight": torch.ones(32, 2)}
    save_file(made, tmp_path / "adapter_model.safetensors")
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}
    (tmp_path / "adapter_config.json").write_text(json.dumps(plain), encoding="utf-8")
    find_additions(ModelOptions(lora=(str(tmp_path),)))
    (tmp_path / "adapter_config.json").write_text(json.dumps(plain | settings), encoding="utf-8")
    with pytest.raises(UserError, match=complaint):
        find_additions(ModelOptions(lora=(str(tmp_path),)))


def tiny_sdxl() -> Any:
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel  # noqa: PLC0415
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection  # noqa: PLC0415

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16, 16), down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",), norm_num_groups=4, cross_attention_dim=16,
        transformer_layers_per_block=(1, 1, 2), attention_head_dim=(1, 2, 2), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=8 + 48,
    )  # fmt: skip
    first, second = (
        CLIPTextConfig(hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                       vocab_size=64, projection_dim=8) for width in (8, 12)
    )  # fmt: skip
    encoders = {"text_encoder": CLIPTextModel(first), "text_encoder_2": CLIPTextModelWithProjection(second)}
    return StableDiffusionXLPipeline(
        vae=None, tokenizer=None, tokenizer_2=None, unet=unet, scheduler=DDIMScheduler(), **encoders
    )


@pytest.mark.slow
def test_the_original_unets_names_and_a_second_text_encoder(tmp_path: Path) -> None:
    """As kohya trains SDXL, with an alpha for each layer; the formula again."""
    ldm = {
        "input_blocks_4_1_transformer_blocks_0_ff_net_2": "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2",
        "middle_block_1_transformer_blocks_1_attn2_to_v": "mid_block.attentions.0.transformer_blocks.1.attn2.to_v",
        "output_blocks_5_1_proj_in": "up_blocks.1.attentions.2.proj_in",
        "input_blocks_1_0_in_layers_2": "down_blocks.0.resnets.0.conv1",
        "input_blocks_5_0_emb_layers_1": "down_blocks.1.resnets.1.time_emb_proj",
        "output_blocks_3_0_skip_connection": "up_blocks.1.resnets.0.conv_shortcut",
        "middle_block_2_out_layers_3": "mid_block.resnets.1.conv2",
        "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
        "output_blocks_2_2_conv": "up_blocks.0.upsamplers.0.conv",
        "input_blocks_0_0": "conv_in",
        "time_embed_2": "time_embedding.linear_2",
        "label_emb_0_0": "add_embedding.linear_1",
        "out_2": "conv_out",
    }
    places = {f"lora_unet_{theirs}": ("unet", own) for theirs, own in ldm.items()}
    for i, network in enumerate(("text_encoder", "text_encoder_2"), 1):
        key = f"lora_te{i}_text_model_encoder_layers_1_mlp_fc1"
        places[key] = (
            network,
            next(name for name, _ in layers_of(getattr(tiny_sdxl(), network)) if "1.mlp.fc1" in name),
        )
    pipe, plain, tensors = tiny_sdxl(), tiny_sdxl(), {}
    generator = torch.Generator().manual_seed(0)
    for i, (key, (network, name)) in enumerate(places.items()):
        outputs, inputs, *kernel = getattr(plain, network).get_submodule(name).weight.shape
        tensors[f"{key}.lora_down.weight"] = torch.randn(2, inputs, *kernel, generator=generator)
        tensors[f"{key}.lora_up.weight"] = torch.randn(outputs, 2, *(1 for _ in kernel), generator=generator)
        tensors[f"{key}.alpha"] = torch.tensor(float(i + 1))
    save_file(tensors, tmp_path / "style.safetensors")
    parts = ("unet", "text_encoder", "text_encoder_2")
    empty = {network: getattr(tiny_sdxl(), network).to("meta") for network in parts}
    check_lora(empty, LoraFile(tmp_path / "style.safetensors", 0.5))  # as the doctor does, by the header
    add_loras(pipe, [LoraFile(tmp_path / "style.safetensors", 0.5)])
    for key, (network, name) in places.items():
        weight = getattr(plain, network).get_submodule(name).weight
        up, down = (tensors[f"{key}.lora_{half}.weight"].flatten(1) for half in ("up", "down"))
        expected = weight + (0.5 * tensors[f"{key}.alpha"] / 2 * (up @ down)).view_as(weight)
        torch.testing.assert_close(getattr(pipe, network).get_submodule(name).weight, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_command_line_records_what_was_added(pipe: Any, model: Path, tmp_path: Path) -> None:
    from fatezero.cli import main  # noqa: PLC0415

    save_file(kohya(pipe, (1.0,)), tmp_path / "style.safetensors")
    save_file({"<cat>": torch.ones(2, 32)}, tmp_path / "cat.safetensors")
    write_video(tmp_path / "clip.mp4", np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8), 8)
    asked = {
        "model": model, "clip": tmp_path / "clip.mp4", "source": "a <cat>, red", "target": "a (jeep:1.5), red",
        "edited_words": "<CAT>", "target_words": "Jeep", "prompt_weights": "true", "negative_prompt": "a road",
        "lora": f"{tmp_path}/style.safetensors:0.5", "embedding": f"{tmp_path}/cat.safetensors", "clip_skip": 1,
        "out": tmp_path / "run", "id": "cat", "steps": 2, "height": 64, "width": 64, "device": "cpu",
    }  # fmt: skip
    assert main(["edit", *(word for name, value in asked.items() for word in (f"--{name}", str(value)))]) == 0
    meta = json.loads((tmp_path / "run" / "fatezero" / "cat" / "meta.json").read_text(encoding="utf-8"))
    said = meta["checkpoint"]
    assert [(lora["name"], lora["scale"]) for lora in said["loras"]] == [("style.safetensors", 0.5)]
    assert [(one["name"], one["token"]) for one in said["embeddings"]] == [("cat.safetensors", "<cat>")]
    assert (said["clip_skip"], meta["config"]["negative_prompt"]) == (1, "a road")
    assert said["digest"] != find_checkpoint(ModelOptions(model=str(model))).digest
    assert (meta["request"]["target_prompt"], meta["config"]["fusion"]["reweight"]) == ("a jeep, red", {"jeep": 1.5})
