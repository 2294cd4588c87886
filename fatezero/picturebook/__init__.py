"""Picturebook: the embedded world, its clips with known truth, and the models trained on it.

Light on purpose: importing this needs no torch.
"""

from __future__ import annotations

from pathlib import Path

from fatezero.types import ClipSpec, EditRequest

_HERE = Path(__file__).parent
CHECKPOINT = _HERE / "weights" / "picturebook"
"""The text-to-image model, in diffusers layout."""
MOTION = _HERE / "weights" / "picturebook-motion"
"""The motion adapter for it, in the layout of diffusers' MotionAdapter."""
CLIP = _HERE / "weights" / "picturebook-clip"
"""The judge, an open_clip `local-dir:` folder."""
DEMO = EditRequest(
    id="demo",
    clip=ClipSpec(path=str(_HERE / "assets" / "demo.mp4")),
    source_prompt="a jeep on the road",
    target_prompt="a jeep in the snow",
    edited_words=("road",),
    target_words=("snow",),
    category="background",
)
"""What `fatezero edit` does when it is told nothing."""
