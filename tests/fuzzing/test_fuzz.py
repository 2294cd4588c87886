"""A thousand hostile inputs: none may be a stack trace, a hang, a bomb, a lie or a way in."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fuzzing.fuzz_oracles import Ended, violations
from tests.fuzzing.fuzz_targets import FuzzCase

INPUTS = 1000
SOUND = Ended(status=0, hung=False, memory=10**9, out=b"2 of 2\r\x1b[A\n", err=b"", events="")
TRACE = b'Traceback (most recent call last)\n  File "/x/fatezero/cli.py", line 1, in main\nKeyError: 1\n'
WRONG = {
    "stack trace: fatezero/cli.py:main KeyError: 1": {"status": 1, "err": TRACE},
    "hung": {"hung": True, "status": -9},
    "ended by signal 11": {"status": -11},
    "status 134": {"status": 134, "err": b"aborted"},
    "took 3.5 GB": {"memory": 35 * 10**8},
    "failed without a word": {"status": 1, "out": b""},
    "raw control characters: U+001B": {"out": b"\x1b]0;x"},
    "raw control characters: U+202E": {"out": "\u202e".encode()},
    "raw control characters: bytes that are no UTF-8": {"out": b"\xff"},
    "started a program: os.system": {"events": "started a program: os.system"},
    "status 0 without page.html": {"makes": ["page.html"]},
    "status 0, and says 'failed'": {"out": b"1 failed", "never_says": ["failed"]},
    "status 0, but there is no clip": {"must_fail": "there is no clip"},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_none_may_do_is_seen(wrong: str, tmp_path: Path) -> None:
    of_case = {name: value for name, value in WRONG[wrong].items() if name in FuzzCase.__dataclass_fields__}
    of_end = {name: value for name, value in WRONG[wrong].items() if name not in of_case}
    assert violations(FuzzCase(["status"], **of_case), replace(SOUND, **of_end), tmp_path) == [wrong]
    assert not violations(FuzzCase(["status"]), SOUND, tmp_path)


DOINGS = """
import os, pickle, socket, subprocess, sys
from pathlib import Path
from tests.fuzzing.fuzz_oracles import watch
from tests.fuzzing.mutations import Payload
inside = Path(sys.argv[1])
watch(inside, print)
(inside / "own").write_text("may be", encoding="utf-8")
pickle.loads(pickle.dumps({1}))
print("- so far nothing")
subprocess.run(["true"])
os.system("true")
socket.socket().connect_ex(("127.0.0.1", 9))
Path(sys.argv[2]).touch()
pickle.loads(pickle.dumps(Payload(os.getpid)))
"""


@pytest.mark.slow
def test_what_a_process_does_is_seen_from_inside(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    words = [sys.executable, "-c", DOINGS, str(tmp_path / "case"), str(tmp_path / "elsewhere")]
    (tmp_path / "case").mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    root = pytestconfig.rootpath
    said = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout
    before, _, after = said.partition("- so far nothing\n")
    assert not before
    for what in (
        "program: subprocess.Popen",
        "program: os.system",
        "network: socket.connect",
        "wrote outside",
        "unpickled",
    ):
        assert what in after


@pytest.mark.slow
def test_no_input_does_what_none_may(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    words = ["-m", "tests.fuzzing.fuzz_runner", f"--inputs={INPUTS}", "--seed=0", f"--keep={tmp_path / 'kept'}"]
    found = subprocess.run(
        [sys.executable, *words], cwd=pytestconfig.rootpath, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout[-20_000:] + found.stderr[-2000:]
    assert f"{INPUTS} inputs" in found.stdout
