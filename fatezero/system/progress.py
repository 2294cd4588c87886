"""How far long work is: a bar where one person watches one process in a terminal, lines elsewhere."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from fatezero.system.terminal import heard, printable, say

EVERY = 30.0  # seconds between two lines about the same stage
Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all


def no_progress(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


def steps_shown(name: str, unit: str = "step", *, alone: bool = True) -> Progress:
    """What shows the steps of some work: a bar on standard error, or lines among what else is said.

    Args:
        name: of the work.
        unit: what a step is.
        alone: whether no other process writes to the same terminal: bars of two would overwrite each other.
    """
    return StepBar(name, unit) if alone and sys.stderr.isatty() else StepLines(name, unit)


def chosen_progress(asked: Progress | bool, name: str = "", unit: str = "step") -> Progress:
    """What Python calls after every step: bars, where they are wanted and seen; nothing; or what the caller gave."""
    if callable(asked):
        return asked
    return StepBar(name, unit) if asked and (sys.stderr.isatty() or in_notebook()) else no_progress


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel, whose streams say that they are no terminal."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


class StepBar:
    """A bar for each stage of some work."""

    def __init__(self, name: str, unit: str) -> None:
        self._name, self._unit, self._stage = name, unit, ""
        self._bar: tqdm | None = None  # type: ignore[type-arg]

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is.

        Raises:
            Stopped: nobody reads it any more.
        """
        with heard(sys.stderr):
            if self._bar is None or stage != self._stage:
                if self._bar is not None:
                    self._bar.close()
                columns = shutil.get_terminal_size().columns  # 80 where the terminal does not say it
                described = printable(f"{self._name} {stage}".strip())
                before = max(0, done - 1)  # by earlier work that this goes on from: they say nothing of its speed
                self._bar = tqdm(total=total, desc=described, unit=self._unit, ncols=columns, initial=before)
                self._stage = stage
            self._bar.update(done - self._bar.n)
            if done == total:
                self._bar.close()
                self._stage = ""


class StepLines:
    """A line when a stage begins, and one each half minute."""

    def __init__(self, name: str, unit: str) -> None:
        self._name, self._unit, self._stage = name, unit, ""
        self._told = -math.inf

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Say how far a stage is, where it is time to.

        Raises:
            Stopped: nobody reads it any more.
        """
        now = time.monotonic()
        if stage == self._stage and now - self._told < EVERY:
            return
        self._stage, self._told = stage, now
        say(f"{f'{self._name} {stage}'.strip()}: {self._unit} {done} of {total}")
