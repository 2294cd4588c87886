"""Where the shipped weights and clips are: the only place that knows.

Light on purpose: importing this needs no torch.
"""

from __future__ import annotations

from pathlib import Path

from fatezero.types import ClipSpec, EditRequest

_PICTUREBOOK = Path(__file__).parent / "picturebook"
CHECKPOINT = _PICTUREBOOK / "weights" / "picturebook"
"""The text-to-image model, in diffusers' layout."""
VIDEO = _PICTUREBOOK / "weights" / "picturebook-video"
"""The text-to-video transformer, in diffusers' layout."""
MODELS = {folder.name: folder for folder in (CHECKPOINT, VIDEO)}
"""The shipped models by their short names."""
MOTION = _PICTUREBOOK / "weights" / "picturebook-motion"
"""The motion adapter for it, in the layout of diffusers' MotionAdapter."""
JUDGE = _PICTUREBOOK / "weights" / "picturebook-clip"
"""The CLIP that scores edits, an open_clip `local-dir:` folder."""
SPRITES = _PICTUREBOOK / "assets" / "sprites"
"""One `<object>.webp` with alpha for each object of the world."""
DEMO = EditRequest(
    id="demo",
    clip=ClipSpec(path=str(_PICTUREBOOK / "assets" / "demo.mp4")),
    source_prompt="a jeep on the road",
    target_prompt="a jeep in the snow",
    edited_words=("road",),
    target_words=("snow",),
    category="background",
)
"""What `fatezero edit` edits when no clip is named."""


def judge_location(name: str) -> str:
    """The shipped judge's folder in place of its short name; other names stay, and this one where it is missing."""
    return str(JUDGE) if name == JUDGE.name and (JUDGE / "open_clip_config.json").is_file() else name
