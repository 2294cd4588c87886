"""What the operating system does for a run: leftovers are told from work, text cannot steer, signals stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from fatezero.errors import UnforeseenError, UserError, attempt
from fatezero.source_attention.stores import DiskStore
from fatezero.system.locking import is_held, locked, try_lock
from fatezero.system.progress import StepBar, steps_shown
from fatezero.system.publishing import clear_leftovers, hidden_folder, replacing, scratch_folder
from fatezero.system.stopping import Stopped, stopping_later, stopping_now, stopping_on_signals
from fatezero.system.terminal import printable, quoted, say


def test_leftovers_go_and_work_in_progress_stays(tmp_path: Path) -> None:
    for left in (".clip.123.partial", ".clip.123.old", ".0a.partial"):
        (tmp_path / left / "frames").mkdir(parents=True)
    (tmp_path / ".rows.7.partial.jsonl").write_text("half", encoding="utf-8")
    (tmp_path / ".clip.lock").touch()
    (tmp_path / "result").mkdir()
    with hidden_folder(tmp_path) as working, locked(tmp_path / ".job.lock"):
        clear_leftovers(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".job.lock", working.name, "result"])
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_folder_that_stepped_aside_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / ".0a.partial" / "old"
    (aside / "lost").mkdir(parents=True)
    (aside / "kept").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "new").touch()
    clear_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "lost"]
    assert (tmp_path / "kept" / "new").exists()


def test_what_a_link_stands_for_is_not_taken_away(tmp_path: Path) -> None:
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    (elsewhere / "old" / "result").mkdir(parents=True)
    run.mkdir()
    (run / ".x.partial").symlink_to(elsewhere)
    clear_leftovers(run)
    assert not list(run.iterdir())
    assert (elsewhere / "old" / "result").is_dir()


def test_writers_of_one_file_never_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as two:
        assert one != two
        one.write_text("1", encoding="utf-8")
        two.write_text("2", encoding="utf-8")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "1"  # the last to end
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"):
        assert try_lock(tmp_path / "lock") is None
        assert is_held(tmp_path / "lock")
    assert not is_held(tmp_path / "lock")
    (tmp_path / "lock").touch()  # left by a process that was killed
    assert not is_held(tmp_path / "lock")
    held = try_lock(tmp_path / "lock")
    assert held is not None
    held.close()


@pytest.mark.slow
def test_temporary_folders_of_killed_processes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = (
        "import os, tempfile; from fatezero.source_attention.stores import DiskStore;"
        f"tempfile.tempdir = {str(tmp_path)!r}; store = DiskStore(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    (parent,) = tmp_path.iterdir()
    assert len(list(parent.iterdir())) == 1
    with scratch_folder() as folder:
        assert list(parent.iterdir()) == [folder.parent]
        assert not list(folder.iterdir())
    store = DiskStore()
    assert len(list(parent.iterdir())) == 1
    del store
    assert not list(parent.iterdir())


@pytest.mark.slow
def test_a_platform_without_locks_is_said_in_one_sentence() -> None:
    """As on Windows: by the command, and in Python where a name of the package is asked for."""
    program = """
import runpy, sys
sys.modules["fcntl"] = None
import fatezero
try:
    fatezero.FateZero
except fatezero.UserError as error:
    print(error)
sys.argv = ["fatezero", "status", "run"]
runpy.run_module("fatezero", run_name="__main__")
"""
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    sentence = "FateZero runs on Linux and macOS, whose locks on files it needs: on Windows run it in WSL"
    assert (made.returncode, made.stdout.startswith(sentence), made.stderr.startswith(f"fatezero: {sentence}")) == (
        1, True, True,
    )  # fmt: skip
    assert made.stderr.count("\n") == 1


def test_text_cannot_steer_the_terminal() -> None:
    assert printable("\x1b]0;owned\x07 \u202egnp.exe \ud800 é 漢\n\t") == (
        "\\x1b]0;owned\\x07 \\u202egnp.exe \\ud800 é 漢\n\t"
    )
    assert quoted("x" * 1000, 20) == "'xxxxxxxx…xxxxxxxx'"


def test_any_error_becomes_a_sentence_and_keeps_no_frames() -> None:
    held: list[object] = []

    def fails() -> None:
        held.append(object())
        raise KeyError("gone")

    failure = attempt(fails)
    assert isinstance(failure, UnforeseenError)
    assert "KeyError: 'gone'" in str(failure)
    assert "in fails" in failure.trace
    assert failure.__traceback__ is None
    assert failure.__cause__ is None
    own = UserError("mend it")

    def refuses() -> None:
        raise own

    assert attempt(refuses) is own
    assert "memory does not suffice" in str(attempt(lambda: bytearray(2**62)))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_no_error_that_anything_holds_up(signum: int, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(partial(signal.signal, signum, signal.getsignal(signum)))
    signal.signal(signum, signal.SIG_DFL)  # under nohup SIGHUP is ignored, by us as well

    def works() -> None:
        os.kill(os.getpid(), signum)
        time.sleep(10)

    with stopping_on_signals(), pytest.raises(Stopped) as stopped:
        attempt(works)
    assert stopped.value.code == 128 + signum
    assert signal.getsignal(signum) == signal.SIG_DFL


@contextmanager
def at_the_nth_step(number: int, module: str, happens: Callable[[], None]) -> Iterator[list[int]]:
    """Have something happen at the n-th instruction that a module runs; how many it ran is counted."""
    steps = [0]

    def traced(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if frame.f_globals.get("__name__") != module:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            steps[0] += 1
            if steps[0] == number:
                happens()
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        yield steps
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("kind", ["lock", "scratch", "file", "folder"])
def test_a_signal_at_any_instruction_leaves_nothing(kind: str, tmp_path: Path) -> None:
    """A lock or a hidden folder could be left by a signal between making it and holding it."""
    place = tmp_path / "new"

    def works() -> None:
        if kind == "lock":
            with locked(tmp_path / ".job.lock"):
                return
        if kind == "scratch":
            with hidden_folder(tmp_path):
                return
        with replacing(place) as partial:
            if kind == "folder":
                partial.mkdir()
                (partial / "whole").touch()
            else:
                partial.write_text("whole", encoding="utf-8")

    works()
    before = sorted(tmp_path.rglob("*"))
    module = "fatezero.system.locking" if kind == "lock" else "fatezero.system.publishing"
    number, steps, stopped = 0, [1], 0
    while number <= steps[0]:
        number += 1
        try:
            with (
                stopping_on_signals(),
                at_the_nth_step(number, module, partial(signal.raise_signal, signal.SIGTERM)) as steps,
            ):
                works()
        except Stopped:
            stopped += 1
        assert sorted(tmp_path.rglob("*")) == before, number
    assert stopped >= number - 1 > 50


def test_signals_wait_only_while_they_have_to() -> None:
    done = []

    def works(*contexts: type[stopping_later]) -> None:
        with stopping_on_signals(), ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context())
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(contexts)

    for contexts in [(stopping_later,), (stopping_later, stopping_now), ()]:
        with pytest.raises(Stopped):
            works(*contexts)
    assert done == [(stopping_later,)]


def test_what_another_thread_leaves_changes_nothing() -> None:
    """As the thread that writes leaves the lock of a job."""
    holding = ExitStack()
    holding.enter_context(stopping_later())
    holding.enter_context(stopping_now())
    thread = threading.Thread(target=holding.close)
    thread.start()
    thread.join()
    with stopping_on_signals(), pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)


def test_other_threads_change_no_handlers() -> None:
    seen: list[object] = []

    def inside() -> None:
        with stopping_on_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_a_process_that_does_not_return_is_ended() -> None:
    """As a library's long call, in which Python raises nothing."""
    script = (
        "import hashlib, fatezero.system.stopping as s; s.GRACE = 0.5; s.stop_on_signals(); print('ready', flush=True);"
        "hashlib.pbkdf2_hmac('sha512', b'x', b'y', 10**9)"  # minutes, and deaf all the while
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)  # until it is deaf; otherwise it hears the signal itself, to the same end
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM


def test_a_closed_pipe_stops() -> None:
    script = "from fatezero.system.terminal import say\nwhile True: say('x' * 1000)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(60) == 128 + signal.SIGPIPE
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_what_is_said_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb")
    assert capsys.readouterr().out == "a\\x1b[2Jb\n"


def test_steps_are_told_when_a_stage_begins_and_not_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    shown = steps_shown("one")  # a captured stream is no terminal
    for stage in ("inversion", "editing"):
        for step in range(1, 4):
            shown(stage, step, 3)
    assert capsys.readouterr().out == "one inversion: step 1 of 3\none editing: step 1 of 3\n"


def test_a_bar_does_not_count_what_was_done_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    bar = StepBar("", "step")
    bar("", 250, 300)
    assert "249/300 [00:00<?, ?step/s]" in capsys.readouterr().err  # no speed is known yet


def test_a_bar_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for columns, wide in (("0", 80), ("60", 60)):  # some terminals say that they have none
        monkeypatch.setenv("COLUMNS", columns)
        bar = StepBar("one", "step")
        bar("editing", 1, 2)
        bar("editing", 2, 2)
        *_, last = capsys.readouterr().err.replace("\n", "\r").rstrip("\r").split("\r")
        assert 40 < len(last) <= wide
        assert "one editing: 100%" in last
