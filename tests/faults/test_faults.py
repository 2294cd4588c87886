"""Several processes, bad places and closed pipes: within seconds, in true words, with the right exit status."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import contents, hidden
from tests.faults.warm_process import Blow, WarmProcess

pytestmark = pytest.mark.slow
Editing = Callable[..., list[str]]

SECONDS = 30  # a process that waits for another would take far longer, on any machine


def start(words: list[str], prefix: Sequence[str] = (), **more: object) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, "-c", INTERRUPTIBLE, *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, **more)  # type: ignore[call-overload]


# A shell's background jobs ignore interrupts, and so would what the tests start there.
INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "import runpy; runpy.run_module('fatezero', run_name='__main__')"
)


def wait_for_a_result(run: Path) -> None:
    while not list(run.glob("*/*/meta.json")):
        time.sleep(0.05)


def ranks(process: subprocess.Popen[str]) -> list[psutil.Process]:
    servers = [child for child in psutil.Process(process.pid).children() if "forkserver" in " ".join(child.cmdline())]
    return [rank for server in servers for rank in server.children()]


@pytest.mark.parametrize(
    ("whom", "signum", "status"),
    [
        ("main", signal.SIGTERM, 128 + signal.SIGTERM),
        ("main", signal.SIGINT, 128 + signal.SIGINT),
        ("main", signal.SIGKILL, -signal.SIGKILL),
        ("rank", signal.SIGTERM, 1),
        ("rank", signal.SIGINT, 1),
    ],
)
def test_signals_end_all_processes(whom: str, signum: int, status: int, editing: Editing, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(editing(run, "--devices=2", steps=40), stdout=subprocess.DEVNULL)
    wait_for_a_result(run)
    started = ranks(process)
    assert len(started) == 2
    (started[-1] if whom == "rank" else process).send_signal(signum)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == status, said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(started, timeout=SECONDS)
    assert not alive
    if signum != signal.SIGKILL:
        assert ("died" if whom == "rank" else "interrupted") in said
        assert not hidden(run)
    made = len(list(run.glob("*/*/meta.json")))
    assert 0 < made < 4


@pytest.mark.parametrize("devices", [1, 2])
def test_a_closed_pipe_is_no_success(devices: int, editing: Editing, tmp_path: Path) -> None:
    process = start(editing(tmp_path / "run", f"--devices={devices}", steps=40), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert "to do from 2 inversions" in process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    assert process.wait(SECONDS) == (128 + signal.SIGPIPE if devices == 1 else 1), said
    assert "Traceback" not in said
    assert not list((tmp_path / "run").glob("*/*/meta.json"))


def test_two_redos_at_once_and_readers_beside_them(
    warm: WarmProcess, editing: Editing, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert warm.run(*editing(run, steps=2)).status == 0
    both = [warm.start(*editing(run, "--redo")) for _ in range(2)]
    for reader in (["status", run], ["report", run], ["evaluate", run, "--metrics", "warp_error*"]):
        assert "Traceback" not in warm.run(*reader).said
    assert [warm.wait(pid).status for pid in both] == [0, 0]
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    (run / "index.html").unlink(missing_ok=True)
    assert contents(run) == contents(undisturbed)
    assert not hidden(run)


def test_two_manifests_started_at_once_lose_no_plan(
    warm: WarmProcess, editing: Editing, small_manifest: Path, tmp_path: Path
) -> None:
    lines = small_manifest.read_text(encoding="utf-8").splitlines()
    parts = [small_manifest.with_name(f"part{number}.jsonl") for number in range(4)]
    for part, line in zip(parts, lines, strict=True):
        part.write_text(line, encoding="utf-8")
    for time_ in range(3):
        run = tmp_path / str(time_)
        started = [warm.start(*editing(run, manifest=part, steps=1)) for part in parts]
        assert [warm.wait(pid).status for pid in started] == [0] * 4
        assert "fatezero: 4 done" in warm.run("status", run).said


@pytest.mark.parametrize("devices", [1, 2])
def test_a_folder_that_becomes_read_only_is_told(
    devices: int, warm: WarmProcess, editing: Editing, tmp_path: Path
) -> None:
    everyone = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    prefix = [] if os.geteuid() else everyone  # the system's owner may write anywhere
    if prefix and (not shutil.which("setpriv") or subprocess.run([*prefix, "true"], check=False).returncode):
        pytest.skip("this user can write to any folder")
    run = tmp_path / "run"
    words = editing(run, f"--devices={devices}", steps=20)
    process = start(words, prefix=prefix, stdout=subprocess.DEVNULL)
    wait_for_a_result(run)
    folders = [run, run / "fatezero"]
    for folder in folders:
        folder.chmod(0o555)
    _, said = process.communicate(timeout=120)
    for folder in folders:
        folder.chmod(0o755)
    assert process.returncode == 1, said
    assert "cannot be written" in said
    assert "Traceback" not in said
    assert warm.run(*editing(run, steps=20)).status == 0
    assert not hidden(run)


def test_a_variant_folder_that_became_a_file_is_told(warm: WarmProcess, editing: Editing, tmp_path: Path) -> None:
    variant = tmp_path / "run" / "fatezero"
    swap = f"rm -r {variant}; touch {variant}"
    ended = warm.run(*editing(tmp_path / "run"), blow=Blow("fatezero.viewing.result_files:write_frames", 3, 0, swap))
    assert ended.status == 1, ended.said
    assert "Traceback" not in ended.said


def test_equal_process_numbers_mix_nothing(
    warm: WarmProcess, editing: Editing, undisturbed: Path, tmp_path: Path
) -> None:
    """A container's main process always has number 1."""
    inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("process namespaces are not allowed here")
    run = tmp_path / "run"
    one = [*inside, sys.executable, "-m", "fatezero", *editing(run, steps=40)]
    process = subprocess.Popen(one, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_a_result(run)
    process.kill()  # and with it all that is in its namespace
    process.wait()
    both = [
        subprocess.Popen(
            [*inside, sys.executable, "-m", "fatezero", *editing(run, "--redo")], stdout=subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert contents(run) == contents(undisturbed)
    assert not hidden(run)
