"""What must stay light, and short. Who may import whom is kept by `tests/test_architecture.py`."""

import subprocess
import sys
from pathlib import Path

import fatezero_eval


def test_no_module_is_longer_than_300_lines():
    sources = Path(fatezero_eval.__file__).parent.rglob("*.py")
    assert not [path.name for path in sources if len(path.read_text().splitlines()) > 300]


def test_options_jobs_rows_and_averages_need_no_torch():
    light = ("options", "scoring.scoring_jobs", "scoring.rows", "tables.leaderboard_files", "tables.statistics")
    modules = ", ".join(f"fatezero_eval.{name}" for name in light)
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
