"""Reads the clips that are named on standard input, and says of each on a line what came of it.

    echo clip.mp4 | python -m tests.clips.damaged_reading 20

A process of its own, since a reader that hangs or crashes takes its process with it: the system ends this one if it
takes longer than so many seconds for a file.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from fatezero.clips.video import probe, read_clip
from fatezero.errors import UserError
from fatezero.system.terminal import say
from fatezero.types import ClipSpec

PATIENCE = 20.0  # seconds for a file


def outcome(path: Path) -> dict[str, Any]:
    """What came of a file: frames that were announced and read with their notes, an error, or a stack trace."""
    try:
        announced = probe(path).frames
        clip = read_clip(ClipSpec(path=str(path)))
        return {"announced": announced, "frames": len(clip.frames), "notes": clip.notes}
    except UserError as error:
        return {"error": str(error)}
    except Exception:
        return {"trace": traceback.format_exc()}


if __name__ == "__main__":
    for line in sys.stdin.read().splitlines():
        signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
        say(json.dumps(outcome(Path(line))))
        sys.stdout.flush()
