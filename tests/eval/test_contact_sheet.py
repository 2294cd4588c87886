"""The contact sheet of a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fatezero.clips.video import write_frames
from fatezero.errors import UserError
from fatezero.types import ClipSpec, EditRequest
from fatezero_eval.pages.contact_sheet import write_sheet
from tests.eval.run_records import record_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three edits of a grey clip, each of another brightness."""
    write_frames(tmp_path / "clip", np.full((4, 64, 64, 3), 100, np.uint8))
    for level in (10, 20, 30):
        folder = tmp_path / "run" / "full" / f"edit{level}"
        write_frames(folder / "frames", np.full((4, 64, 64, 3), level, np.uint8))
        clip = ClipSpec(path=str(tmp_path / "clip"))
        request = EditRequest(id=f"edit{level}", clip=clip, source_prompt="a", target_prompt="b")
        (folder / "meta.json").write_text(json.dumps(record_of(request)))
    return tmp_path / "run"


def test_source_and_edit_stand_side_by_side(run: Path, tmp_path: Path) -> None:
    sheet = np.asarray(Image.open(write_sheet(run, None, None, tmp_path / "sheet.png", 2, "full").path))
    assert sheet.shape == (16 + 128, 2 * (4 * 128 + 6) + 12, 3)
    assert [int(sheet[80, column, 0]) for column in (64, 192, 64 + 262, 192 + 262)] == [100, 100, 10, 10]
    assert int(sheet[80, 530 + 64 + 262, 0]) == 20


def test_an_odd_number_leaves_a_place_white(run: Path, tmp_path: Path) -> None:
    sheet = np.asarray(Image.open(write_sheet(run, None, None, tmp_path / "sheet.png", 9, "full").path))
    assert sheet.shape[0] == 2 * 144
    assert (sheet[144:, 530:] == 255).all()


def test_its_name_says_what_kind_of_picture_it_is(run: Path, tmp_path: Path) -> None:
    for name, kind in (("sheet.PNG", "PNG"), ("sheet.jpg", "JPEG")):
        with Image.open(write_sheet(run, None, None, tmp_path / name, 2, "full").path) as sheet:
            assert sheet.format == kind
    with pytest.raises(UserError, match=r"a sheet is a picture, named \*\.png or \*\.jpg"):
        write_sheet(run, None, None, tmp_path / "sheet.gif", 2, "full")


def test_an_unknown_variant_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="of a variant 'fatezero': it has full"):
        write_sheet(run, None, None, tmp_path / "sheet.png", 2, "fatezero")


def test_a_manifest_of_other_edits_hides_none(run: Path, tmp_path: Path) -> None:
    edit = {"id": "edit20", "clip": "clip", "source_prompt": "a", "target_prompt": "b"}
    (tmp_path / "some.json").write_text(json.dumps([edit]), encoding="utf-8")
    made = write_sheet(run, tmp_path / "some.json", None, tmp_path / "sheet.png", 2, "full")
    sheet = np.asarray(Image.open(made.path))
    assert [int(sheet[80, column, 0]) for column in (64 + 262, 530 + 64 + 262)] == [20, 10]


def test_edits_whose_clip_is_gone_say_so(run: Path, tmp_path: Path) -> None:
    (tmp_path / "clip").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="none of the edits of full can be shown") as refused:
        write_sheet(run, None, None, tmp_path / "sheet.png", 2, "full")
    assert str(refused.value).count("is not the one that was edited, or is gone") == 3
