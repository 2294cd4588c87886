"""What a command imports before it knows whether there is work, and how large imports are made."""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fatezero.cli import main
from fatezero.lightning.cluster import cluster_rank, is_first_process
from fatezero.system.importing import importing

HEAVY = {
    *("torch", "diffusers", "transformers", "lightning", "torchmetrics", "torchvision", "open_clip"),
    *("wandb", "scipy", "matplotlib", "skimage", "cv2", "decord"),
}
READING = {"cv2", "decord"}  # what clips are read with
SCORING = {*READING, "torch"}  # what formulas are written with
CHILD = (
    "import json, sys; from fatezero.cli import main; status = main(sys.argv[1:]);"
    "print(); print(json.dumps([status, sorted({name.partition('.')[0] for name in sys.modules})]))"
)


@pytest.fixture(scope="module")
def edited(golden_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words of an edit that is there, its inversion kept beside it."""
    folder = tmp_path_factory.mktemp("edited")
    options = {"model": golden_folder / "model", "frames": 1, "height": 64, "width": 64, "steps": 1, "device": "cpu"}
    options |= {"out": folder / "run", "cache": folder / "cache"}
    words = ["edit", *(f"--{name}={value}" for name, value in options.items())]
    assert main(words) == 0
    return words


@pytest.fixture(scope="module")
def scored(edited: list[str]) -> str:
    """The run of that edit, with all its rows kept."""
    run = edited[-2].partition("=")[2]
    assert main(["evaluate", run]) == 0
    return run


def imported_by(words: list[str]) -> set[str]:
    """The packages that a command imports in a process of its own, in which it succeeds."""
    ended = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=True)
    status, packages = json.loads(ended.stdout.splitlines()[-1])
    assert status == 0, ended.stderr
    return set(packages)


@pytest.mark.parametrize("verb", ["edit", "status", "cache"])
def test_what_computes_nothing_imports_nothing_large(verb: str, edited: list[str]) -> None:
    run, cache = (word.partition("=")[2] for word in edited[-2:])
    words = {"edit": edited, "status": ["status", run], "cache": ["cache", "ls", cache]}[verb]
    assert not imported_by(words) & HEAVY


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["evaluate", "leaderboard", "report"])
def test_what_reads_scores_imports_no_networks(verb: str, scored: str) -> None:
    assert not imported_by([verb, scored]) & (HEAVY - SCORING)


def test_a_sheet_is_drawn_without_torch(scored: str, tmp_path: Path) -> None:
    assert not imported_by(["sheet", scored, "--out", str(tmp_path / "sheet.png")]) & (HEAVY - READING)


@pytest.mark.slow
def test_the_doctor_names_metrics_without_their_networks() -> None:
    assert not imported_by(["doctor"]) & (HEAVY - SCORING)


@pytest.mark.parametrize("verb", ["edit", "leaderboard", "evaluate", "doctor", "bench", "ablate", "train"])
def test_help_imports_nothing_large(verb: str) -> None:
    script = (
        "import sys; from contextlib import suppress; from fatezero.cli import main\n"
        "with suppress(SystemExit): main(sys.argv[1:])\n"
        "print(); print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    ended = subprocess.run([sys.executable, "-c", script, verb, "--help"], capture_output=True, text=True, check=True)
    assert "usage:" in ended.stdout
    said = ended.stdout.splitlines()[-1]
    assert not [name for name in HEAVY if f"'{name}'" in said]


def test_the_collector_rests_while_libraries_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_without_collecting.py").write_text("cycle = []\ncycle.append(cycle)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    frozen = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen  # nothing was imported, so all may still be collected
    with importing(), importing():
        importlib.import_module("imported_without_collecting")
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen
    gc.unfreeze()


def test_a_process_of_a_cluster_knows_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM", "TORCHELASTIC"))]:
        monkeypatch.delenv(name)
    assert cluster_rank() is None
    assert is_first_process()
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "edits")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert cluster_rank() == 1
    assert not is_first_process()
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")  # Lightning's sign of a shell within an allocation
    assert is_first_process()
