"""Who may import whom, kept by reading the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND_FLOOR = {"errors", "types", "config", "options"}
# Each room and the rooms of `fatezero` that it may import.
MAY_IMPORT = {
    "data": GROUND_FLOOR,
    "settings": GROUND_FLOOR,
    "attention": GROUND_FLOOR,
    "blending": GROUND_FLOOR,
    "diffusion": GROUND_FLOOR | {"attention", "picturebook"},  # of picturebook, the folder of its weights
    "editing": GROUND_FLOOR | {"attention", "blending", "diffusion"},
    "planning": GROUND_FLOOR | {"attention", "diffusion"},
    "cache": GROUND_FLOOR | {"data"},
    "pipeline": GROUND_FLOOR | {"blending", "cache", "diffusion", "editing", "planning", "settings"},
    "pieces": GROUND_FLOOR | {"attention", "data", "pipeline"},
    "tasks": GROUND_FLOOR | {"data", "diffusion", "pieces", "pipeline", "settings"},
    "experiment": GROUND_FLOOR | {"data", "settings"},
    "runs": GROUND_FLOOR | {"data", "tasks"},
    "output": GROUND_FLOOR | {"data", "pipeline", "tasks"},
    "forecast": GROUND_FLOOR | {"data", "diffusion", "editing", "pipeline", "planning", "tasks"},
    "lightning": GROUND_FLOOR
    | {"attention", "cache", "data", "diffusion", "pieces", "pipeline", "output", "runs", "tasks"},
}
KNOW_LIGHTNING = (
    "fatezero/lightning/",
    "fatezero/picturebook/",
    "eval/fatezero_eval/",
)


def imports_of(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(room: str) -> list[Path]:
    folder = ROOT / "fatezero" / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_point_one_way(room: str) -> None:
    files = files_of(room)
    assert files
    for path in files:
        rooms = {name.split(".")[1] for name in imports_of(path) if name.startswith("fatezero.")}
        assert rooms <= MAY_IMPORT[room] | {room}, path


def test_only_the_shell_and_the_trainings_know_lightning() -> None:
    for path in [*ROOT.glob("fatezero/**/*.py"), *ROOT.glob("eval/**/*.py")]:
        place = path.relative_to(ROOT).as_posix()
        knows = any(name.split(".")[0] in {"lightning", "pytorch_lightning"} for name in imports_of(path))
        assert not knows or place.startswith(KNOW_LIGHTNING), place


def test_the_metrics_need_no_editor() -> None:
    allowed = {"data", "types", "errors"}
    for path in (ROOT / "eval").rglob("*.py"):
        rooms = {name.split(".")[1] for name in imports_of(path) if name.startswith("fatezero.")}
        assert rooms <= allowed, path


def test_data_folders_hold_no_python() -> None:
    assert not [*ROOT.glob("datasets/**/*.py"), *ROOT.glob("experiments/**/*.py")]


def test_the_doorway_is_light() -> None:
    """Help must not wait for torch."""
    script = (
        "import fatezero.cli, fatezero.data.video, sys;"
        "print(sorted({'torch', 'diffusers', 'lightning'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
