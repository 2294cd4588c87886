"""How an edit looks: its words, its page in a notebook, its files, its bars."""

from __future__ import annotations

import base64
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from fatezero.clips.video import read_clip
from fatezero.config import MethodConfig
from fatezero.errors import UserError
from fatezero.results import EditResult, Inversion, Target, as_clip
from fatezero.system.progress import StepBar, chosen_progress, no_progress
from fatezero.types import Clip, ClipSpec, Frames
from fatezero.viewing import notebook

HOSTILE = "<script>hacked()</script> & \"a 'bus'\u202e\x1b[31m"
COLOURS = {"source": (200, 40, 40), "edit": (40, 60, 200), "mask": (255, 255, 255)}


def flat(colour: tuple[int, ...], count: int = 4, height: int = 48, width: int = 64) -> Frames:
    return np.full((count, height, width, 3), colour, np.uint8)


def result(source: Clip | None = None, *, prompt: str = "a bus", masked: bool = True, **size: int) -> EditResult:
    frames = flat(COLOURS["edit"], **size)
    return EditResult(
        frames=frames,
        source=source or Clip(flat(COLOURS["source"], **size), 8.0, path="clips/jeep.mp4"),
        source_prompt="a jeep",
        target=Target(prompt=prompt, edited_words=("jeep",), method=MethodConfig()),
        latents=torch.zeros(len(frames), 4, 2, 2),
        masks=np.ones(frames.shape[:3], np.float32) if masked else None,
        attention={"jeep": np.ones((len(frames), 4, 4), np.float32)} if masked else {},
        choice=None,
        bytes_kept={},
        seconds={},
        peak_memory_bytes=0,
    )


class Fragment(HTMLParser):
    """Tags with their attributes, and the text, as a browser takes them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def video(self, path: Path) -> Clip:
        (source,) = (attributes["src"] or "" for tag, attributes in self.tags if tag == "video")
        path.write_bytes(base64.b64decode(source.removeprefix("data:video/mp4;base64,"), validate=True))
        return read_clip(ClipSpec(path=str(path)))


def test_words_name_clip_prompts_and_frames_and_no_array() -> None:
    assert repr(result()) == (
        "<EditResult of 'clips/jeep.mp4', 4 frames of 64 x 48, 8 a second: 'a jeep' -> 'a bus', edited words 'jeep'>"
    )
    assert repr(Clip(flat((0, 0, 0)), 12.5)) == "<Clip 4 frames of 64 x 48, 12.5 a second>"
    assert "\x1b" not in repr(result(prompt=HOSTILE))
    inversion = Inversion(
        source=Clip(flat((0, 0, 0)), 8.0),
        prompt="a jeep",
        basis=(),
        mask_layers=None,
        clean=torch.zeros(4, 4, 2, 2),
        trajectory=None,
        choice=None,
        chunk=None,
        middle=None,
        seconds={},
    )
    assert repr(inversion) == "<Inversion of 4 frames of 64 x 48, 8 a second: 'a jeep'>"


@pytest.mark.parametrize("masked", [True, False])
def test_a_notebook_shows_source_edit_and_mask_side_by_side(tmp_path: Path, *, masked: bool) -> None:
    times = (0.0, 0.1, 0.4, 0.5, 1.0)
    page = Fragment(result(Clip(flat(COLOURS["source"]), times), masked=masked)._repr_html_())
    shown = page.video(tmp_path / "shown.mp4")
    assert shown.timing == pytest.approx(times, abs=1e-3)
    names = ["source", "edit", *(["mask"] if masked else [])]
    assert shown.frames.shape[2] == 64 * len(names) + 4 * (len(names) - 1)
    for place, name in enumerate(names):
        middle = shown.frames[:, -24, place * 68 + 32].astype(int)
        assert np.abs(middle - COLOURS[name]).max() < 12, name  # what H.264 loses of a flat colour
    assert "4 frames of 64 x 48" in page.words
    assert dict(page.tags)["video"]["width"] == str(shown.frames.shape[2] * 5)  # small clips are enlarged


def test_texts_in_a_notebook_stay_texts() -> None:
    page = Fragment(result(prompt=HOSTILE)._repr_html_())
    assert {tag for tag, _ in page.tags} == {"figure", "figcaption", "q", "video", "br", "small"}
    assert "<script>hacked()</script> & \"a 'bus'\\u202e\\x1b[31m" in page.words


def test_a_long_clip_is_cut_in_a_notebook_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "PIXELS", 64 * 48 * 3 * 5 + 1)
    page = Fragment(result(count=12)._repr_html_())
    assert "12 frames of 64 x 48, of which the first 5 are shown" in page.words
    assert len(page.video(tmp_path / "shown.mp4").frames) == 5
    assert "first" not in Fragment(result(count=5)._repr_html_()).words


@pytest.mark.slow
def test_a_notebook_stays_small_whatever_the_clip() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 64, 48, 3), np.uint8)
    text = notebook.edit_html(Clip(noise, 24.0), noise, ("a", "b"), None)
    most = 400 * 64 * 100  # pixels
    assert len(text) < most * 3  # noise, which nothing compresses, is less than a byte a pixel and channel
    assert notebook._bounds(np.broadcast_to(np.uint8(0), (10**6, 2160, 3840, 3)), 3) == (256, 48)


def test_saving_to_a_file_writes_the_edit_in_the_clips_times(tmp_path: Path) -> None:
    times = (0.0, 0.1, 0.4, 0.5, 1.0)
    brighter = np.concatenate([flat((40 * step,) * 3, count=1) for step in range(4)])
    made = replace(result(Clip(flat(COLOURS["source"]), times)), frames=brighter)
    for suffix in ("mp4", "webm", "gif", "webp"):
        path = tmp_path / "new" / f"bus.{suffix}"
        assert made.save(path) == ()
        clip = read_clip(ClipSpec(path=str(path)))
        assert clip.timing == pytest.approx(times, abs=5e-3)
        assert np.abs(clip.frames.astype(int) - brighter).max() < 12


def test_saving_to_a_folder_writes_what_a_run_does_and_replaces_it_alone(tmp_path: Path) -> None:
    folder = tmp_path / "bus"
    for _ in range(2):
        result().save(folder)
        names = {path.name for path in folder.iterdir()}
        videos = {"edited.mp4", "side_by_side.mp4", "masks.mp4"}
        assert names == {"frames", "masks", "attention_0_jeep.png", *videos}
    np.testing.assert_array_equal(read_clip(ClipSpec(path=str(folder / "frames"))).frames, result().frames)
    result(masked=False).save(folder)
    assert {path.name for path in folder.iterdir()} == {"frames", "edited.mp4", "side_by_side.mp4"}
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"notes\.txt is no part of an edit"):
        result().save(folder)
    assert (folder / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert not list(tmp_path.rglob("*.partial*"))


def test_frames_of_the_users_own_are_not_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "project" / "frames" / "00000.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(UserError, match="frames is no part of an edit and would be lost"):
        result().save(tmp_path / "project")
    assert mine.read_bytes() == b"mine"


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"bus\.avi: choose a file \.mp4, .*or a folder"):
        result().save(tmp_path / "bus.avi")


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (np.zeros((2, 8, 8, 3)), "float64"),
        (np.zeros((8, 8, 3), np.uint8), re.escape("(8, 8, 3)")),
        (np.zeros((0, 8, 8, 3), np.uint8), "at least one"),
        ("jeep.mp4", "a str: give uint8 F,H,W,3, or the clip that FateZero.read reads"),
        (Clip(np.zeros((2, 8, 8, 4), np.uint8), 8.0), "uint8"),
    ],
)
def test_what_is_no_clip_is_refused(frames: Frames, said: str) -> None:
    with pytest.raises(UserError, match=said):
        as_clip(frames)


def test_frames_without_times_have_the_stated_rate() -> None:
    assert as_clip(flat((0, 0, 0))).fps == 8
    clip = Clip(flat((0, 0, 0)), 25.0)
    assert as_clip(clip) is clip


def test_bars_are_shown_where_a_person_sees_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chosen_progress(True) is no_progress  # a test's streams are no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert chosen_progress(False) is no_progress
    seen: list[tuple[str, int, int]] = []
    chosen_progress(lambda *step: seen.append(step))("editing", 1, 2)
    assert seen == [("editing", 1, 2)]
    bars = chosen_progress(True)
    assert isinstance(bars, StepBar)
    for stage in ("inversion", "editing"):
        for step in range(3):
            bars(stage, step + 1, 3)
    said = capsys.readouterr().err
    assert "inversion:   0%" in said
    assert "editing:   0%" in said
