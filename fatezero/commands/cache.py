"""`fatezero cache`: list, verify or prune kept inversions."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fatezero.config import GB
from fatezero.errors import UserError
from fatezero.system.terminal import QUOTED, say, shortened

if TYPE_CHECKING:
    from fatezero.runs.inversion_cache import InversionCache


def cache(action: Literal["ls", "verify", "prune"], folder: Path, *, cache_gb: float | None = None) -> int:
    """List, check or shrink a folder of kept inversions.

    Examples:
        fatezero cache ls inversions
        fatezero cache prune inversions --cache-gb 10

    Args:
        action: list them; verify them, taking damaged ones away; or prune to a bound.
        folder: the folder that was given as --cache.
        cache_gb: what may stay, in units of 1e9 bytes; the least recently used go first.

    Returns:
        0, or 1 if damaged entries were found.
    """
    from fatezero.runs.inversion_cache import InversionCache

    kept = InversionCache(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the one that was given as --cache.")
    if cache_gb is not None and action != "prune":
        raise UserError("--cache-gb was given without the action prune, the only one that it bounds.")
    if action == "verify":
        return _verify(kept)
    if action == "prune":
        if cache_gb is None:
            raise UserError("--cache-gb is missing: it says what may stay.")
        if not (isfinite(cache_gb) and cache_gb >= 0):
            raise UserError(f"--cache-gb is {cache_gb}: it is a number of at least 0.")
        say(f"{len(kept.prune(int(cache_gb * GB)))} taken away")
        return 0
    entries = kept.entries()
    for entry in entries:
        damaged = "damaged: `fatezero cache verify` takes it away"
        prompt = damaged if entry.about is None else shortened(entry.about.get("prompt", ""), QUOTED)
        say(f"{entry.key} {entry.bytes / GB:.3f} GB {_date(entry.used)} {prompt}")
    say(f"{len(entries)} inversions, {sum(entry.bytes for entry in entries) / GB:.3f} GB")
    return 0


def _verify(kept: InversionCache) -> int:
    sound, damaged = kept.verify()
    for key, found in damaged.items():
        say(f"{key} is {found}")
    say(f"{len(sound)} sound, {len(damaged)} damaged")
    return 1 if damaged else 0


def _date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):  # a file system keeps dates that no calendar has
        return f"{seconds:.0f} s"
