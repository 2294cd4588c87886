"""One way to stop: a signal or a closed pipe ends the work within seconds, and no process stays behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

GRACE = 8.0  # seconds in which a process may unwind by itself; a network call on a CPU can take longer
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(SystemExit):
    """The work was stopped from outside; its code is the exit status that shells expect.

    Attributes:
        signum: the signal's number; SIGPIPE's where nobody reads the output any more.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __str__(self) -> str:
        why = "nobody reads the output" if self.signum == signal.SIGPIPE else signal.Signals(self.signum).name
        return (
            f"interrupted ({why}): what was finished is whole, what was in progress was dropped; give the same "
            "command again to go on."
        )


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Raise `Stopped` in the main thread on SIGINT, SIGTERM and SIGHUP; end the process where that is not heard.

    A signal that was ignored before (nohup) stays ignored. Elsewhere than in the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in STOPPING}
    over = stop_on_signals()
    try:
        yield
    finally:
        over()
        for signum, handler in before.items():
            signal.signal(signum, handler)


def stop_on_signals() -> Callable[[], None]:
    """As `stopping_on_signals`, from here to the end of the process, or until what is returned is called."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    over = threading.Event()
    threading.Thread(target=_end_in_time, args=(woken, over), name="stopping", daemon=True).start()
    listen()

    def end() -> None:
        over.set()
        signal.set_wakeup_fd(-1)
        os.close(waker)

    return end


def listen() -> None:
    """Have this process's signals raise `Stopped`; again after a library has put handlers of its own there."""
    if threading.current_thread() is threading.main_thread():
        for signum in STOPPING:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, _stop)


def _stop(signum: int, _: Any) -> None:
    for other in STOPPING:  # a second one must not break the unwinding
        signal.signal(other, signal.SIG_IGN)
    if not _signals.wait:
        raise Stopped(signum)
    _signals.waiting = signum


class _Signals(threading.local):
    """Whether signals have to wait, and the one that does: of the main thread, as no other hears any."""

    wait = False
    waiting: int | None = None


_signals = _Signals()


class stopping_later:  # noqa: N801  # contexts are named as functions are
    """Within it signals wait, for steps that make sense only together, such as making a file and locking it.

    It may be left in another thread than it was entered in. No generator: one that a signal keeps from going on would
    set the state back when nobody expects it.
    """

    _wait = True

    def __enter__(self) -> None:
        self._before = _signals.wait
        self._become(self._wait)

    def __exit__(self, *_: object) -> None:
        self._become(self._before)

    @staticmethod
    def _become(wait: bool) -> None:
        _signals.wait = wait
        if not wait and _signals.waiting is not None:
            signum, _signals.waiting = _signals.waiting, None
            raise Stopped(signum)


class stopping_now(stopping_later):  # noqa: N801
    """Within `stopping_later`: signals are heard meanwhile, and so is one that has waited."""

    _wait = False


def _end_in_time(woken: int, over: threading.Event) -> None:
    """Wait for a stopping signal, then end the process unless its work ends by itself.

    The interpreter raises nothing while the main thread is inside a library's call, however long that takes.
    """
    heard = os.read(woken, 1)
    while heard and heard[0] not in STOPPING:
        heard = os.read(woken, 1)
    os.close(woken)
    if heard and not over.wait(GRACE):
        signum = heard[0]
        os.write(sys.stderr.fileno(), f"fatezero: {Stopped(signum)}\n".encode())  # the stream may be in use
        end_children(0)
        os._exit(128 + signum)


def end_children(patience: float = GRACE, spared: Collection[BaseProcess] = ()) -> None:
    """End the processes that this one has started: politely, then not.

    Args:
        patience: seconds in which they may end by themselves.
        spared: processes of another's work.
    """
    children = [child for child in multiprocessing.active_children() if child not in spared]
    for child in children:
        child.terminate()
    deadline = time.monotonic() + patience
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        if child.is_alive():
            child.kill()
            child.join(1)


def end_with_parent() -> None:
    """Watch the process that started this one, and end with it: nobody would hear what came of the work."""
    parent = os.getppid()

    def watch() -> None:
        while multiprocessing.parent_process() is None and os.getppid() == parent:
            time.sleep(1)  # torchrun's process has none, and one of multiprocessing's not before it has its work
        starter = multiprocessing.parent_process()  # not the fork server, which lives as long as its children
        if starter is not None:
            starter.join()
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
