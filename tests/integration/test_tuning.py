"""`fatezero tune` and `fatezero convert` on the tiny checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fatezero.attention.temporal import inflate, is_temporal
from fatezero.cli import main
from fatezero.clips.video import read_clip, write_video
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.diffusion.ddim import move, schedule
from fatezero.diffusion.model_families.unet import UNetBackbone, unet_denoiser
from fatezero.diffusion.pixels import to_unit_range
from fatezero.diffusion.prediction import Branch, Branches
from fatezero.training.tune_a_video import Tuning
from fatezero.types import ClipSpec

SOURCE, TARGET = "a silver jeep driving down a road", "a silver car driving down a road"
Run = Callable[..., int]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mp4 of a moving square, 4 frames of 64 x 64."""
    path = tmp_path_factory.mktemp("clips") / "square.mp4"
    frames = np.full((4, 64, 64, 3), 90, np.uint8)
    for i in range(4):
        frames[i, 16:48, 4 + 6 * i : 36 + 6 * i] = (200, 200, 220)
    write_video(path, frames, 8)
    return path


@pytest.fixture
def tune(golden_folder: Path, clip: Path, tmp_path: Path) -> Run:
    """`fatezero tune` on the tiny checkpoint; options may be overridden."""

    def run(**options: object) -> int:
        chosen = {
            **{"model": golden_folder / "model", "clip": clip, "prompt": SOURCE, "out": tmp_path / "tuned"},
            **{"height": 64, "width": 64, "steps": 4, "rank": 4, "learning_rate": 1e-2, "threads": 1},
            **{"sample_every": 100, "checkpoint_every": 2, "device": "cpu"},
        }
        words = [f"--{name}={value}" for name, value in (chosen | options).items() if value is not None]
        return main(["tune", *words])

    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors") | load_file(
        folder / "temporal" / "model.safetensors"
    )


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.slow
def test_resumed_is_exact(tune: Run, tmp_path: Path) -> None:
    assert tune(steps=2, out=tmp_path / "parts") == 0
    early = weights(tmp_path / "parts" / "model")
    assert tune(steps=4, out=tmp_path / "parts") == 0
    assert tune(steps=4, out=tmp_path / "whole") == 0
    late = weights(tmp_path / "parts" / "model")
    assert same(late, weights(tmp_path / "whole" / "model"))
    assert not same(early, late)


@pytest.mark.slow
@pytest.mark.parametrize("convolutions", [True, False])
def test_only_what_the_original_trains_changes(
    tune: Run, golden_folder: Path, tmp_path: Path, convolutions: bool
) -> None:
    assert tune(steps=2, convolutions=str(convolutions).lower()) == 0
    after = weights(tmp_path / "tuned" / "model")
    fresh = UNetBackbone.load(str(golden_folder / "model"), RuntimeConfig(device="cpu", dtype="float32")).unet
    torch.manual_seed(0)
    inflate(fresh, 4)  # type: ignore[arg-type]
    before = fresh.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    queries = {name for name in after if ".to_q." in name}
    assert queries <= changed
    kinds = ("attn_temporal", ".to_q.", "conv_temporal") if convolutions else ("attn_temporal", ".to_q.")
    assert all(any(kind in name for kind in kinds) for name in changed)
    assert any("conv_temporal" in name for name in changed) == convolutions
    assert any("attn_temporal.to_out" in name for name in changed)


@pytest.mark.slow
def test_a_tuned_model_edits_like_any_other(tune: Run, clip: Path, tmp_path: Path) -> None:
    assert tune(key_frames='[-1, "first"]', norm_scope="frame", sample_every=4, sample_prompts=f'["{TARGET}"]') == 0
    grid = np.asarray(Image.open(tmp_path / "tuned" / "samples" / "0000004.png"))
    assert grid.shape == (3 * 64, 4 * 64, 3)  # the clip, its reconstruction, the other prompt
    model = tmp_path / "tuned" / "model"
    words = [f"--clip={clip}", f"--source={SOURCE}", f"--target={TARGET}", "--steps=2", "--height=64", "--width=64"]
    assert main(["edit", f"--model={model}", *words, f"--out={tmp_path / 'run'}", "--id=one"]) == 0
    meta = json.loads((tmp_path / "run" / "fatezero" / "one" / "meta.json").read_text())
    assert (meta["config"]["key_frames"], meta["config"]["norm_scope"]) == ([-1, "first"], "frame")
    for more in ([], ["--key_frames=[self]"]):  # without key frames, nothing else ties a segment's frames to the others
        assert main(["edit", f"--model={model}", *words, f"--out={tmp_path / 'run'}", "--segment=2", *more]) == 1


@pytest.mark.slow
def test_tuning_fits_the_clip(tune: Run, golden_folder: Path, clip: Path, tmp_path: Path) -> None:
    assert tune(steps=100, learning_rate=3e-3, checkpoint_every=100) == 0
    frames = to_unit_range(read_clip(ClipSpec(path=str(clip))).frames)

    def error(model: Path) -> float:
        """In the noise of the clip, over levels, the same noise for all models."""
        backbone = UNetBackbone.load(str(model), RuntimeConfig(device="cpu", dtype="float32"))
        clean, generator = backbone.encode(frames), torch.Generator().manual_seed(7)
        branch = Branch(clean, backbone.embed(SOURCE))
        errors = []
        with unet_denoiser(backbone, MethodConfig(), len(clean), None) as denoiser:
            for step in schedule(backbone.scheduler_config, 10):
                noise = torch.randn(clean.shape, generator=generator)
                noisy = replace(branch, latents=move(clean, noise, 1.0, step.alpha_noisy))
                errors.append(
                    (denoiser.predict(Branches(conditional=noisy), step.timestep).conditional - noise)
                    .square()
                    .mean()
                    .item()
                )
        return float(np.mean(errors))

    assert error(tmp_path / "tuned" / "model") < 0.9 * error(golden_folder / "model")


@pytest.mark.slow
def test_class_images_are_learnt_beside_it(tune: Run, tmp_path: Path) -> None:
    folder = tmp_path / "class"
    folder.mkdir()
    for number, size in enumerate([(80, 64), (64, 96)]):
        Image.fromarray(np.full((*size, 3), 60 * number + 60, np.uint8)).save(folder / f"{number}.png")
    assert tune(steps=2, class_images=folder, class_prompt="a car") == 0
    (table,) = (tmp_path / "tuned" / "log").rglob("metrics.csv")
    assert np.isfinite(np.genfromtxt(table, delimiter=",", names=True)["class"]).all()
    assert tune(steps=2, out=tmp_path / "alone") == 0
    assert not same(weights(tmp_path / "alone" / "model"), weights(tmp_path / "tuned" / "model"))


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(tune: Run, tmp_path: Path) -> None:
    assert tune(steps=2, out=tmp_path / "plain") == 0
    assert tune(steps=2, gradient_checkpointing="true") == 0
    plain, saved = weights(tmp_path / "plain" / "model"), weights(tmp_path / "tuned" / "model")
    for name, value in plain.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"frames": 1}, "gives one frame: motion is learnt from at least 2"),
        ({"clip": "nowhere.mp4"}, "nowhere.mp4"),
        ({"steps": 0}, "--steps is 0"),
        ({"learning_rate": 0}, "--learning-rate is 0"),
        ({"lora": "style.safetensors"}, "--lora is not for tuning"),
        ({"motion_adapter": "picturebook-motion"}, "--motion-adapter is not for tuning"),
        ({"class_prompt": "a car"}, "--class-prompt was given without --class-images"),
        ({"class_images": "nowhere"}, "nowhere"),
        ({"prompt": "word " * 90}, "tokens"),
    ],
)
def test_mistakes_are_said(
    tune: Run, capsys: pytest.CaptureFixture[str], options: dict[str, Any], sentence: str
) -> None:
    assert tune(**options) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_another_tuning_in_the_folder_is_refused(tune: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(steps=2) == 0
    assert tune(steps=1) == 1
    assert "was tuned for 2 steps already" in capsys.readouterr().err
    assert tune(steps=2, learning_rate=1e-3) == 1
    assert "holds a tuning with another learning_rate" in capsys.readouterr().err


def test_steps_are_told(tune: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(steps=2) == 0
    first, *_ = said = capsys.readouterr().out.splitlines()  # a captured stream is no terminal
    assert first == "training: step 1 of 2"
    assert not any("Epoch" in line for line in said)


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_it(tune: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(steps=30, learning_rate=1e30) == 1
    assert "The loss is nan at step" in capsys.readouterr().err
    assert not (tmp_path / "tuned" / "model").exists()


@pytest.mark.slow
def test_too_little_memory_is_said_with_a_remedy(
    tune: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Tuning, "error", exhausted)
    assert tune() == 1
    said = capsys.readouterr().err
    assert "4 frames of 64 x 64 do not fit the memory for training: use --gradient-checkpointing" in said
    assert "--frames 2" in said


@pytest.mark.slow
def test_an_interrupted_tuning_goes_on(tune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Tuning.training_step

    def interrupted(self: Tuning, batch: torch.Tensor) -> torch.Tensor:
        if self.global_step == 3:
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Tuning, "training_step", interrupted)
        assert tune() == 130
    assert not (tmp_path / "tuned" / "model").exists()
    assert tune() == 0
    assert tune(out=tmp_path / "whole") == 0
    assert same(weights(tmp_path / "tuned" / "model"), weights(tmp_path / "whole" / "model"))


def _in_place(name: str, content: Any) -> Callable[[Path], None]:
    """Something else where a file was: bytes, an object saved by torch, a pipe, a folder, or a link."""

    def damage(folder: Path) -> None:
        file = folder / name
        file.unlink()
        if content == "pipe":
            os.mkfifo(file)
        elif content == "folder":
            file.mkdir()
        elif isinstance(content, Path):
            file.symlink_to(content)
        elif isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)

    return damage


def _checkpoint(**changes: Any) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        file = out / "checkpoints" / "last.ckpt"
        torch.save(torch.load(file, weights_only=True) | changes, file)

    return damage


def _only_half_of_its_weights(out: Path) -> None:
    state = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    _checkpoint(state_dict=dict(list(state.items())[::2]))(out)


def _a_weight_of_another_shape(out: Path) -> None:
    state = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    _checkpoint(state_dict=state | {next(iter(state)): torch.zeros(3)})(out)


LAST = "checkpoints/last.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda out: os.truncate(out / LAST, 3000),
        *(_in_place(LAST, content) for content in (b"", b"no checkpoint", [1], {"global_step": "x"}, "folder", "pipe")),
        *(_checkpoint(**{name: 3}) for name in ("state_dict", "optimizer_states", "loops", "lr_schedulers")),
        *(_checkpoint(global_step=step) for step in (-1, None, True)),
        _checkpoint(optimizer_states=[]),
        _checkpoint(state_dict={}),
        _only_half_of_its_weights,
        _a_weight_of_another_shape,
    ],
)
def test_a_damaged_checkpoint_is_set_aside(
    tune: Run, once_tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    """It is kept under another name, and training starts again: what comes out is what a fresh start gives."""
    expected = weights(once_tuned / "model")
    shutil.copytree(once_tuned, tmp_path / "tuned")
    damage(tmp_path / "tuned")
    assert tune(steps=2) == 0
    assert "is kept as last.ckpt.damaged1, and the training starts again" in capsys.readouterr().out
    assert (tmp_path / "tuned" / "checkpoints" / "last.ckpt.damaged1").exists()
    assert same(weights(tmp_path / "tuned" / "model"), expected)


@pytest.fixture(scope="module")
def once_tuned(golden_folder: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("once") / "tuned"
    words = {"model": golden_folder / "model", "clip": clip, "prompt": SOURCE, "out": out, "height": 64, "width": 64}
    words |= {"steps": 2, "rank": 4, "learning_rate": 1e-2, "threads": 1, "sample_every": 100, "checkpoint_every": 2}
    assert main(["tune", *(f"--{name}={value}" for name, value in words.items()), "--device=cpu"]) == 0
    return out


@pytest.mark.parametrize(
    "damage",
    [
        *(_in_place("tune.json", content) for content in (b"", b"[", b"[1]", b"3", b"\xff\xfe", b"{}", b'{"a": NaN}')),
        *(_in_place("tune.json", content) for content in ("folder", "pipe", b"[" * 10**5)),
        lambda out: (out / "samples").write_text("a file", encoding="utf-8"),
    ],
)
def test_damaged_folders_are_said(
    tune: Run, once_tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    shutil.copytree(once_tuned, tmp_path / "tuned")
    damage(tmp_path / "tuned")
    assert tune(steps=3, sample_every=3) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "tuned") in said
    assert len(said) < 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tuned", "tuned/checkpoints", "tuned/log"])
def test_a_file_where_a_folder_belongs_is_said(
    tune: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("a file", encoding="utf-8")
    assert tune(steps=1) == 1
    assert str(tmp_path / "tuned") in capsys.readouterr().err


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_whole(
    once_tuned: Path, golden_folder: Path, tmp_path: Path, clip: Path
) -> None:
    """No file of this process may grow beyond what its checkpoint takes; afterwards the training goes on."""
    out = tmp_path / "tuned"
    shutil.copytree(once_tuned, out)
    before = (out / LAST).read_bytes()
    words = json.dumps(
        [
            *("tune", f"--model={golden_folder / 'model'}", f"--clip={clip}", f"--prompt={SOURCE}", f"--out={out}"),
            *("--height=64", "--width=64", "--steps=4", "--rank=4", "--learning_rate=1e-2", "--threads=1"),
            *("--sample_every=100", "--checkpoint_every=2", "--device=cpu"),
        ]
    )
    limited = (
        "import json, resource, sys; from fatezero.cli import main;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) // 2}, resource.RLIM_INFINITY));"
        "sys.exit(main(json.loads(sys.argv[1])))"
    )
    ran = subprocess.run([sys.executable, "-c", limited, words], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "cannot be written" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert (out / LAST).read_bytes() == before
    assert main(json.loads(words)) == 0


def published(golden_folder: Path, folder: Path, theirs: str = "FateZero") -> dict[str, torch.Tensor]:
    """A checkpoint as the authors publish theirs, its temporal layers random; returns its UNet's weights."""
    shutil.copytree(golden_folder / "model", folder)
    unet = UNetBackbone.load(str(golden_folder / "model"), RuntimeConfig(device="cpu", dtype="float32")).unet
    torch.manual_seed(0)
    inflate(unet, 160)  # type: ignore[arg-type]
    state = {
        name: value + 0.1 * torch.randn(value.shape) * is_temporal(name) for name, value in unet.state_dict().items()
    }
    path = folder / "unet" / "config.json"
    config = json.loads(path.read_text())
    if theirs == "FateZero":
        names = state
        config |= {"model_config": {"lora": 160, "SparseCausalAttention_index": [0, "mid"]}}
        path.write_text(json.dumps(config).replace("Block2D", "BlockPseudo3D").replace("UNet2D", "UNetPseudo3D"))
    else:  # showlab's Tune-A-Video has no temporal convolutions and other names
        kept = {name: value for name, value in state.items() if "conv_temporal" not in name}
        names = {name.replace("_temporal.", "_temp."): value for name, value in kept.items()}
        path.write_text(json.dumps(config).replace("Block2D", "Block3D").replace("UNet2D", "UNet3D"))
        state = kept
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (folder / part).glob("*.safetensors")
        torch.save(names if part == "unet" else load_file(file), file.with_suffix(".bin"))
        file.unlink()
    return state


@pytest.mark.slow
@pytest.mark.parametrize(("theirs", "key_frames"), [("FateZero", ("self", "middle")), ("Tune-A-Video", (-1, "first"))])
def test_published_checkpoints_are_converted(
    golden_folder: Path, tmp_path: Path, theirs: str, key_frames: tuple[Any, ...]
) -> None:
    state = published(golden_folder, tmp_path / "theirs", theirs)
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    backbone = UNetBackbone.load(str(tmp_path / "ours"), RuntimeConfig(device="cpu", dtype="float32"))
    ours = backbone.unet.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in state.items())
    extra = {name for name in ours if name not in state}
    assert all("conv_temporal" in name for name in extra)
    assert all(not ours[name].any() for name in extra if name.endswith("up.weight"))
    assert not list((tmp_path / "ours").rglob("*.bin"))
    assert tuple(json.loads((tmp_path / "ours" / "fatezero.json").read_text())["key_frames"]) == key_frames
    whole = UNetBackbone.load(str(golden_folder / "model"), RuntimeConfig(device="cpu", dtype="float32"))
    assert torch.equal(backbone.embed(SOURCE).hidden, whole.embed(SOURCE).hidden)


class _Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.slow
def test_code_in_a_published_checkpoint_does_not_run(
    golden_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(golden_folder, tmp_path / "theirs")
    torch.save({"weight": _Payload(tmp_path / "mark")}, tmp_path / "theirs" / "vae" / "diffusion_pytorch_model.bin")
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 1
    assert "does not read as tensors alone" in capsys.readouterr().err
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "ours").exists()


def _image_model(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text('{"block_out_channels": [8, 16]}')


def _other_widths(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cross_attention_dim": 64}))


def _temporal_downsampling(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(path.read_text().replace('"lora": 160', '"temporal_downsample": true'))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: shutil.rmtree(folder / "unet"), "give a whole checkpoint's folder"),
        (lambda folder: next((folder / "unet").glob("*.bin")).unlink(), "holds 0 files of weights"),
        (_image_model, "describes no working UNet2DConditionModel"),
        (_other_widths, "weights of other shapes than its config.json says"),
        (lambda folder: shutil.rmtree(folder / "tokenizer"), "has no folder tokenizer"),
        (_temporal_downsampling, "temporal_downsample"),
    ],
)
def test_other_layouts_are_refused(
    golden_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    sentence: str,
) -> None:
    published(golden_folder, tmp_path / "theirs")
    damage(tmp_path / "theirs")
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


@pytest.fixture(scope="module")
def once_published(golden_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "theirs"
    published(golden_folder, folder)
    return folder


def _with_tensors(part: str, **tensors: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / part / ("model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin")
        state = torch.load(file, weights_only=True)
        torch.save(state | {name.replace("__", "."): value for name, value in tensors.items()}, file)

    return damage


def _setting(name: str, **values: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")

    return damage


VAE = "vae/diffusion_pytorch_model.bin"
UNET_CONFIG = "unet/config.json"


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        *(_in_place(VAE, content) for content in (b"", b"no pickle", [1, 2], {}, {"a": 3}, {1: torch.ones(1)}, "text")),
        *(_in_place(VAE, content) for content in ("pipe", "folder", torch.ones(3), {"a": {"b": torch.ones(1)}})),
        _in_place(VAE, {"a": torch.zeros(1).expand(10**12)}),
        _in_place(VAE, {f"a{i}": torch.zeros(1000) for i in range(3)}),
        _in_place("tokenizer/merges.txt", Path(__file__)),
        *(_in_place("tokenizer/vocab.json", content) for content in (b"[", b'{"a": "b"}', "pipe", "folder")),
        *(_in_place(UNET_CONFIG, content) for content in (b"[1]", b"null", b"\xff", b"[" * 10**5, "pipe", "folder")),
        _in_place("scheduler/scheduler_config.json", "pipe"),
        _in_place("text_encoder/config.json", Path("/nowhere")),
        lambda folder: (folder / "tokenizer" / "vocab.json").unlink(),
        lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink(),
        _setting(UNET_CONFIG, model_config=3),
        *(_setting(UNET_CONFIG, model_config={"lora": rank}) for rank in (0, -1, "x", True, [4])),
        _setting(UNET_CONFIG, model_config={"lora": 160, "SparseCausalAttention_index": 3}),
        _setting(UNET_CONFIG, model_config={"lora": 160, "SparseCausalAttention_index": [{}, "somewhere"]}),
        _setting(UNET_CONFIG, model_config={"lora": 160, "SparseCausalAttention_index": ["somewhere"]}),
        _setting(UNET_CONFIG, layers_per_block=10**9),
        _setting(UNET_CONFIG, block_out_channels=[10**6] * 4),
        _setting(UNET_CONFIG, norm_num_groups="x"),
        _setting("text_encoder/config.json", num_hidden_layers=10**9),
        _setting("scheduler/scheduler_config.json", beta_start="x"),
        _setting("scheduler/scheduler_config.json", num_train_timesteps=10**10),
        _setting("tokenizer/tokenizer_config.json", model_max_length=None),
        _with_tensors("unet", conv_in__bias=torch.full((8,), float("nan"))),
        _with_tensors("unet", conv_in__bias=torch.zeros(9)),
        _with_tensors("unet", conv_in__bias=torch.zeros(8, dtype=torch.int8)),
        _with_tensors("unet", conv_in__bias=torch.zeros(8, dtype=torch.complex64)),
        _with_tensors("unet", conv_in__bias=torch.zeros(8).to_sparse()),
        _with_tensors("unet", conv_in__bias=torch.zeros(8, device="meta")),
        _with_tensors("unet", something=torch.zeros(8)),
        _with_tensors("unet", conv_in__conv_temporal__down__weight=torch.zeros(1, 8, 3)),
        _with_tensors("vae", decoder__conv_in__bias=torch.full((16,), float("inf"))),
        _with_tensors("text_encoder", more=torch.zeros(2)),
    ],
)
def test_damaged_published_checkpoints_are_refused(
    once_published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    """By a sentence that names their own folder, and nothing is left."""
    shutil.copytree(once_published, tmp_path / "theirs")
    damage(tmp_path / "theirs")
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "theirs") in said
    assert ".partial" not in said
    assert len(said) < 1000
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_nothing_is_overwritten(golden_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(golden_folder / "model"), str(tmp_path)]) == 1
    assert "exists: name another folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_manifest_gets_a_model_for_each_clip(tune: Run, clip: Path, tmp_path: Path) -> None:
    """And the edits of the manifest find theirs by the clip's name."""
    other = tmp_path / "data" / "other.mp4"
    other.parent.mkdir()
    shutil.copy(clip, other.with_name("square.mp4"))
    write_video(other, np.full((4, 64, 64, 3), 50, np.uint8), 8)
    size = {"height": 64, "width": 64, "frames": 2}
    edits = [
        {"id": f"{name}-{target[2:5]}", "clip": {"path": f"{name}.mp4", **size}, "source_prompt": SOURCE,
         "target_prompt": target, "category": "shape"}
        for name in ("square", "other")
        for target in ("a red car", "a big bus")
    ]  # fmt: skip
    edits.append({**edits[0], "id": "style", "clip": {"path": "third.mp4"}, "category": "style"})
    manifest = tmp_path / "data" / "manifest.json"
    manifest.write_text(json.dumps({"name": "two", "edits": edits}))
    models = tmp_path / "models"
    asked = {"clip": None, "prompt": None, "manifest": manifest, "categories": '["shape"]'}
    (models / "square").mkdir(parents=True)
    (models / "square" / "tune.json").write_text("[", encoding="utf-8")
    assert tune(**asked, out=models, steps=2, frames=2) == 1
    assert (models / "other" / "model").is_dir()  # one clip's damaged folder stops no other
    shutil.rmtree(models / "square")
    assert tune(**asked, out=models, steps=2, frames=2) == 0
    assert sorted(path.name for path in models.iterdir()) == ["other", "square"]
    words = [f"--model={models}/{{clip}}/model", f"--manifest={manifest}", "--steps=2", f"--out={tmp_path / 'run'}"]
    assert main(["edit", *words]) == 1  # the clip that is not there, and nothing else
    metas = [json.loads(path.read_text()) for path in sorted((tmp_path / "run").rglob("meta.json"))]
    assert [meta["checkpoint"]["name"] for meta in metas] == [
        str(models / name / "model") for name in ("other", "other", "square", "square")
    ]
    assert len({meta["checkpoint"]["digest"] for meta in metas}) == 2
    assert main(["edit", *words, "--dry-run"]) == 1
    assert main(["edit", *words, "--motion_adapter=picturebook-motion"]) == 1
