"""Checkpoints that are damaged, foreign or hostile: each is refused by a sentence, before it takes time or memory."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from fatezero.attention.temporal import inflate
from fatezero.config import ModelOptions, RuntimeConfig
from fatezero.diffusion.checkpoint import find_checkpoint, native_size
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.recommendations import recommended_method
from fatezero.diffusion.temporal_weights import load_temporal, save_inflated
from fatezero.errors import UserError

QUIET = RuntimeConfig(device="cpu", dtype="float32")
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture
def model(golden_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint."""
    return Path(shutil.copytree(golden_folder / "model", tmp_path / "model"))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


def weights_of(model: Path, part: str) -> Path:
    return model / part / f"{WEIGHTS[part]}.safetensors"


def load(model: Path) -> UNetBackbone:
    native_size(find_checkpoint(ModelOptions(model=str(model))).folder)
    recommended_method(model)
    return UNetBackbone.load(str(model), QUIET)


@pytest.mark.parametrize(
    ("file", "values", "sentence"),
    [
        ("model_index.json", {"_class_name": ["evil", "EvilPipe"]}, "of the class"),
        ("model_index.json", {"_class_name": "evil.EvilPipe"}, "of the class"),
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "names no text_encoder_2"),
        ("model_index.json", {"unet": ["evil", "UNet2DConditionModel"]}, "'unet'"),
        ("model_index.json", {"vae": ["diffusers", "os.system"]}, "'vae'"),
        ("model_index.json", {"controlnet": ["diffusers", "ControlNetModel"]}, "'controlnet'"),
        ("model_index.json", {"safety_checker": ["evil", "Checker"]}, "'safety_checker'"),
        ("model_index.json", {"custom_pipeline": "pipe"}, "would run code"),
        ("model_index.json", {"_ignored": "pipeline.py"}, "would run code"),
        ("unet/config.json", {"_class_name": ["evil", "UNet"]}, "of the class"),
        ("unet/config.json", {"auto_map": {"AutoModel": "evil.Model"}}, "would run code"),
        ("vae/config.json", {"quantization_config": {"quant_method": "evil"}}, "would run code"),
        ("text_encoder/config.json", {"architectures": ["EvilModel"]}, "of the class"),
        ("text_encoder/config.json", {"architectures": 3}, "of the class"),
        ("text_encoder/config.json", {"attn_implementation": "evil/kernel"}, "would run code"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["t.T", None]}}, "would run code"),
        ("scheduler/scheduler_config.json", {"_class_name": "evil.Scheduler"}, "of the class"),
    ],
)
def test_foreign_classes_are_refused(model: Path, file: str, values: dict[str, Any], sentence: str) -> None:
    change(model / file, **values)
    with pytest.raises(UserError, match=sentence):
        find_checkpoint(ModelOptions(model=str(model)))


def _without_one(tensors: dict[str, torch.Tensor], name: str) -> None:
    del tensors[name]


def _of_another_shape(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = torch.zeros(*tensors[name].shape, 2)


def _not_a_number(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name].view(-1)[-1] = float("nan")


def _infinite(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name].view(-1)[0] = float("inf")


def _of_whole_numbers(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = tensors[name].to(torch.int8)


@pytest.mark.slow
@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("damage", [_without_one, _of_another_shape, _not_a_number, _infinite, _of_whole_numbers])
def test_weights_are_whole(model: Path, part: str, damage: Callable[[dict[str, torch.Tensor], str], None]) -> None:
    """Refused by the tensor's name; libraries may leave out the first part of it."""
    file = weights_of(model, part)
    tensors = load_file(file)
    name = sorted(tensors)[7]
    damage(tensors, name)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match=name.removeprefix("text_model.").replace(".", r"\.")):
        load(model)


@pytest.mark.parametrize("part", WEIGHTS)
def test_no_weights_at_all_are_noticed(model: Path, part: str) -> None:
    save_file({"nothing": torch.zeros(1)}, weights_of(model, part), {"format": "pt"})
    with pytest.raises(UserError, match="do not belong together"):
        load(model)


@pytest.mark.slow
def test_a_weight_that_no_layer_takes_is_refused(model: Path) -> None:
    tensors = load_file(weights_of(model, "unet"))
    save_file({**tensors, "lora.up.weight": torch.zeros(2)}, weights_of(model, "unet"), {"format": "pt"})
    with pytest.raises(UserError, match=r"'lora\.up\.weight' that its configuration has no layer for"):
        load(model)


@pytest.mark.slow
def test_what_older_versions_saved_beside_weights_is_left_out(model: Path) -> None:
    tensors = load_file(weights_of(model, "text_encoder"))
    extra = {"text_model.embeddings.position_ids": torch.arange(77)[None], "text_projection.weight": torch.ones(32, 32)}
    save_file(tensors | extra, weights_of(model, "text_encoder"), {"format": "pt"})
    load(model)


def _torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _link_to_nothing(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.with_name("nothing"))


@pytest.mark.slow
@pytest.mark.parametrize("damage", [_torn, _pipe, _folder, _link_to_nothing])
@pytest.mark.parametrize(
    "file",
    [
        *("model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"),
        *("tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json"),
    ],
)
def test_files_that_are_none(model: Path, file: str, damage: Callable[[Path], None]) -> None:
    target = model / file
    if damage is _torn and target.stat().st_size < 5000:
        target.write_bytes(target.read_bytes()[:-3] + b"\xff")
    else:
        damage(target)
    with pytest.raises(UserError):
        load(model)


@pytest.mark.slow
def test_weights_may_be_links_and_in_pieces(model: Path) -> None:
    whole = load(model).unet.state_dict()
    UNet2DConditionModel.from_pretrained(model / "unet").save_pretrained(model / "pieces", max_shard_size="1MB")
    weights_of(model, "unet").unlink()
    for piece in (model / "pieces").glob("diffusion_pytorch_model*"):
        (model / "unet" / piece.name).symlink_to(piece)
    pieces = load(model).unet.state_dict()
    assert all(torch.equal(value, pieces[name]) for name, value in whole.items())
    index = model / "pieces" / "diffusion_pytorch_model.safetensors.index.json"
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    change(index, weight_map={**names, "conv_in.bias": "../../elsewhere.safetensors"})
    with pytest.raises(UserError, match="is not the name of a safetensors file beside it"):
        load(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("text_encoder/config.json", {"num_hidden_layers": 10**9}),
        ("text_encoder/config.json", {"hidden_size": 10**9, "num_attention_heads": 10**9}),
        ("text_encoder/config.json", {"max_position_embeddings": 10**12}),
        ("unet/config.json", {"block_out_channels": [8 * 10**6] * 4}),
        ("unet/config.json", {"layers_per_block": 10**9}),
        ("unet/config.json", {"transformer_layers_per_block": [[10**9]] * 4}),
        ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 10**5, "block_out_channels": [8] * 10**5}),
        ("unet/config.json", {"attention_head_dim": -1}),
        ("unet/config.json", {"downsample_padding": 10**9}),
        ("unet/config.json", {"sample_size": 10**9}),
        ("unet/config.json", {"norm_eps": "x"}),
        ("vae/config.json", {"latent_channels": 10**9}),
        ("vae/config.json", {"norm_num_groups": 0}),
        ("vae/config.json", {"scaling_factor": "x"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**10}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "x"}),
        ("scheduler/scheduler_config.json", {"beta_start": float("nan")}),
        ("scheduler/scheduler_config.json", {"beta_start": -5}),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1] * 10**5}),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 10**30}),
    ],
)
def test_absurd_configurations_are_refused(model: Path, file: str, values: dict[str, Any]) -> None:
    change(model / file, **values)
    with pytest.raises(UserError) as refused:
        load(model)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    "written",
    [
        *('{"guidance_scale": NaN}', '{"guidance_scale": 1e999}', '{"steps": "many"}', '{"steps": 1e9}', "[1]", "{"),
        *('{"nothing": 1}', '{"fusion.cross_window": [0, [1]]}', '{"fusion": 3}', '{"fusion.word_map.x": 1}', '"x"'),
        *('{"steps": 3, "steps": 4}', "[" * 1000, '{"blending.threshold": -3}', '{"key_frames": [{}]}'),
    ],
)
def test_recommendations_are_settings(model: Path, written: str) -> None:
    (model / "fatezero.json").write_text(written, encoding="utf-8")
    with pytest.raises(UserError, match=r"fatezero\.json"):
        recommended_method(model)


def test_what_is_recommended_is_no_other_checkpoint(model: Path) -> None:
    before = find_checkpoint(ModelOptions(model=str(model))).digest
    (model / "fatezero.json").write_text('{"steps": 7}', encoding="utf-8")
    assert recommended_method(model).steps == 7
    assert find_checkpoint(ModelOptions(model=str(model))).digest == before


def test_a_pipe_in_place_of_recommendations(model: Path) -> None:
    os.mkfifo(model / "fatezero.json")
    with pytest.raises(UserError, match=r"fatezero\.json"):
        recommended_method(model)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [_without_one, _of_another_shape, _not_a_number])
def test_motion_adapters_are_whole(
    golden_folder: Path, tmp_path: Path, damage: Callable[[dict[str, torch.Tensor], str], None]
) -> None:
    shape = {"block_out_channels": (8, 16, 32, 32), "motion_norm_num_groups": 8, "motion_max_seq_length": 6}
    MotionAdapter(**shape).save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[7]
    damage(tensors, name)
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        UNetBackbone.load(ModelOptions(model=str(golden_folder / "model"), motion_adapter=str(tmp_path)), QUIET)


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        *({"motion_layers_per_block": 10**9}, {"_class_name": "evil.Adapter"}, {"motion_num_attention_heads": "x"}),
        *({"block_out_channels": None}, {"motion_max_seq_length": 10**12}),
    ],
)
def test_configurations_of_motion_adapters(golden_folder: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    shape = {"block_out_channels": (8, 16, 32, 32), "motion_norm_num_groups": 8, "motion_max_seq_length": 6}
    MotionAdapter(**shape).save_pretrained(tmp_path)
    change(tmp_path / "config.json", **values)
    with pytest.raises(UserError):
        UNetBackbone.load(ModelOptions(model=str(golden_folder / "model"), motion_adapter=str(tmp_path)), QUIET)


@pytest.mark.parametrize("rank", ["x", 0, -1, True, 1.5, [4], None])
def test_ranks_of_temporal_layers(backbone32: UNetBackbone, tmp_path: Path, rank: Any) -> None:
    unet = copy.deepcopy(backbone32.unet)
    inflate(unet, 4)  # type: ignore[arg-type]
    save_inflated(unet, 4, tmp_path)  # type: ignore[arg-type]
    change(tmp_path / "temporal" / "config.json", rank=rank)
    with pytest.raises(UserError, match="temporal"):
        load_temporal(copy.deepcopy(backbone32.unet), tmp_path / "temporal")  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", [_without_one, _of_another_shape, _not_a_number, _of_whole_numbers])
def test_temporal_layers_are_whole(
    backbone32: UNetBackbone, tmp_path: Path, damage: Callable[[dict[str, torch.Tensor], str], None]
) -> None:
    unet = copy.deepcopy(backbone32.unet)
    inflate(unet, 4)  # type: ignore[arg-type]
    save_inflated(unet, 4, tmp_path)  # type: ignore[arg-type]
    file = tmp_path / "temporal" / "model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[7]
    damage(tensors, name)
    save_file(tensors, file)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        load_temporal(copy.deepcopy(backbone32.unet), tmp_path / "temporal")  # type: ignore[arg-type]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every value within a value of JSON."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    changed = copy.copy(value)
    changed[at[0]] = replaced(value[at[0]], at[1:], new)
    return changed


ODD = [
    *("x", -1, 0, None, True, 3, 10**9, 1.5, 1e-300, [], {}, [[1, 2], [3]], [10**6] * 4, [1] * 10**5, "a" * 10**5),
    *(["evil", "EvilPipe"], float("inf"), "evil.Class"),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_any_value_may_be_wrong(model: Path, seed: int) -> None:
    """Every file of settings, a random value of it replaced: it loads, or a sentence says why not."""
    rng = random.Random(seed)
    files = [file for file in sorted(model.rglob("*.json")) if file.name != "vocab.json"]
    for file in files * 3:
        written = file.read_text(encoding="utf-8")
        data = json.loads(written)
        file.write_text(json.dumps(replaced(data, rng.choice([*places(data)]), rng.choice(ODD))), encoding="utf-8")
        with suppress(UserError):
            load(model)
        file.write_text(written, encoding="utf-8")
