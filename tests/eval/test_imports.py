"""Who may import whom, and what must stay light."""

import ast
import subprocess
import sys
from pathlib import Path

from fatezero_eval import config

SOURCES = sorted(Path(config.__file__).parent.glob("*.py"))


def imported(source):
    """Full names of the modules a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source.name} imports relatively"
            yield node.module


def test_only_the_shared_ground_floor_is_imported():
    allowed = ("fatezero.types", "fatezero.errors", "fatezero.data")
    for source in SOURCES:
        for name in imported(source):
            if name.split(".")[0] == "fatezero":
                assert name.startswith(allowed), f"{source.name} imports {name}"


def test_few_modules_know_lightning():
    knowing = {source.name for source in SOURCES for name in imported(source) if name.startswith("lightning")}
    assert knowing == {"processes.py", "tracking.py"}


def test_configurations_rows_and_averages_need_no_torch():
    light = ("config", "evaluate", "leaderboard", "rows", "statistics")
    modules = ", ".join(f"fatezero_eval.{name}" for name in light)
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
