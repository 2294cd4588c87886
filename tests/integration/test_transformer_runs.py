"""Runs with a video transformer from the command line: folders, forecasts, processes, and what cannot be done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fatezero import RuntimeConfig, UserError
from fatezero.cli import main
from fatezero.clips.video import probe, write_video
from fatezero.diffusion.model_families.unet import UNetBackbone
from tests.tiny_pipelines import saved, tiny_stable_diffusion_3, tiny_wan

SOURCE, TARGET = "a silver jeep driving down the road", "a silver bus driving down the road"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan, a clip of a moving square, and a manifest of two edits of it."""
    folder = tmp_path_factory.mktemp("wan")
    saved(tiny_wan(), folder / "wan")
    frames = np.full((9, 64, 96, 3), 90, np.uint8)
    for i in range(9):
        frames[i, 16:48, 8 + 4 * i : 40 + 4 * i] = (200, 200, 220)
    write_video(folder / "square.mp4", frames, 8)
    clip = {"path": "square.mp4", "height": 64, "width": 96}
    edits = [
        {"id": name, "clip": clip, "source_prompt": SOURCE, "target_prompt": target, "edited_words": ["jeep"]}
        for name, target in (("bus", TARGET), ("red", "a red jeep driving down the road"))
    ]
    (folder / "edits.jsonl").write_text("\n".join(map(json.dumps, edits)), encoding="utf-8")
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Callable[..., int]:
    """A verb on these edits, two steps."""

    def run(*words: str, verb: str = "edit", **options: object) -> int:
        chosen = {"model": folder / "wan", "manifest": folder / "edits.jsonl", "steps": 2, "device": "cpu"}
        chosen |= {"out": tmp_path / "run"} if verb == "edit" else {}
        return main([verb, *(f"--{k}={v}" for k, v in (chosen | options).items()), *words])

    return run


@pytest.mark.slow
def test_an_edit_leaves_everything_a_person_wants(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--dry_run") == 0
    foretold = capsys.readouterr().out
    assert "1 network call a step; source attention: qk on the host" in foretold
    assert "predicted: " in foretold
    assert run() == 0
    for name in ("bus", "red"):
        result = tmp_path / "run" / "fatezero" / name
        assert len(list((result / "frames").iterdir())) == len(list((result / "masks").iterdir())) == 9
        assert [probe(result / f"{video}.mp4").width for video in ("edited", "masks", "side_by_side")] == [96, 96, 196]
        assert (result / "attention_0_jeep.png").is_file()
        meta = json.loads((result / "meta.json").read_text(encoding="utf-8"))
        assert meta["source_attention"]["predicted"] == meta["kept_bytes"]["attention"] > 0
        assert meta["config"]["key_frames"] == ["self"]
    assert main(["status", str(tmp_path / "run")]) == 0
    assert "2 done" in capsys.readouterr().out


@pytest.mark.slow
def test_flow_edit_and_sdedit_by_options(run: Callable[..., int], tmp_path: Path) -> None:
    off = ("--fusion=null", "--blending=null")
    assert run(*off, "--flow_edit.n_max=0.5", "--flow_edit.n_avg=2", variant="flow_edit") == 0
    assert run(*off, "--sdedit_strength=0.5", variant="sdedit") == 0
    meta = json.loads((tmp_path / "run" / "flow_edit" / "bus" / "meta.json").read_text(encoding="utf-8"))
    assert meta["config"]["flow_edit"] == {"n_max": 0.5, "n_min": 0.0, "n_avg": 2, "source_guidance": 3.5}


def test_segments_are_refused_before_anything_is_written(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--segment=5") == 1
    assert capsys.readouterr().err.strip().startswith("fatezero: --segment is 5, and the attention of")
    assert not (tmp_path / "run").exists()


def test_what_takes_a_unet_says_so(folder: Path) -> None:
    with pytest.raises(UserError, match="is a checkpoint of Wan, a transformer, and this is for UNets"):
        UNetBackbone.load(str(folder / "wan"), RuntimeConfig(device="cpu"))


@pytest.mark.slow
def test_clips_of_image_transformers_are_cut(run: Callable[..., int], tmp_path: Path) -> None:
    """Frames do not see each other: what a segment makes is the whole clip's, to rounding."""
    model = saved(tiny_stable_diffusion_3(), tmp_path / "sd3")
    assert run(model=model) == run("--segment=4", model=model, out=tmp_path / "cut") == 0
    whole, cut = (
        np.array(Image.open(tmp_path / folder / "fatezero" / "bus" / "frames" / "00008.png"), int)
        for folder in ("run", "cut")
    )
    assert np.abs(whole - cut).max() <= 2


@pytest.mark.slow
def test_a_kept_inversion_is_found_again(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {"cache": tmp_path / "kept", "solver_order": 2}
    assert run(verb="invert", **kept) == 0
    capsys.readouterr()
    assert run("--verbose", **kept) == 0
    assert "from the cache" in capsys.readouterr().out
    assert run(out=tmp_path / "plain", solver_order=2, backend="recompute") == 0
    for name in ("bus", "red"):
        one, other = (tmp_path / folder / "fatezero" / name / "frames" / "00008.png" for folder in ("run", "plain"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_processes_make_the_same_bytes(run: Callable[..., int], tmp_path: Path) -> None:
    assert run() == 0
    assert run("--devices=2", out=tmp_path / "two") == 0
    for name in ("bus", "red"):
        for frame in ("00000.png", "00008.png"):
            one, two = (tmp_path / folder / "fatezero" / name / "frames" / frame for folder in ("run", "two"))
            assert one.read_bytes() == two.read_bytes()
