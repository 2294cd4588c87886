"""The notebooks run from their first cell to the last, and show what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed: pip install '.[dev]'")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install '.[dev]'")

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"
LARGEST = 20_000  # bytes of a notebook: its outputs are made where it is run


def test_notebooks_are_kept_without_outputs() -> None:
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    assert [path.stem for path in paths] == ["ablation_and_leaderboard", "edit_your_clip"]
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert not [cell for cell in code if cell.outputs or cell.execution_count]
        assert path.stat().st_size < LARGEST


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The code cells of a notebook, run in a folder of their own on one thread."""
    for variable, value in {"OMP_NUM_THREADS": "1", "JUPYTER_PLATFORM_DIRS": "1"}.items():
        monkeypatch.setenv(variable, value)
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any, kind: str) -> list[str]:
    """What a cell shows in one kind."""
    outputs = [output for output in cell.outputs if output.output_type in {"execute_result", "display_data"}]
    return [output.data[kind] for output in outputs if kind in output.data]


@pytest.mark.slow
def test_editing_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = run("edit_your_clip.ipynb", tmp_path, monkeypatch)
    videos = [page for cell in cells for page in shown(cell, "text/html") if "<video" in page]
    assert len(videos) == 3
    assert "<q>a jeep on the road</q> → <q>a bus on the road</q>" in videos[0]
    assert videos[0] != videos[1]
    assert max(map(len, videos)) < 300_000
    assert [picture for cell in cells for picture in shown(cell, "image/png")]
    assert (tmp_path / "edited" / "bus.mp4").is_file()
    assert len(list((tmp_path / "edited" / "bus" / "frames").glob("*.png"))) == 8


@pytest.mark.slow
def test_running_an_ablation_and_reading_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = run("ablation_and_leaderboard.ipynb", tmp_path, monkeypatch)
    tables = [table for cell in cells for table in shown(cell, "text/html")]
    assert all(name in tables[0] for name in ("full", "no_fusion", "no edit", "psnr/truth@1"))
    assert "ablation/index.html" in tables[-1]
    assert (tmp_path / "ablation" / "index.html").is_file()
