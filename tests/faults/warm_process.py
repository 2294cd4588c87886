"""Commands in children of one process that has imported everything: real processes that start in no time.

What is to happen to a child is decided beforehand: at the n-th call of a function it gets a signal, or a shell command
is run.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Blow:
    """What happens to a process.

    Attributes:
        at: "module:name" or "module:Class.name" of the function, where it is looked up.
        call: at which call of it, counted from 1.
        signum: the signal that the process gets; 0 runs the command instead.
        command: for the shell.
    """

    at: str
    call: int = 1
    signum: int = 9
    command: str = ""


@dataclass(frozen=True)
class EndedChild:
    """How a child ended.

    Attributes:
        status: exit status; the negative number of the signal that killed it.
        said: what it wrote to the terminal.
    """

    status: int
    said: str


class WarmProcess:
    """Starts children and waits for them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.warm_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
        )
        self._started = 0

    def start(self, *words: object, blow: Blow | None = None) -> int:
        """Start `fatezero <words>`; returns the child's process number."""
        self._started += 1
        output = str(self._folder / f"{self._started}.txt")
        asked = {"words": [str(word) for word in words], "output": output, "blow": asdict(blow) if blow else None}
        return int(self._ask(asked)["pid"])

    def wait(self, pid: int) -> EndedChild:
        """Wait until a child has ended."""
        answer = self._ask({"wait": pid})
        return EndedChild(answer["status"], Path(answer["output"]).read_text(encoding="utf-8", errors="replace"))

    def run(self, *words: object, blow: Blow | None = None) -> EndedChild:
        """Start a command and wait until it has ended."""
        return self.wait(self.start(*words, blow=blow))

    def close(self) -> None:
        """End."""
        self._process.communicate(timeout=60)

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def strike(blow: Blow) -> None:
    """Arrange for a blow in this process."""
    module, _, path = blow.at.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    function = getattr(owner, name)
    calls = 0

    @wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == blow.call:
            if blow.signum:
                os.kill(os.getpid(), blow.signum)
            else:
                subprocess.run(blow.command, shell=True, check=True)
        return function(*args, **kwargs)

    setattr(owner, name, counted)


def warm_up() -> None:
    """Have imported what commands import."""
    import torch  # noqa: PLC0415

    from fatezero.config import RuntimeConfig  # noqa: PLC0415
    from fatezero.diffusion.model_families.unet import UNetBackbone  # noqa: PLC0415

    for module in ("commands.shared", "commands.ablate", "commands.tune", "training.tuning", "lightning.running"):
        importlib.import_module(f"fatezero.{module}")
    for module in ("scoring.evaluation", "pages.run_page", "tables.leaderboard_files"):
        importlib.import_module(f"fatezero_eval.{module}")
    for module in ("decord", "pandas", "pyarrow.parquet", "matplotlib.pyplot", "fsspec.implementations.local"):
        importlib.import_module(module)
    torch.set_num_threads(1)
    UNetBackbone.load(str(Path(__file__).parents[1] / "golden" / "model"), RuntimeConfig(device="cpu"))
    gc.collect()
    gc.freeze()  # else every child walks through, and so copies, all that was imported


def main() -> None:
    """Serve questions until there are no more."""
    warm_up()
    outputs: dict[int, str] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            answer = {"status": os.waitstatus_to_exitcode(status), "output": outputs.pop(asked["wait"])}
        else:
            pid = os.fork()
            if not pid:
                _be_child(asked)
            outputs[pid] = asked["output"]
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)


def _be_child(asked: dict[str, Any]) -> None:
    from fatezero.cli import main as command_line  # noqa: PLC0415

    output = os.open(asked["output"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if asked["blow"]:
        strike(Blow(**asked["blow"]))
    try:
        status = command_line(asked["words"])
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter ends, without taking everything apart
    atexit._run_exitfuncs()
    gc.collect()  # what a signal left half entered is closed, as its end would
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
