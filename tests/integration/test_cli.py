"""The command line as a user meets it: results on disk, and one sentence for every mistake."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from fatezero.cli import main
from fatezero.clips.video import probe, write_video
from fatezero.diffusion.checkpoint import fitting_size, native_size

# A background job of a shell ignores interrupts, and so would `fatezero` started by tests that run as one.
INTERRUPTIBLE = """
import signal, sys
from fatezero.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""
SOURCE, TARGET = "a silver jeep driving down a road", "a silver car driving down a road"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mp4 of a moving square, 3 frames of 64 x 96."""
    path = tmp_path_factory.mktemp("clips") / "square.mp4"
    frames = np.full((3, 64, 96, 3), 90, np.uint8)
    for i in range(3):
        frames[i, 16:48, 8 + 8 * i : 40 + 8 * i] = (200, 200, 220)
    write_video(path, frames, 8)
    return path


@pytest.fixture
def edit(golden_folder: Path, clip: Path, tmp_path: Path) -> Callable[..., int]:
    """`fatezero edit` on the tiny checkpoint, two steps; options may be overridden."""

    def run(*words: str, **options: object) -> int:
        chosen = {
            "model": golden_folder / "model",
            "clip": clip,
            "source": SOURCE,
            "target": TARGET,
            "height": 64,
            "width": 96,
            "steps": 2,
            "out": tmp_path / "run",
            "device": "cpu",
        } | options
        return main(["edit", *(f"--{k}={v}" for k, v in chosen.items() if v is not None), *words])

    return run


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.mark.slow
def test_an_edit_leaves_everything_a_person_wants(edit: Callable[..., int], tmp_path: Path) -> None:
    assert edit("--edited-words", "jeep", id="square", variant="full") == 0
    result = tmp_path / "run" / "full" / "square"
    assert [p.name for p in sorted((result / "frames").iterdir())] == ["00000.png", "00001.png", "00002.png"]
    for name, width in (("edited.mp4", 96), ("masks.mp4", 96), ("side_by_side.mp4", 196)):
        assert probe(result / name).width == width
    with av.open(str(result / "edited.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    assert (result / "attention_0_jeep.png").is_file()
    meta = json.loads((result / "meta.json").read_text())
    assert meta["request"]["target_prompt"] == TARGET
    assert meta["config"]["steps"] == 2
    assert len(meta["checkpoint"]["digest"]) == 64
    assert meta["source_attention"]["backend"] == "qk"
    assert meta["source_attention"]["predicted"] == meta["kept_bytes"]["attention"]
    assert {"torch", "diffusers", "python"} <= meta["versions"].keys()
    assert meta["timings"].keys() == {"encode", "inversion", "editing", "decode"}
    assert meta["peak_memory_bytes"] > 0


@pytest.mark.slow
def test_an_edit_says_first_what_and_last_where(
    edit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit("--edited-words", "jeep", id="square") == 0
    said = capsys.readouterr()
    first, *_, there, look = said.out.splitlines()
    assert first == f"Editing 'square.mp4': from '{SOURCE}' to '{TARGET}', changing 'jeep'."
    assert there == f"The edit is in {tmp_path}/run/fatezero/square"
    assert f"{tmp_path}/run/fatezero/square/side_by_side.mp4" in look
    inside = ("network call a step", "kept latents", "Decoded by")
    assert not [word for word in inside if word in said.out + said.err]
    assert edit("--edited-words", "jeep", "--verbose", id="again") == 0
    said = capsys.readouterr()
    assert all(word in said.out for word in inside)
    assert edit("--edited-words", "jeep", id="square", steps=1, target="a silver car") == 1
    assert capsys.readouterr().err == (
        f"fatezero: {tmp_path}/run/fatezero/square holds a result of target_prompt '{TARGET}' (now 'a silver car'), "
        "steps 2 (now 1): give --variant NAME (or --out) to keep both, or --redo to replace it.\n"
    )


@pytest.mark.slow
def test_a_wrong_word_is_told_once_and_can_be_forgotten(
    edit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit("--edited-words", "jepp", id="square") == 1
    said = capsys.readouterr()
    assert "'jepp' is not a word" not in said.out
    assert said.err.count("'jepp' is not a word") == 1
    assert "edits are in" not in said.out
    run = str(tmp_path / "run")
    assert main(["status", run]) == 1
    assert main(["status", run, "--forget"]) == 0
    assert main(["status", run]) == 0
    assert not list(tmp_path.glob("run/**/*.failed*"))


def test_a_folder_of_videos_is_no_clip(
    edit: Callable[..., int], clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit(clip=clip.parent) == 1
    assert "holds videos (square.mp4) and no images: name one of them" in capsys.readouterr().err


@pytest.mark.slow
def test_running_again_gives_the_same_bytes(edit: Callable[..., int], tmp_path: Path) -> None:
    for out in ("a", "b"):
        assert edit(id="square", out=tmp_path / out) == 0
    first, second = fingerprint(tmp_path / "a"), fingerprint(tmp_path / "b")
    changing = {name for name in first if first[name] != second[name]}
    assert changing == {"fatezero/square/meta.json", "results.parquet"}  # they hold the timings


@pytest.mark.slow
def test_a_whole_file(edit: Callable[..., int], golden_folder: Path, clip: Path, tmp_path: Path) -> None:
    shutil.copyfile(clip, tmp_path / "square.mp4")
    (tmp_path / "manifest.yaml").write_text(
        "name: two\nedits:\n"
        f"- {{id: car, clip: square.mp4, source_prompt: {SOURCE}, target_prompt: {TARGET}, edited_words: [jeep]}}\n"
        f"- {{id: ball, clip: square.mp4, source_prompt: {SOURCE}, target_prompt: a silver ball driving down a road,"
        " settings: {guidance_scale: 3.0}}\n"
    )
    config = tmp_path / "run.yaml"
    config.write_text(
        f"model: {golden_folder / 'model'}\nmanifest: {tmp_path / 'manifest.yaml'}\nsteps: 2\nout: {tmp_path / 'out'}\n"
        "height: 64\nwidth: 96\nnorm_scope: frame\nchunk: 2\nfusion: {self_window: [0.0, 0.5]}\ndevice: cpu\n"
    )
    assert main(["edit", "--config", str(config)]) == 0
    metas = {p.parent.name: json.loads(p.read_text()) for p in tmp_path.glob("out/fatezero/*/meta.json")}
    assert metas.keys() == {"car", "ball"}
    assert metas["ball"]["config"]["guidance_scale"] == 3.0
    assert metas["car"]["config"]["fusion"]["self_window"] == [0.0, 0.5]
    assert not (tmp_path / "out/fatezero/ball/masks").exists()


@pytest.mark.slow
def test_one_bad_clip_does_not_stop_the_others(
    edit: Callable[..., int], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(clip, tmp_path / "square.mp4")
    (tmp_path / "torn.mp4").write_bytes(clip.read_bytes()[:400])
    lines = [
        {"id": name, "clip": f"{name}.mp4", "source_prompt": SOURCE, "target_prompt": TARGET}
        for name in ("torn", "square")
    ]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    manifest = tmp_path / "manifest.jsonl"
    assert edit(manifest=manifest, clip=None, source=None, target=None, seed=3) == 1
    assert "--seed was given beside" in capsys.readouterr().err
    assert edit(manifest=manifest, clip=None, source=None, target=None) == 1
    assert (tmp_path / "run/fatezero/square/meta.json").is_file()
    assert not (tmp_path / "run/fatezero/torn").exists()
    complaint = capsys.readouterr().err
    assert "torn" in complaint
    assert "Traceback" not in complaint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"clip": "nowhere.mp4"}, "nowhere.mp4"),
        ({"model": "nowhere/at/all"}, "no checkpoint nowhere/at/all"),
        ({"edited_words": "[tiger]"}, "'tiger' is not a word of the prompt"),
        ({"fusion.word_map": "replace", "target": "a car"}, "equal word counts"),
        ({"target": "car " * 90}, "90 tokens, which take 2 contexts"),
        ({"height": 60}, "multiples of 8"),
        ({"chunk": 2}, "norm_scope is 'clip'"),
        ({"fusion.self_window": "[0.5,0.2]"}, "fusion.self_window"),
        ({"steps": 0}, "steps is 0: it is a number from 1 to 1000"),
        ({"variant": "../elsewhere"}, "--variant"),
        ({"target": None}, "--target is missing: one edit needs --clip, --source and --target"),
        ({"target": None, "clip": None}, "say what the shipped clip should become"),
        ({"frames": 9}, "9"),
        ({"memory_gb": 0, "backend": "maps"}, "'maps' would keep"),
        ({"device": "mps"}, "'mps' is not available"),
        ({"steps": 1000}, "take at most 500"),
        ({"fusion.min_downsampling": 16}, "downsampling 16 or coarser"),
        ({"fusion.cross_window": "null", "fusion.reweight": "{car: 2}"}, "no effect on 'car'"),
        ({"target_words": "bus"}, "'bus' is not a word"),
        ({"root": "."}, "--root"),
        ({"blending.mask_downsampling": 3, "edited_words": "[jeep]"}, "downsampling 3"),
    ],
)
def test_mistakes_get_one_sentence(
    options: dict[str, object],
    complaint: str,
    edit: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert edit(id="earlier") == 0
    before = fingerprint(tmp_path / "run/fatezero/earlier")
    assert edit(**({"id": "later"} | options)) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert complaint in said
    assert said.startswith("fatezero: ")
    assert fingerprint(tmp_path / "run/fatezero/earlier") == before
    assert not (tmp_path / "run/fatezero/later").exists()


@pytest.mark.parametrize("kind", ["empty", "text", "audio"])
def test_files_that_are_no_clips(
    kind: str, edit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes({"empty": b"", "text": b"this is no film\n" * 50, "audio": b""}[kind])
    if kind == "audio":
        _write_audio(path)
    assert edit(clip=path) == 1
    said = capsys.readouterr().err
    assert "clip.mp4" in said
    assert "Traceback" not in said


def _write_audio(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4410), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_unknown_options_are_refused(edit: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert edit("--fusion.windows=3") == 2
    said = capsys.readouterr().err
    assert said == "fatezero: fatezero edit has no option --fusion.windows; did you mean --fusion.word-windows?\n"


def test_a_checkpoint_without_safetensors_is_refused(
    edit: Callable[..., int], golden_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(golden_folder / "model", folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")
    assert edit(model=folder) == 1
    assert "no safetensors weights in unet/" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_named(
    edit: Callable[..., int], golden_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(golden_folder / "model", folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert edit(model=folder) == 1
    assert "does not read as safetensors" in capsys.readouterr().err


@pytest.mark.slow
def test_a_checkpoint_may_recommend_settings(
    edit: Callable[..., int], golden_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(golden_folder / "model", folder)
    (folder / "fatezero.json").write_text('{"guidance_scale": 2.5, "fusion.min_downsampling": 1}')
    assert edit("--fusion.self_window=[0.0,0.5]", model=folder, id="one") == 0
    config = json.loads((tmp_path / "run/fatezero/one/meta.json").read_text())["config"]
    assert (config["guidance_scale"], config["fusion"]["min_downsampling"]) == (2.5, 1)
    assert config["fusion"]["self_window"] == [0.0, 0.5]
    (folder / "fatezero.json").write_text('{"guidance": 2.5}')
    assert edit(model=folder, id="two") == 1
    assert "guidance" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting a small disk needs root on Linux")
def test_a_full_disk_leaves_earlier_results_whole(
    edit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("this sandbox allows no mounts")
    try:
        assert edit(out=disk / "run", id="one") == 0
        (disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(disk).free - 8192))
        before = fingerprint(disk / "run/fatezero/one")
        assert edit("--redo", out=disk / "run", id="one", guidance_scale=2) == 1
        assert edit(out=disk / "run", id="two") == 1
        assert "would fit" in capsys.readouterr().err
        assert fingerprint(disk / "run/fatezero/one") == before
        assert not (disk / "run/fatezero/two").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_output_that_is_a_file_is_named(
    edit: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("mine")
    assert edit(out=tmp_path / "taken") == 1
    assert "taken" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.slow
def test_an_interrupted_run_leaves_no_half_result(golden_folder: Path, clip: Path, tmp_path: Path) -> None:
    options = {"model": golden_folder / "model", "clip": clip, "source": SOURCE, "target": TARGET, "steps": 500}
    options |= {"height": 64, "width": 96, "out": tmp_path / "run", "id": "slow", "device": "cpu"}
    command = [sys.executable, "-c", INTERRUPTIBLE, "edit", *(f"--{k}={v}" for k, v in options.items())]
    process = subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = ""
    while "inversion" not in said:  # the work has begun
        character = process.stdout.read(1)
        assert character, said
        said += character
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert not list(tmp_path.rglob("*.partial*"))
    result = tmp_path / "run/fatezero/slow"
    assert not result.exists() or (result / "meta.json").exists()  # whole, if the signal came late


def test_help_and_configuration(capsys: pytest.CaptureFixture[str], golden_folder: Path) -> None:
    for words in ([], ["--help"], ["edit", "--help"], ["bench", "-h"], ["train"], ["train", "clip", "--help"]):
        assert main(words) == 0
        assert capsys.readouterr().out.startswith(" ".join(["usage: fatezero", *words]).partition(" -")[0])
    assert main(["--help", "status"]) == 0
    assert capsys.readouterr().out.startswith("usage: fatezero status")
    with pytest.raises(SystemExit):
        main(["edit", f"--model={golden_folder / 'model'}", "--steps=7", "--print_config"])
    printed = capsys.readouterr().out
    assert "steps: 7" in printed
    assert "mask_downsampling: 4" in printed


def test_the_checkpoints_own_scale(golden_folder: Path) -> None:
    assert native_size(golden_folder / "model") == (512, 64)
    assert fitting_size(720, 1280, 512, 64) == (512, 896)
    assert fitting_size(100, 100, 512, 64) == (512, 512)
