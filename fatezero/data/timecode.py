"""Counts of frames, and times as people write them: 12.5s, 01:02.5, 00:01:02.5."""

from __future__ import annotations

import re

from fatezero.errors import UserError
from fatezero.system.terminal import quoted

_COUNT = re.compile(r"-?\d{1,40}", re.ASCII)
_SECONDS = re.compile(r"(\d{1,7}(?:\.\d{1,9})?)s", re.ASCII)
_CLOCK = re.compile(r"(?:(\d{1,4}):(?=[0-5]?\d:))?(\d{1,4}):([0-5]?\d(?:\.\d{1,9})?)", re.ASCII)


def parse_time(text: str) -> float:
    """Seconds.

    Args:
        text: hours, minutes and seconds parted by colons, or seconds with an s behind them.

    Raises:
        ValueError: it is no such text.
    """
    stripped = text.strip()
    if seconds := _SECONDS.fullmatch(stripped):
        return float(seconds[1])
    clock = _CLOCK.fullmatch(stripped)
    if clock is None:
        raise ValueError("write a time as 12.5s, 01:02.5 or 00:01:02.5")
    hours, minutes, rest = clock.groups("0")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def count_or_text(word: str) -> int | str:
    """A number where a word is digits alone; otherwise the word, which may be a time."""
    return int(word) if _COUNT.fullmatch(word) else word


def check_count_or_time(where: str, value: object) -> None:
    """Refuse what is neither a whole number nor a time; a fraction could be seconds or a slip.

    Raises:
        UserError: naming `where`.
    """
    if type(value) is int:
        return
    try:
        parse_time(value if isinstance(value, str) else "")
    except ValueError:
        raise UserError(
            f"{where}: {quoted(value)} is neither a whole number nor a time such as 12.5s, 01:02.5 or 00:01:02.5."
        ) from None
