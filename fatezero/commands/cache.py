"""`fatezero cache`: list, verify or prune kept inversions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from fatezero.errors import UserError


def cache(action: Literal["ls", "verify", "prune"], folder: Path, *, cache_gb: float | None = None) -> int:
    """List, check or shrink a folder of kept inversions.

    Args:
        action: list them; verify them, taking damaged ones away; or prune to a bound.
        folder: the folder that was given as --cache.
        cache_gb: what may stay, in units of 1e9 bytes; the least recently used go first.

    Returns:
        0, or 1 if damaged entries were found.
    """
    from fatezero.runs.inversion_cache import InversionCache
    from fatezero.source_attention.budget import GB

    kept = InversionCache(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the one that was given as --cache.")
    if action == "verify":
        sound, damaged = kept.verify()
        print(f"{len(sound)} sound, {len(damaged)} damaged and taken away")
        return 1 if damaged else 0
    if action == "prune":
        if cache_gb is None:
            raise UserError("--cache-gb is missing: it says what may stay.")
        print(f"{len(kept.prune(int(cache_gb * GB)))} taken away")
        return 0
    entries = kept.entries()
    for entry in entries:
        used = datetime.fromtimestamp(entry.used, UTC).strftime("%Y-%m-%d %H:%M")
        print(f"{entry.key} {entry.bytes / GB:.3f} GB {used} {entry.about.get('prompt', '')}")
    print(f"{len(entries)} inversions, {sum(entry.bytes for entry in entries) / GB:.3f} GB")
    return 0
