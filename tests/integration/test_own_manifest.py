"""A user's own manifest, whose truth is files and whose clips lie below another folder, through every verb."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fatezero.cli import main
from fatezero.clips.video import write_frames
from fatezero_eval.scoring.rows import read_rows
from tests.eval.stand_in_server import completion, serving

pytestmark = pytest.mark.slow

ABLATION = ("--frames=2", "--steps=2", '--variants={"full": {}}', "--wandb=disabled", "--device=cpu")
METRICS = ("--metrics", "psnr/outside", "psnr/truth")


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """A manifest beside no clip: those lie in `root`."""
    root, source = tmp_path / "root", np.full((3, 64, 64, 3), 80, np.uint8)
    source[:, 20:40, 10:30] = (200, 120, 40)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 10:30] = 1
    write_frames(root / "clips" / "cow", source)
    write_frames(root / "truth" / "cow", np.where(mask[..., None] > 0, 255 - source, source))
    (root / "masks").mkdir()
    for frame in range(3):
        Image.fromarray(mask).save(root / "masks" / f"{frame:05d}.png")
    edit = {
        "id": "cow", "clip": "clips/cow", "source_prompt": "a cow on the water",
        "target_prompt": "a golden cow on the water", "edited_words": ["cow"],
        "truth": {"mask": "masks", "clip": "truth/cow"},
    }  # fmt: skip
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "own.json").write_text(json.dumps([edit]), encoding="utf-8")
    return tmp_path / "lists" / "own.json"


def test_the_root_holds_everywhere_and_is_recorded(
    lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, root = tmp_path / "run", lists.parents[1] / "root"
    given = [f"--manifest={lists}", f"--root={root}"]
    assert main(["ablate", *given, f"--out={run}", *ABLATION, *METRICS]) == 0
    assert json.loads((run / "experiment.json").read_text(encoding="utf-8"))["root"] == str(root)
    scored = read_rows(run / "evaluation" / "rows.jsonl")
    assert {row.metric for row in scored if row.variant == "full" and row.value is not None} == {
        "psnr/outside@1",
        "psnr/truth@1",
    }
    assert b'"kind":"truth"' in (run / "index.html").read_bytes().replace(b" ", b"")
    for more in ([], given, [f"--manifest={lists}"]):
        assert main(["report", str(run), *more]) == 0
        assert b'"kind":"truth"' in (run / "index.html").read_bytes().replace(b" ", b"")
        assert main(["sheet", str(run), "--variant=full", f"--out={tmp_path / 'sheet.png'}", *more]) == 0
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.width > 5 * 128  # source, edit and truth, two frames of each
    assert main(["evaluate", str(run), f"--manifest={lists}", f"--out={tmp_path / 'again'}", *METRICS]) == 0
    assert read_rows(tmp_path / "again" / "rows.jsonl") == scored
    lists.write_text(lists.read_text(encoding="utf-8").replace("golden", "silver"), encoding="utf-8")
    assert main(["sheet", str(run), "--variant=full", f"--out={tmp_path / 'sheet.png'}"]) == 1
    assert "another than the run was made with" in capsys.readouterr().err


def test_a_manifest_in_a_store_keeps_its_folder_as_root(
    lists: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FATEZERO_HOME", str(tmp_path / "home"))
    root = lists.parents[1] / "root"
    address = f"file://{lists.rename(root / lists.name)}"
    run = tmp_path / "run"
    assert main(["ablate", f"--manifest={address}", f"--out={run}", *ABLATION, *METRICS]) == 0
    assert json.loads((run / "experiment.json").read_text(encoding="utf-8"))["manifest"] == address
    scored = read_rows(run / "evaluation" / "rows.jsonl")
    assert all(row.value is not None for row in scored if row.variant == "full")
    assert main(["evaluate", str(run), f"--manifest={address}", *METRICS]) == 0
    assert main(["report", str(run), f"--manifest={address}"]) == 0
    assert main(["report", str(run)]) == 1  # nothing is fetched on a run's word
    assert "is not fetched, as its record alone names it" in capsys.readouterr().err


def test_a_clip_that_cannot_be_read_stops_no_other(
    lists: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (edit,) = json.loads(lists.read_text(encoding="utf-8"))
    gone = {**edit, "id": "gone", "clip": "clips/gone"}
    lists.write_text(json.dumps([gone, edit]), encoding="utf-8")
    given = [f"--manifest={lists}", f"--root={lists.parents[1] / 'root'}", f"--out={tmp_path / 'run'}"]
    assert main(["ablate", *given, *ABLATION, *METRICS, "--dry-run"]) == 1
    said = capsys.readouterr()
    assert "gone: " in said.err
    assert "no such file or folder" in said.err
    assert "2 edits with picturebook" in said.out


def test_an_ablation_asks_the_model_that_scoring_would(lists: Path, tmp_path: Path) -> None:
    run, metrics = tmp_path / "run", ("--metrics", "vlm_yes_no", "vlm_preservation")
    given = [f"--manifest={lists}", f"--root={lists.parents[1] / 'root'}", f"--out={run}", *ABLATION, *metrics]
    assert main(["ablate", *given]) == 1  # a CLIP gives no grades: told before anything is edited
    assert not run.exists()
    with serving(lambda *_: completion("4")) as server:
        assert main(["ablate", *given, f"--vlm={server.address}", "--vlm-model=tiny"]) == 0
    found = {row.metric: row.value for row in read_rows(run / "evaluation" / "rows.jsonl") if row.variant == "full"}
    assert found == {"vlm_yes_no@1": None, "vlm_preservation@1": 4.0}
