"""Words to the user: text from outside cannot steer the terminal, and none is too long to read."""

from __future__ import annotations

import os
import signal
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from fatezero.system.stopping import Stopped

MESSAGE = 4000  # characters of one message, at most
QUOTED = 120  # of a value that a message quotes


def printable(text: str) -> str:
    r"""The text with control characters, invisible marks and lone surrogates as \x1b or \u202e; lines stay lines."""
    return "".join(c if c in "\n\t" or not _steers(c) else _escaped(c) for c in text)


def _steers(character: str) -> bool:
    """Whether a character is more than a picture: control, format (bidirectional marks), surrogate, separator."""
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def quoted(value: object, limit: int = QUOTED) -> str:
    """A value as a message quotes it: as Python writes it, its middle left out where it is long."""
    return shortened(printable(repr(value)), limit)


def shortened(text: str, limit: int) -> str:
    """The text, its middle left out where it is longer than a number of characters."""
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def counted(count: int, what: str) -> str:
    """A number of things: "1 edit", "2 edits"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def say(text: object) -> None:
    """Print to the user.

    Raises:
        Stopped: nobody reads it any more.
    """
    _write(printable(str(text)), sys.stdout)


def complain(text: object) -> None:
    """Print a mistake or a failure to the user.

    Raises:
        Stopped: nobody reads it any more.
    """
    _write(f"fatezero: {shortened(printable(str(text)), MESSAGE)}", sys.stderr)


def _write(line: str, stream: TextIO) -> None:
    with heard(stream):
        print(line, file=stream, flush=True)


@contextmanager
def heard(stream: TextIO) -> Iterator[None]:
    """Stop the work where nobody reads a stream any more: it would be done for nobody.

    Raises:
        Stopped: the pipe is closed.
    """
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python writes what is left when it ends
        raise Stopped(signal.SIGPIPE) from None


def any_locale() -> None:
    """Let every character be printed: those that the terminal's encoding lacks are written as their codes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
