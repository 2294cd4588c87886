"""What no input may bring about, whatever it is: judged from inside the attacked process, and from what it left."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzzing.fuzz_runner import MOST_MEMORY
from tests.fuzzing.fuzz_targets import FuzzCase
from tests.fuzzing.mutations import SECRET

STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn"}
ASKS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"}
CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.truncate", "shutil.rmtree"}
HARMLESS_MODULES = (
    "torch",
    "collections",
    "numpy",
    "fatezero",
    "lightning",
    "_codecs",
    "copyreg",
    "argparse",
    "pathlib._local",
)
HARMLESS_BUILTINS = {
    "set",
    "frozenset",
    "dict",
    "list",
    "tuple",
    "int",
    "float",
    "bool",
    "str",
    "bytes",
    "bytearray",
    "complex",
}


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: its exit status; negative is the signal that ended it.
        hung: it was ended because it took too long.
        memory: bytes that it held at most.
        out: what it said.
        err: what it complained of.
        events: what it did that it may not, as it was seen from inside.
    """

    status: int
    hung: bool
    memory: int
    out: bytes
    err: bytes
    events: str


def watch(case: Path, note: Callable[[str], None]) -> None:
    """Have this process note from now on what it does that no input may make it do.

    That is to start a program, ask a network, unpickle foreign classes, or change files elsewhere.

    Args:
        case: the folder in which it may change files.
        note: takes a line for each such event.
    """
    home = os.path.realpath(case)

    def outside(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        whole = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  (Path would raise for odd names)
        return not whole.startswith((home, os.path.abspath(case), "/dev/null", "/dev/shm", "/dev/tty"))  # noqa: PTH100

    def see(event: str, words: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = words
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and outside(path):
                note(f"wrote outside its folder: {os.fsdecode(path)!r}")
        elif event in CHANGES:
            if any(outside(word) for word in words[:2]):
                note(f"{event} outside its folder: {words!r}")
        elif event in STARTS:
            note(f"started a program: {event} {words!r}")
        elif event in ASKS:
            note(f"asked a network: {event} {words[-1]!r}")
        elif event == "pickle.find_class":
            module, name = words
            if not module.startswith(HARMLESS_MODULES) and not (module == "builtins" and name in HARMLESS_BUILTINS):
                note(f"unpickled {module}.{name}")

    sys.addaudithook(see)


def violations(attack: FuzzCase, ended: Ended, case: Path) -> list[str]:
    """What a process did that no input may bring about; each begins with its kind."""
    out, err = (text.decode("utf-8", "backslashreplace") for text in (ended.out, ended.err))
    found = [*dict.fromkeys(ended.events.splitlines())]
    if ended.hung:
        found.append("hung")
    elif ended.status < 0:
        found.append(f"ended by signal {-ended.status}")
    if ended.memory > MOST_MEMORY:
        found.append(f"took {ended.memory / 1e9:.1f} GB")
    if "Traceback (most recent call last)" in err + out:
        found.append(f"stack trace: {_place(err + out)}")
    elif ended.status not in {0, 1, 2} and ended.status > 0 and not ended.hung:
        found.append(f"status {ended.status}")
    elif ended.status > 0 and not err.strip() + out.strip():
        found.append("failed without a word")
    steering = _steering(ended.out + ended.err)
    if steering:
        found.append(f"raw control characters: {steering}")
    if (case / "marker").exists():
        found.append("ran a payload: its marker was made")
    found += _lies(attack, ended.status, out, case) if not ended.hung else []
    linked = any(path.is_symlink() for path in case.rglob("*"))  # whose owner chose to show what they lead to
    if not linked and SECRET in out + err + "".join(map(_text, case.rglob("*.html"))):
        found.append("showed a file outside its folder")
    return found


def _lies(attack: FuzzCase, status: int, out: str, case: Path) -> list[str]:
    if status != 0:
        return []
    missing = [name for name in attack.makes if not (case / name).is_file() or not (case / name).stat().st_size]
    said = [words for words in attack.never_says if words in out]
    found = [f"status 0 without {name}" for name in missing] + [f"status 0, and says {words!r}" for words in said]
    return found + ([f"status 0, but {attack.must_fail}"] if attack.must_fail else [])


def _place(text: str) -> str:
    """Where a stack trace leads to: its last line in this project, and the error's kind and start."""
    ours = re.findall(r'File "[^"]*?/((?:fatezero|fatezero_eval)/[^"]+)", line \d+, in (\w+)', text)
    after = text[text.rindex('  File "') :].splitlines() if '  File "' in text else []
    error = next((line for line in after if line and not line.startswith(" ")), "")
    return f"{':'.join(ours[-1]) if ours else 'elsewhere'} {error[:100]}"


def _steering(output: bytes) -> str:
    """Characters that steer a terminal, but for those of progress bars."""
    try:
        text = output.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes that are no UTF-8"
    kept = text.replace("\x1b[A", "")
    steering = {c for c in kept if c not in "\n\t\r" and unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"}}
    return " ".join(sorted(f"U+{ord(c):04X}" for c in steering))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
