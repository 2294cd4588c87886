"""`fatezero tune` on a video transformer: a LoRA of one clip; and `--lora` for transformers."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from fatezero import FateZero, RuntimeConfig, UserError
from fatezero.cli import main
from fatezero.clips.video import read_clip, write_video
from fatezero.config import ModelOptions
from fatezero.diffusion.backbone import load_backbone
from fatezero.diffusion.description import describe
from fatezero.diffusion.flow_matching import noised
from fatezero.types import ClipSpec
from tests.tiny_pipelines import saved, tiny_cogvideox, tiny_stable_diffusion_3, tiny_wan, tiny_wan_in_two_stages

SOURCE, TARGET = "a silver jeep on the road", "a red bus on the road"
FILE = "lora/pytorch_lora_weights.safetensors"
RUNTIME = RuntimeConfig(device="cpu", dtype="float32")
Run = Callable[..., int]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def wan(folder: Path) -> Path:
    return saved(tiny_wan(), folder / "wan")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    """An mp4 of a moving square, 5 frames of 32 x 32."""
    frames = np.full((5, 32, 32, 3), 90, np.uint8)
    for i in range(5):
        frames[i, 8:24, 2 + 3 * i : 16 + 3 * i] = (200, 200, 220)
    write_video(folder / "square.mp4", frames, 8)
    return folder / "square.mp4"


@pytest.fixture
def tune(wan: Path, clip: Path, tmp_path: Path) -> Run:
    """`fatezero tune` on the tiny Wan; options may be overridden."""

    def run(**options: object) -> int:
        chosen = {
            **{"model": wan, "clip": clip, "prompt": SOURCE, "out": tmp_path / "tuned", "height": 32, "width": 32},
            **{"steps": 4, "lora_rank": 4, "learning_rate": 1e-2, "threads": 1, "device": "cpu"},
            **{"sample_every": 100, "checkpoint_every": 2},
        }
        words = [f"--{name}={value}" for name, value in (chosen | options).items() if value is not None]
        return main(["tune", *words])

    return run


@pytest.fixture(scope="module")
def tuned(wan: Path, clip: Path, folder: Path) -> Path:
    """A model tuned for 60 steps, with a sample grid at the end."""
    words = ["--height=32", "--width=32", "--steps=60", "--lora-rank=8", "--learning-rate=1e-2", "--threads=1"]
    words += ["--device=cpu", "--sample-every=60", f'--sample-prompts=["{TARGET}"]', f"--out={folder / 'tuned'}"]
    assert main(["tune", f"--model={wan}", f"--clip={clip}", f"--prompt={SOURCE}", *words]) == 0
    return folder / "tuned"


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / FILE)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.slow
def test_the_clip_is_learnt(tuned: Path, wan: Path, clip: Path) -> None:
    """The tuned model's error in the clip's velocity is lower, for noise that it was not trained on."""
    frames = read_clip(ClipSpec(path=str(clip))).frames

    def error(model: Path) -> float:
        backbone: Any = load_backbone(ModelOptions(model=str(model)), RUNTIME)
        clean, text = backbone.encode_clip(frames).transpose(0, 1)[None], backbone.embed(SOURCE)
        generator, errors = torch.Generator().manual_seed(7), []
        for step in backbone.schedule(10, tuple(clean[0].transpose(0, 1).shape)):
            noise = torch.randn(clean.shape, generator=generator)
            with torch.no_grad():
                found = backbone.networks.predict(noised(clean, noise, step.sigma_noisy), step.timestep, [text], [1.0])
            errors.append((found - (noise - clean)).square().mean().item())
        return float(np.mean(errors))

    assert error(tuned / "model") < 0.9 * error(wan)
    (table,) = (tuned / "log").rglob("metrics.csv")
    losses = np.genfromtxt(table, delimiter=",", names=True)["clip"]
    assert losses[-20:].mean() < 0.9 * losses[:20].mean()


@pytest.mark.slow
def test_a_tuned_model_edits_like_any_other(tuned: Path, wan: Path, clip: Path, tmp_path: Path) -> None:
    """By the command line; otherwise than the model that it was made from, which is as it was."""
    assert (tuned / "samples" / "0000060.png").is_file()
    words = [f"--clip={clip}", f"--source={SOURCE}", f"--target={TARGET}", "--steps=2", "--height=32", "--width=32"]
    words += ["--device=cpu", "--dtype=float32", "--id=one"]
    for name, model in (("tuned", tuned / "model"), ("base", wan), ("same", wan)):
        extra = ["--lora", str(tuned / "model" / "lora")] if name == "same" else []
        assert main(["edit", f"--model={model}", *words, *extra, f"--out={tmp_path / name}"]) == 0
    made = {name: read_clip(ClipSpec(path=str(next((tmp_path / name).rglob("edited.mp4"))))).frames
            for name in ("tuned", "base", "same")}  # fmt: skip
    assert not np.array_equal(made["tuned"], made["base"])
    assert np.array_equal(made["tuned"], made["same"])  # the same LoRA, given by hand
    for part in ("transformer", "vae", "text_encoder"):
        (file,) = (wan / part).glob("*.safetensors")
        assert same(load_file(file), load_file(tuned / "model" / part / file.name))


def test_diffusers_reads_what_was_learnt(tuned: Path, wan: Path) -> None:
    """Its own loader and arithmetic give our merged weights."""
    pipe = WanPipeline.from_pretrained(wan)
    pipe.load_lora_weights(tuned / "model" / "lora")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    ours: Any = load_backbone(ModelOptions(model=str(tuned / "model")), RUNTIME)
    theirs = pipe.transformer.state_dict()
    for name, value in ours.networks.transformers[0].state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_resumed_is_exact(tune: Run, tmp_path: Path) -> None:
    assert tune(steps=2, out=tmp_path / "parts") == 0
    early = weights(tmp_path / "parts")
    assert tune(steps=4, out=tmp_path / "parts") == 0
    assert tune(steps=4, out=tmp_path / "whole") == 0
    assert same(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    assert not same(early, weights(tmp_path / "whole"))
    assert tune(steps=4, out=tmp_path / "parts", lora_rank=2) == 1


@pytest.mark.slow
def test_only_attention_learns_and_class_images_beside_it(tune: Run, tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    Image.fromarray(np.full((40, 32, 3), 60, np.uint8)).save(tmp_path / "class" / "one.png")
    assert tune(steps=2, class_images=tmp_path / "class", class_prompt="a car", gradient_checkpointing="true") == 0
    learnt = weights(tmp_path / "tuned")
    assert len(learnt) == 2 * 2 * 2 * 4  # halves of four layers in two attentions of two blocks
    assert all(re.search(r"attn[12]\.to_(q|k|v|out\.0)\.lora_[AB]\.weight$", name) for name in learnt)
    assert all(value.any() for value in learnt.values())
    (table,) = (tmp_path / "tuned" / "log").rglob("metrics.csv")
    assert np.isfinite(np.genfromtxt(table, delimiter=",", names=True)["class"]).all()


@pytest.mark.slow
def test_both_transformers_of_two_stages_learn(tune: Run, tmp_path: Path) -> None:
    assert tune(model=saved(tiny_wan_in_two_stages(), tmp_path / "two"), steps=12) == 0
    moved = {
        name.split(".")[0] for name, value in weights(tmp_path / "tuned").items() if "lora_B" in name and value.any()
    }
    assert moved == {"transformer", "transformer_2"}
    backbone: Any = load_backbone(ModelOptions(model=str(tmp_path / "tuned" / "model")), RUNTIME)
    plain: Any = load_backbone(ModelOptions(model=str(tmp_path / "two")), RUNTIME)
    for one, other in zip(backbone.networks.transformers, plain.networks.transformers, strict=True):
        assert not same(one.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"frames": 4}, "set --frames to 1, or to 5"),
        ({"rank": 4}, "--rank is for UNets"),
        ({"convolutions": "false"}, "--convolutions is for UNets"),
        ({"norm_scope": "frame"}, "--norm-scope is for UNets"),
        ({"lora_rank": 0}, "--lora-rank is 0"),
        ({"lora": "style.safetensors"}, "--lora is not for tuning"),
        ({"motion_adapter": "picturebook-motion"}, "--motion-adapter is not for tuning"),
        ({"model": "picturebook"}, "--lora-rank is for video transformers"),
    ],
)
def test_mistakes_are_said(
    tune: Run, capsys: pytest.CaptureFixture[str], options: dict[str, Any], sentence: str
) -> None:
    assert tune(**options) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_a_longer_clip_than_the_model_knows_is_refused(
    tune: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tiny_wan(), tmp_path / "short")
    (model / "fatezero.json").write_text(json.dumps({"trained_on": {"frames": 1}}), encoding="utf-8")
    assert tune(model=model) == 1
    assert "was trained on 1: set --frames" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("maker", "family"), [(tiny_stable_diffusion_3, "Stable Diffusion 3.x"), (tiny_cogvideox, "CogVideoX")]
)
def test_images_and_other_schedules_are_not_learnt(
    maker: Callable[[], Any], family: str, tune: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(model=saved(maker(), tmp_path / "model")) == 1
    said = capsys.readouterr().err
    assert f"is of {family}: a LoRA of a clip is tuned on video transformers of flow matching" in said


def test_a_tuned_model_is_not_tuned_again(tune: Run, tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(model=tuned / "model") == 1
    assert "is tuned already" in capsys.readouterr().err


def test_without_peft_it_is_refused(
    tune: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # as Python has it where an import has failed
    assert tune() == 1
    assert "takes PEFT, which is not installed: pip install peft" in capsys.readouterr().err


def halves(layer: str, inputs: int = 48, outputs: int = 48, names: str = "AB") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(len(layer))
    down, up = (f"lora_{half}.weight" for half in names)
    return {
        f"{layer}.{down}": torch.randn(2, inputs, generator=generator) / 5,
        f"{layer}.{up}": torch.randn(outputs, 2, generator=generator) / 5,
    }


def merged(wan: Path, file: Path, scale: str = "") -> dict[str, torch.Tensor]:
    backbone: Any = load_backbone(ModelOptions(model=str(wan), lora=(f"{file}{scale}",)), RUNTIME)
    state: dict[str, torch.Tensor] = backbone.networks.transformers[0].state_dict()
    return state


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theirs", "own", "inputs", "outputs"),
    [
        ("transformer.blocks.1.attn2.to_out.0", "blocks.1.attn2.to_out.0", 48, 48),
        ("diffusion_model.blocks.0.self_attn.q", "blocks.0.attn1.to_q", 48, 48),
        ("diffusion_model.blocks.1.cross_attn.o", "blocks.1.attn2.to_out.0", 48, 48),
        ("diffusion_model.blocks.1.ffn.0", "blocks.1.ffn.net.0.proj", 48, 64),
        ("diffusion_model.blocks.1.ffn.2", "blocks.1.ffn.net.2", 64, 48),
        ("diffusion_model.text_embedding.2", "condition_embedder.text_embedder.linear_2", 48, 48),
        ("diffusion_model.time_embedding.0", "condition_embedder.time_embedder.linear_1", 32, 48),
        ("diffusion_model.time_projection.1", "condition_embedder.time_proj", 48, 288),
    ],
)
def test_a_lora_changes_the_layer_that_it_names(
    wan: Path, tmp_path: Path, theirs: str, own: str, inputs: int, outputs: int
) -> None:
    """By diffusers' names and by those of Wan's authors: down times up is added to one weight, and to no other."""
    tensors = halves(theirs, inputs, outputs)
    save_file(tensors, tmp_path / "style.safetensors")
    plain: Any = load_backbone(ModelOptions(model=str(wan)), RUNTIME)
    before = plain.networks.transformers[0].state_dict()
    after = merged(wan, tmp_path / "style.safetensors", ":0.5")
    assert {name for name, value in after.items() if not torch.equal(value, before[name])} == {f"{own}.weight"}
    down, up = tensors.values()
    torch.testing.assert_close(after[f"{own}.weight"], before[f"{own}.weight"] + 0.5 * up @ down)


@pytest.mark.slow
def test_the_names_of_wans_authors_are_read_as_diffusers_reads_them(wan: Path, tmp_path: Path) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for block in range(2):
        front = f"diffusion_model.blocks.{block}"
        for layer in "qkvo":
            tensors |= halves(f"{front}.self_attn.{layer}") | halves(f"{front}.cross_attn.{layer}")
        tensors |= halves(f"{front}.ffn.0", 48, 64) | halves(f"{front}.ffn.2", 64, 48)
    save_file(tensors, tmp_path / "style.safetensors")
    pipe = WanPipeline.from_pretrained(wan)
    pipe.load_lora_weights(tmp_path / "style.safetensors")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    theirs, ours = pipe.transformer.state_dict(), merged(wan, tmp_path / "style.safetensors")
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_doctor_says_what_is_added_and_whether_it_fits(tuned: Path, wan: Path, tmp_path: Path) -> None:
    said = [*describe(ModelOptions(model=str(tuned / "model")))]
    assert said[-1] == (True, f"LoRA: {tuned / 'model' / FILE}, scale 1")
    save_file(halves("transformer.blocks.7.attn1.to_q"), tmp_path / "style.safetensors")
    *_, (serves, why) = describe(ModelOptions(model=str(wan), lora=(str(tmp_path / "style.safetensors"),)))
    assert not serves
    assert "for which this checkpoint has no layer" in why


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    ["transformer.blocks.7.attn1.to_q", "unet.mid_block.attn1.to_q", "transformer_2.blocks.0.attn1.to_q", "sky.to_q"],
)
def test_a_layer_that_there_is_not_is_refused(wan: Path, tmp_path: Path, layer: str) -> None:
    save_file(halves("transformer.blocks.0.attn1.to_q") | halves(layer), tmp_path / "style.safetensors")
    with pytest.raises(UserError, match="for which this checkpoint has no layer"):
        merged(wan, tmp_path / "style.safetensors")


@pytest.mark.slow
def test_of_two_transformers_one_must_be_named(tmp_path: Path) -> None:
    model = saved(tiny_wan_in_two_stages(), tmp_path / "two")
    save_file(halves("diffusion_model.blocks.0.self_attn.q"), tmp_path / "style.safetensors")
    with pytest.raises(UserError, match="for which this checkpoint has no layer"):
        merged(model, tmp_path / "style.safetensors")
    save_file(halves("transformer_2.blocks.0.attn1.to_q"), tmp_path / "style.safetensors")
    backbone: Any = load_backbone(ModelOptions(model=str(model), lora=(str(tmp_path / "style.safetensors"),)), RUNTIME)
    plain: Any = load_backbone(ModelOptions(model=str(model)), RUNTIME)
    changed = [
        not same(one.state_dict(), other.state_dict())
        for one, other in zip(backbone.networks.transformers, plain.networks.transformers, strict=True)
    ]
    assert changed == [False, True]


@pytest.mark.slow
def test_a_damaged_lora_beside_the_files_is_refused(tuned: Path, tmp_path: Path) -> None:
    shutil.copytree(tuned / "model", tmp_path / "model")
    file = tmp_path / "model" / FILE
    tensors = load_file(file)
    save_file(dict(list(tensors.items())[1:]), file)
    with pytest.raises(UserError, match="alone, without the rest"):
        FateZero.load(str(tmp_path / "model"), RUNTIME)
    file.unlink()
    with pytest.raises(UserError, match="is no safetensors file"):
        FateZero.load(str(tmp_path / "model"), replace(RUNTIME, backend="recompute"))
