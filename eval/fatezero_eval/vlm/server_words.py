"""What an OpenAI-compatible server answers: whole, in its own words, with what it says of waiting and of its cost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any

from fatezero.data.files import parse_json

MAX_BYTES = 2**24  # of an answer
_TOKENS = {"prompt_tokens": "prompt_tokens", "answer_tokens": "completion_tokens"}  # ours, and a server's


def read_whole(response: Any, ends: float) -> bytes:
    """A whole answer.

    Raises:
        TimeoutError: it is not whole in time, however steadily it drips.
        ValueError: it is too long.
    """
    content = bytearray()
    read: Callable[[int], bytes] = getattr(response, "read1", response.read)
    while chunk := read(2**16):
        content += chunk
        if monotonic() > ends:
            raise TimeoutError
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return bytes(content)


def words_of(text: str) -> str:
    """A server's words about its refusal, which are JSON or not."""
    try:
        return message_in(parse_json(text))
    except ValueError:
        return text.strip()


def message_in(values: Any) -> str:
    """The words in a server's JSON, wherever it puts them."""
    for name in ("error", "message", "detail"):
        if isinstance(values, dict) and values.get(name):
            values = values[name]
    return values if isinstance(values, str) else json.dumps(values, ensure_ascii=False)


def wait_asked_for(stated: str | None) -> float | None:
    """Seconds of a Retry-After header, which states them or a date."""
    if stated is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", stated.strip()):
        return float(stated)
    try:
        until = parsedate_to_datetime(stated)
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def token_counts(usage: Any) -> dict[str, int | None]:
    """What a server says that an answer cost; None where it does not say it."""
    stated = usage if isinstance(usage, dict) else {}
    found = {name: stated.get(theirs) for name, theirs in _TOKENS.items()}
    return {name: count if type(count) is int and 0 <= count < 2**53 else None for name, count in found.items()}
