"""`fatezero datasets check`: every clip's kind, how it would be read, and what is wrong, with nothing edited."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from fatezero.cli import main
from fatezero.clips.index import forget_indices
from fatezero.clips.video import write_video
from fatezero.commands.datasets import check_clips, check_manifest

EDIT = {"id": "one", "clip": "a.mp4", "source_prompt": "a cat", "target_prompt": "a dog"}


def grey(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((count, 48, 64, 3), 90, np.uint8)


def manifest_of(folder: Path, *edits: Mapping[str, Any]) -> Path:
    path = folder / "m.json"
    path.write_text(json.dumps([{**EDIT, **edit} for edit in edits]), encoding="utf-8")
    return path


def test_each_clip_is_told_once_with_its_edits_and_problems(tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4", grey(10), 25)
    (tmp_path / "broken.mp4").write_text("no video", encoding="utf-8")
    write_video(tmp_path / "mask.mp4", grey(10), 25)
    short = {"path": "good.mp4", "frames": 16, "audio": "drop"}
    path = manifest_of(
        tmp_path,
        {"id": "good", "clip": "good.mp4", "truth": {"mask": "mask.mp4", "spec": "free text"}},
        {"id": "short", "clip": short},
        {"id": "gone", "clip": "gone.mp4"},
        {"id": "broken", "clip": "broken.mp4"},
        {"id": "blind", "clip": "good.mp4", "truth": {"mask": "gone.png"}},
    )
    report = check_manifest(path)
    assert list(report.problems) == ["short", "gone", "broken", "blind"]
    summary, good, short_one, gone, broken = str(report).split("\n\n")
    assert summary == "m: 1 of 5 edits are ready."
    lines = good.splitlines()
    assert lines[0] == str(tmp_path / "good.mp4")
    assert lines[1].startswith("  h264 (yuv420p) in mp4: ")
    assert lines[1].endswith(": 10 frames of 64x48, 25 a second, 0.400s, no sound.")
    assert lines[2].startswith("  Decoded by ")
    assert lines[-2] == "  edits: good, blind"
    assert lines[-1].startswith("! blind: its truth cannot be used: ")
    assert lines[-1].endswith("gone.png: no such file or folder; check the path.")
    assert short_one.startswith(f"{tmp_path / 'good.mp4'}, frames 16, audio drop\n  edits: short\n! ")
    assert "which leaves 10 from frame 0" in short_one
    assert "! " in gone
    assert "gone.mp4: no such file" in gone
    assert "not a video" in broken


def test_the_exit_status_says_whether_all_is_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "a.mp4", grey(3), 8)
    assert main(["datasets", "check", str(manifest_of(tmp_path, {}))]) == 0
    assert "m: 1 of 1 edits are ready." in capsys.readouterr().out
    assert main(["datasets", "check", str(manifest_of(tmp_path, {"clip": "b.mp4"}))]) == 1
    assert main(["datasets", "check", str(tmp_path / "a.mp4")]) == 0
    assert "3 frames of 64x48, 8 a second, 0.375s" in capsys.readouterr().out
    assert main(["datasets", "check", str(tmp_path / "b.mp4")]) == 1
    assert capsys.readouterr().err.endswith("b.mp4: no such file or folder; check the path.\n")
    assert main(["datasets", "check", str(tmp_path / "a.mp4"), "--root", str(tmp_path)]) == 1
    assert "leave it out, or name a manifest" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "m.json"]


def test_many_edits_of_one_clip_are_one_block(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", grey(3), 8)
    names = [f"a-rather-long-name-{index}" for index in range(40)]
    report = check_manifest(manifest_of(tmp_path, *({"id": name} for name in names)))
    (block,) = report.blocks
    assert block.count("a.mp4") == 1
    assert max(map(len, block.splitlines())) <= 120
    listed = block.partition("edits: ")[2].replace(",", "").split()
    assert listed == names


def test_a_varying_rate_and_a_long_clip(tmp_path: Path) -> None:
    frames = [Image.fromarray(frame) for frame in grey(3) + np.arange(3, dtype=np.uint8)[:, None, None, None]]
    options: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": [40, 500, 4000]}
    frames[0].save(tmp_path / "a.png", **options)
    assert "3 frames of 64x48, 0.25 to 25 a second, 4.540s, no sound." in check_clips(tmp_path / "a.png").blocks[0]
    write_video(tmp_path / "b.mp4", grey(7), 0.1)
    assert "0.1 a second, 00:01:10.000" in check_clips(tmp_path / "b.mp4").blocks[0]


def test_a_folder_of_videos_is_many_clips_and_one_of_images_is_one(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.webm", "c.gif"):
        write_video(tmp_path / name, grey(2), 8)
    for name in (".hidden.mp4", "notes.txt", "d.MKV"):
        (tmp_path / name).write_text("no video", encoding="utf-8")
    report = check_clips(tmp_path)
    assert report.summary == f"{tmp_path}: 3 of 4 clips are ready."
    assert [Path(block.splitlines()[0]).name for block in report.blocks] == ["a.webm", "b.mp4", "c.gif", "d.MKV"]
    assert list(report.problems) == [str(tmp_path / "d.MKV")]
    assert report.notes == ["Left out, since they are no video files: notes.txt."]
    images = tmp_path / "images"
    images.mkdir()
    for index in range(2):
        Image.new("RGB", (8, 6)).save(images / f"{index}.png")
    (one,) = check_clips(images).blocks
    assert "folder of 2 PNG images: 2 frames of 8x6, 8 a second" in one


def test_a_folder_of_folders_of_frames_is_many_clips(tmp_path: Path) -> None:
    for name in ("swan", "bear"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 6)).save(tmp_path / name / "0.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("swan", encoding="utf-8")
    report = check_clips(tmp_path)
    assert [Path(block.splitlines()[0]).name for block in report.blocks] == ["bear", "empty", "swan"]
    assert list(report.problems) == [str(tmp_path / "empty")]
    assert report.notes == ["Left out, since they are no folders: list.txt."]


def test_a_shared_clip_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", grey(3), 8)
    opened: list[str] = []
    own = av.open
    monkeypatch.setattr(av, "open", lambda path, *rest, **options: opened.append(path) or own(path, *rest, **options))
    check_manifest(manifest_of(tmp_path, {}))
    once = len(opened)
    forget_indices()
    check_manifest(manifest_of(tmp_path, *({"id": f"e{index}"} for index in range(5))))
    assert 0 < len(opened) == 2 * once
