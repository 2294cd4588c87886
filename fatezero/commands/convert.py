"""`fatezero convert`: make a checkpoint of a published Tune-A-Video one."""

from __future__ import annotations

from pathlib import Path

from fatezero.system.terminal import say


def convert(source: Path, out: Path) -> int:
    """Convert and say where the checkpoint is; returns 0.

    Args:
        source: the published checkpoint's folder.
        out: the folder to make.
    """
    from fatezero.diffusion.conversion import convert_tune_a_video

    say(convert_tune_a_video(source, out))
    return 0
