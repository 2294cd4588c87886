"""`fatezero ablate` from end to end on the shipped model, as few steps as there can be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fatezero.cli import main
from fatezero.clips.video import write_video

SDEDIT = '{"fusion": null, "blending": null, "sdedit_strength": 0.5}'
VARIANTS = f'{{"full": {{}}, "no_blending": {{"blending": null}}, "sdedit": {SDEDIT}}}'


def words(out: Path, *more: str) -> list[str]:
    asked = {
        "out": out, "edits": 1, "categories": '["shape","object"]', "frames": 3, "steps": 2, "variants": VARIANTS,
        "metrics": '["psnr/*","text_alignment","mask_iou"]', "wandb": "offline", "logger": "csv", "device": "cpu",
        "threads": 1,
    }  # fmt: skip
    return ["ablate", *(f"--{name}={value}" for name, value in asked.items()), *more]


def scores(run: Path) -> pd.DataFrame:
    """The table's numbers, cost aside."""
    return pd.read_csv(run / "leaderboard.csv")


@pytest.mark.slow
def test_a_dry_run_says_what_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path / "run", "--dry-run")) == 0
    said = capsys.readouterr().out
    assert "| sdedit | fusion: None, blending: None, sdedit_strength: 0.5 | 4 |" in said  # two edits of two seeds
    assert "predicted:" in said
    assert not list(tmp_path.iterdir())


MANIFEST = """
edits:
- {id: one, clip: clip.mp4, source_prompt: a cat, target_prompt: a dog, category: shape, truth: TRUTH}
"""


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--metrics=psnr/truht",), "did you mean psnr/truth"),
        (("--judge=/nope",), "no CLIP known here"),
        (('--variants={"full": {}, "Index.html": {}}',), "'Index.html'"),
        (('--variants={"full": {}, "leaderboard.md": {}}',), "'leaderboard.md'"),
        (('--variants={"full": {}, "source": {}}',), "'source'"),
        (('--variants={"full": {}, "Full": {"steps": 3}}',), "would share the folder"),
        (("--manifest={folder}/missing.yaml",), "one: its truth cannot be used"),
        (("--manifest={folder}/folder.yaml",), "one: its truth cannot be used"),
        (("--manifest={folder}/flow.yaml",), "one: its truth cannot be used"),
        (('--sweep={"steps": []}',), "lists no values"),
        (("--manifest={folder}/recipe.yaml",), "one: its truth cannot be used"),
        (("--manifest={folder}/long.yaml",), "one: its truth cannot be used"),
    ],
)
@pytest.mark.parametrize("dry", [("--dry-run",), ()])
def test_mistakes_are_told_before_anything_is_done(
    options: tuple[str, ...], complaint: str, dry: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bench"
    (folder / "nothing").mkdir(parents=True)
    scene = "{object: cat, background: snow}"
    for name, truth in {
        "missing": "{mask: gone.mp4}",
        "folder": "{mask: nothing}",
        "flow": "{flow: clip.mp4}",
        "recipe": f"{{recipe: {{scene: {{object: a}}, seed: 1}}, target: {scene}}}",
        "long": f"{{recipe: {{scene: {scene}, seed: 1, frames: 100000000}}, target: {scene}}}",
    }.items():
        (folder / f"{name}.yaml").write_text(MANIFEST.replace("TRUTH", truth), encoding="utf-8")
    write_video(folder / "clip.mp4", np.zeros((3, 128, 128, 3), np.uint8), 8)
    more = [option.replace("{folder}", str(folder)) for option in options]
    assert main(words(tmp_path / "run", '--categories=["shape"]', *more, *dry)) == 1
    said = capsys.readouterr()
    assert complaint in said.err
    assert "to do from" not in said.out
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_disabled_tracker_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ('--categories=["shape"]', '--variants={"full": {}}', '--metrics=["psnr/truth"]', "--wandb=disabled")
    assert main(words(tmp_path / "run", *few)) == 0
    said = capsys.readouterr().out
    assert "Nothing is logged to Weights & Biases: it is disabled." in said
    assert "logged to Weights & Biases\n" not in said


@pytest.mark.slow
def test_one_command_makes_everything_and_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fatezero"]
    killed = subprocess.Popen([*command, *words(tmp_path / "one")], start_new_session=True, stdout=subprocess.DEVNULL)
    while len(list(tmp_path.glob("one/*/*/meta.json"))) < 3:
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("one/*/*/meta.json")}
    subprocess.run([*command, *words(tmp_path / "one")], check=True)
    subprocess.run([*command, *words(tmp_path / "two", "--devices=2")], check=True)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    run = tmp_path / "one"
    for name in ("index.html", "leaderboard.md", "leaderboard.html", "differences.csv", "results.parquet"):
        assert (run / name).stat().st_size > 0
    assert list(run.glob("wandb/offline-run-*"))
    assert json.loads((run / "experiment.json").read_text())["reference"] == "full"
    one, two = scores(run), scores(tmp_path / "two")
    numbers = [name for name in one.columns if not any(word in name for word in ("seconds", "memory", "bytes", "run"))]
    pd.testing.assert_frame_equal(one[numbers], two[numbers], check_exact=True)
    assert set(one["variant"]) >= {"full", "no_blending", "sdedit"}
