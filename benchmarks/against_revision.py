"""Today's code against an earlier revision of it: the same seeded edits, in turn, by two processes on one machine.

`python -m benchmarks.against_revision v0.1.0`, in the repository's folder, checks that revision out beside this tree,
runs each case alternately in both, and prints processor time, the ratio of the runs of one turn (new over old), and how
far the edited latents are apart. `--cases shipped-qk 256px-4x4-qk` runs some of the cases.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from benchmarks.seeded_case import SeededCase
from fatezero.benchmarking.turns import spread
from fatezero.errors import UserError
from fatezero.system.terminal import complain, quoted, say, shortened

ROOT = Path(__file__).resolve().parents[1]
DEMO_EDIT = SeededCase(model="picturebook", size=128, frames=8, steps=20, backend="qk")
SMALL = SeededCase(model="medium", size=128, frames=8, steps=10, backend="qk", key_frames=("middle",))
OWN_TOO = replace(SMALL, key_frames=("self", "middle"))
SETTINGS = {
    "shipped": DEMO_EDIT,
    # The five of docs/results/speed.md, in which an earlier release was measured beside the original code.
    "128px-8x10": SMALL,
    "128px-16x10": replace(SMALL, frames=16),
    "128px-8x10-own": OWN_TOO,
    "256px-4x4": replace(SMALL, size=256, frames=4, steps=4),
    "256px-2x10": replace(SMALL, size=256, frames=2),
    "motion": replace(OWN_TOO, motion=True),
}
BACKENDS = ("qk", "recompute")
CASES = {
    **{f"{name}-{way}": replace(case, backend=way) for name, case in SETTINGS.items() for way in BACKENDS},
    "128px-8x10-maps": replace(SMALL, backend="maps"),
    "chunks-recompute": replace(OWN_TOO, backend="recompute", chunk=4),
}


@dataclass(frozen=True)
class CaseProcess:
    """A process that holds a case's networks and edits when it is told to.

    Attributes:
        process: what runs `seeded_case.py`.
        out: where it saves the latents.
    """

    process: subprocess.Popen[str]
    out: Path

    def edit(self) -> float:
        """Run the case once; returns seconds of processor time."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.heard())

    def heard(self) -> str:
        """The next line that it says.

        Raises:
            UserError: if it ends instead.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise UserError("a process ended before its edit did; what it said of that stands above.")
        return line

    def latents(self) -> npt.NDArray[np.float32]:
        """F,C,h,w of its last edit."""
        latents: npt.NDArray[np.float32] = np.load(self.out)
        return latents


@contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """The tree of a revision, for as long as the context lasts.

    Raises:
        UserError: if there is no such revision.
    """
    tree = folder / "old"
    git("worktree", "add", "--detach", str(tree), revision)
    try:
        yield tree
    finally:
        git("worktree", "remove", "--force", str(tree))


def git(*words: str) -> None:
    """Run git in this repository. Raises UserError, with git's own words, if it fails."""
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"git {words[0]} {words[1]} failed: {shortened(done.stderr.strip(), 300)}")


@contextmanager
def started(case: SeededCase, tree: Path, out: Path) -> Iterator[CaseProcess]:
    """A process that edits by the code of a tree, its networks loaded and warm.

    Raises:
        UserError: if it cannot start, or takes the code of another tree.
    """
    script = str(Path(__file__).with_name("seeded_case.py"))
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(case.threads)}
    words = [sys.executable, script, json.dumps(asdict(case)), str(out)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            child = CaseProcess(process, out)
            package = Path(child.heard())
            if not package.is_relative_to(tree):
                raise UserError(f"the code of {tree} was to run, and that of {package} does: uninstall it first.")
            yield child
        finally:
            process.kill()


def compare(case: SeededCase, trees: dict[str, Path], folder: Path, repeats: int) -> str:
    """The columns of a table's line: a case in the "old" and the "new" tree, in turn."""
    with ExitStack() as stack:
        children = {
            which: stack.enter_context(started(case, tree, folder / f"{which}.npy")) for which, tree in trees.items()
        }
        seconds: dict[str, list[float]] = {which: [] for which in children}
        for turn in range(repeats):
            for which in sorted(children, reverse=turn % 2 == 0):
                seconds[which].append(children[which].edit())
        old, new = children["old"].latents(), children["new"].latents()
    ratios = [a / b for a, b in zip(seconds["new"], seconds["old"], strict=True)]
    apart = float(np.abs(new - old).max())
    times = f"{median(seconds['old']):8.2f} {median(seconds['new']):8.2f}"
    return f"{times}   {spread(ratios):22s}   {apart:.1e} of {float(np.abs(old).max()):.1f}"


def main(words: Sequence[str] | None = None) -> int:
    """Compare; returns 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="of git; a branch, tag or hash")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="all by default")
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    chosen = parser.parse_args(words)
    try:
        return int(not print_comparison(chosen.revision, chosen.cases, chosen.repeats))
    except UserError as error:
        complain(error)
        return 1


def print_comparison(revision: str, names: Sequence[str], repeats: int) -> bool:
    """Compare cases; one that fails is told and stops no other. Returns whether none failed.

    Raises:
        UserError: if there is no such revision.
    """
    failed = False
    with TemporaryDirectory(prefix="fatezero-against-") as folder, checked_out(revision, Path(folder)) as old:
        say(f"Seconds of processor time from frames to edited frames; old is {quoted(revision)}")
        say(f"{'':22s} {'old':>8s} {'new':>8s}   {'new / old':22s}   latents apart")
        for name in names:
            try:
                say(f"{name:22s} {compare(CASES[name], {'old': old, 'new': ROOT}, Path(folder), repeats)}")
            except UserError as error:
                failed = True
                complain(f"{name}: {error}")
    return not failed


if __name__ == "__main__":
    sys.exit(main())
