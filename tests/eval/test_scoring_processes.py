"""Work that is shared among processes: none outlives the work, none dies unsaid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from fatezero.errors import UserError
from fatezero_eval.scoring.processes import share

pytestmark = pytest.mark.slow

WAITING = """
import sys
from pathlib import Path
from functools import partial
from fatezero.system.stopping import stopping_on_signals
from fatezero_eval.scoring.processes import share
from tests.eval.test_scoring_processes import waiting
if __name__ == "__main__":
    with stopping_on_signals():
        share([0, 1], partial(waiting, Path(sys.argv[1])), 2, "cpu", quiet=True)
"""


def dying(folder: Path) -> Callable[[int], None]:
    """Does its work; the process that is given number 1 dies as one that the system kills."""

    def work(number: int) -> None:
        (folder / str(number)).touch()
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    return work


def breaking(_: Path) -> Callable[[int], None]:
    """Cannot start."""
    raise UserError("no judge here.")


def waiting(folder: Path) -> Callable[[int], None]:
    """Says that it has begun, then goes on for ever."""

    def work(number: int) -> None:
        (folder / f"{number} {os.getpid()}").touch()
        while True:
            time.sleep(0.1)

    return work


def test_a_process_that_dies_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^Process 1 of the evaluation died \(.*SIGKILL.*what is scored is kept"):
        share([0, 1], partial(dying, tmp_path), 2, "cpu", quiet=True)
    with pytest.raises(UserError, match="no judge here") as refused:
        share([0, 1], partial(breaking, tmp_path), 2, "cpu", quiet=True)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_its_parent(tmp_path: Path, sent: signal.Signals) -> None:
    (tmp_path / "program.py").write_text(WAITING, encoding="utf-8")
    at_work = tmp_path / "at work"
    at_work.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(tmp_path / "program.py"), str(at_work)]
    parent = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while len(list(at_work.iterdir())) < 2:
        assert parent.poll() is None
        time.sleep(0.1)
    workers = [psutil.Process(int(path.name.split()[1])) for path in at_work.iterdir()]
    parent.send_signal(sent)
    code = parent.wait(60)
    assert code == (-sent if sent == signal.SIGKILL else 128 + sent)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
