"""Good, bad, good: one edit's failure is a sentence, and costs no other edit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.faults.warm_process import Blow, WarmProcess

pytestmark = pytest.mark.slow
Editing = Callable[..., list[str]]
NO_FRAMES = np.zeros((64, 64, 3), np.uint8)


@pytest.fixture
def manifest_with(small_manifest: Path, tmp_path: Path) -> Callable[..., Path]:
    """Three edits, the middle one with other fields."""

    def write(**fields: Any) -> Path:
        edits = [json.loads(line) for line in small_manifest.read_text(encoding="utf-8").splitlines()[:3]]
        for edit in edits:
            edit["clip"]["path"] = os.path.relpath(small_manifest.parent / edit["clip"]["path"], "/")
        edits[1] |= fields
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps(edits), encoding="utf-8")
        return path

    return write


def results(run: Path) -> list[str]:
    return sorted(record.parent.name for record in run.glob("*/*/meta.json"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"clip": {"path": "nowhere.mp4", "height": 64, "width": 64}}, "nowhere.mp4: no such file"),
        ({"target_prompt": "a \ud800 ball"}, "cannot be written"),
        ({"edited_words": ["cube"]}, "'cube' is not a word"),
        ({"settings": {"steps": "many"}}, "request clip0-blue"),
        ({"settings": {"blending.threshold": 7}}, "blending.threshold"),
        ({"source_prompt": "ball " * 10_000}, "shorten it"),
    ],
)
def test_a_bad_edit_costs_no_other(
    fields: dict[str, Any],
    sentence: str,
    warm: WarmProcess,
    editing: Editing,
    manifest_with: Callable[..., Path],
    tmp_path: Path,
) -> None:
    words = editing(tmp_path / "run", "--root=/", manifest=manifest_with(**fields))
    foretold = warm.run(*words, "--dry-run")
    assert foretold.status == 1
    assert sentence in foretold.said
    assert not (tmp_path / "run").exists()
    ended = warm.run(*words)
    assert ended.status == 1
    assert sentence in ended.said
    assert "Traceback" not in ended.said
    assert len(ended.said) < 20_000
    assert results(tmp_path / "run") == ["clip0-red", "clip1-red"]
    assert "2 done, 1 failed" in warm.run("status", tmp_path / "run").said


def test_clips_of_other_programs_cost_no_other_edit(
    warm: WarmProcess, editing: Editing, manifest_with: Callable[..., Path], tmp_path: Path
) -> None:
    """An orientation that does not exist, a file that would start a PostScript interpreter, a rate beyond all clips."""
    frames = tmp_path / "frames"
    frames.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 99
    Image.fromarray(NO_FRAMES).save(frames / "0.jpg", exif=exif)
    script = tmp_path / "script"
    script.mkdir()
    (script / "0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n")
    for clip, status in (
        ({"path": str(frames)}, 0),
        ({"path": str(script)}, 1),
        ({"path": str(frames), "fps": 3e6}, 1),
    ):
        run = tmp_path / f"run{status}{len(clip)}"
        manifest = manifest_with(clip={**clip, "height": 64, "width": 64})
        ended = warm.run(*editing(run, "--root=/", manifest=manifest))
        assert ended.status == status, ended.said
        assert "Traceback" not in ended.said
        assert {"clip0-red", "clip1-red"} <= {*results(run)}


@pytest.mark.parametrize(
    "at",
    [
        "fatezero.lightning.datamodule:read_clip",
        "fatezero.pipeline:invert",
        "fatezero.diffusion.model_families.unet:UNetBackbone.decode",
        "fatezero.viewing.result_files:write_video",
        "fatezero.lightning.predict_steps:FateZero.load",
    ],
)
def test_an_error_that_nobody_foresaw(at: str, warm: WarmProcess, editing: Editing, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = warm.run(*editing(run), blow=Blow(at, 1, 0, "false"))  # a command that fails: no error of our own
    assert ended.status == 1, ended.said
    assert "not foreseen" in ended.said
    assert "Traceback" not in ended.said
    failed = sorted(run.glob("*/*.failed.json"))
    assert len(failed) == 4 - len(results(run)) > 0
    for reason in failed:
        log = reason.with_name(reason.name.replace(".json", ".log"))
        assert str(log) in json.loads(reason.read_text(encoding="utf-8"))["reason"]
        assert "CalledProcessError" in log.read_text(encoding="utf-8")
    assert warm.run(*editing(run)).status == 0
    assert not list(run.glob("*/*.failed.*"))


def test_any_locale_and_no_word_that_steers_the_terminal(
    editing: Editing, manifest_with: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = manifest_with(category="Größe", clip={"path": "\x1b]0;owned\x07.mp4", "height": 64, "width": 64})
    words = editing(tmp_path / "run", "--root=/", manifest=manifest)
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    for command, status in ((words, 1), (["status", str(tmp_path / "run")], 1)):
        ended = subprocess.run(
            [sys.executable, "-m", "fatezero", *command], check=False, capture_output=True, env=plain
        )
        assert ended.returncode == status, ended.stderr
        assert b"Traceback" not in ended.stderr
        assert b"\x1b]" not in ended.stdout + ended.stderr
    assert len(results(tmp_path / "run")) == 2
