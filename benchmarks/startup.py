"""What each command costs before it does anything: CPU seconds, modules, and whether torch is among them.

Every command runs in processes of its own (`--repeats` times, the median counts), on a small run that is made first in
a folder that goes away again. CPU seconds are user and system time of the command and its children, so other work on
the machine hardly changes them; the last two rows end when the first step of the inversion is shown.

    python benchmarks/startup.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from fatezero.system.terminal import say

CODE = "import sys; from fatezero.cli import main; sys.exit(main())"
COUNTED = (
    "import atexit, sys; from fatezero.cli import main;"
    "atexit.register(lambda: print('modules', len(sys.modules), 'torch' in sys.modules, file=sys.stderr));"
    "sys.exit(main())"
)
EDIT = ("edit", "--frames", "2", "--steps", "2", "--out", "run", "--cache", "cache")
STEPS = ("edit", "--frames", "8", "--steps", "50", "--redo", "--out", "first")
COMMANDS: dict[str, tuple[str, ...]] = {
    "--help": ("--help",),
    "edit --help": ("edit", "--help"),
    "status": ("status", "run"),
    "leaderboard": ("leaderboard", "run"),
    "cache": ("cache", "ls", "cache"),
    "edit, nothing to do": EDIT,
    "evaluate, all rows kept": ("evaluate", "run"),
    "report": ("report", "run"),
    "sheet": ("sheet", "run", "--out", "sheet.png"),
    "doctor": ("doctor",),
    "edit --dry-run": ("edit", "--frames", "2", "--steps", "2", "--out", "dry", "--dry-run"),
}
FIRST_STEP = {"edit, to its first step": STEPS, "edit --devices 2, to its first step": (*STEPS, "--devices", "2")}


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        cpu: user and system seconds, children included.
        wall: seconds that passed.
    """

    cpu: float
    wall: float


def whole(words: tuple[str, ...], folder: Path) -> Cost:
    """Run a command to its end."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, "-c", CODE, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        raise SystemExit(f"fatezero {' '.join(words)} failed: {ended.stderr or ended.stdout}")
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - begun)


def to_first_step(words: tuple[str, ...], folder: Path) -> Cost:
    """Run an edit until its bar shows a step, and end it."""
    begun = time.monotonic()
    command = [sys.executable, "-c", CODE, *words]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        seen = b""
        while not re.search(rb" [1-9]\d*/50 ", seen):
            more = os.read(running.stderr.fileno(), 4096)
            if not more:
                raise SystemExit(f"fatezero {' '.join(words)} failed: {seen.decode(errors='replace')}")
            seen += more
        taken = time.monotonic() - begun
        first = psutil.Process(running.pid)
        times = [process.cpu_times() for process in (first, *first.children(recursive=True))]
        running.terminate()
    return Cost(sum(one.user + one.system for one in times), taken)


def modules_of(words: tuple[str, ...], folder: Path) -> tuple[str, str]:
    """How many modules a command imports, and whether torch is among them."""
    ended = subprocess.run(
        [sys.executable, "-c", COUNTED, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    _, count, torch = ended.stderr.strip().splitlines()[-1].split()
    return count, "yes" if torch == "True" else "no"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for words in (EDIT, COMMANDS["evaluate, all rows kept"]):
            whole(words, folder)
        say(f"{'fatezero':36} {'CPU s':>6} {'wall s':>7} {'modules':>8}  torch")
        for title, words in (COMMANDS | FIRST_STEP).items():
            measure = to_first_step if title in FIRST_STEP else whole
            costs = [measure(words, folder) for _ in range(repeats)]
            count, torch = ("", "yes") if title in FIRST_STEP else modules_of(words, folder)
            cpu, wall = median(cost.cpu for cost in costs), median(cost.wall for cost in costs)
            say(f"{title:36} {cpu:6.2f} {wall:7.2f} {count:>8}  {torch}")


if __name__ == "__main__":
    main()
