"""`fatezero datasets`: check a manifest and its clips."""

from __future__ import annotations

from fatezero.system.terminal import say


def check(manifest: str, *, root: str | None = None) -> int:
    """Say what is there and what is missing.

    Args:
        manifest: a manifest in any of the known formats, or a DAVIS folder.
        root: folder that clip paths start from.

    Returns:
        0 if every edit is ready, 1 if not.
    """
    from fatezero.data.manifest import check_manifest

    found = check_manifest(manifest, root)
    say(found)
    return 1 if found.problems else 0
