"""Small runs to make studies of: every method paints a square of its own colour."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fatezero.clips.video import write_frames
from fatezero.types import ClipSpec, EditRequest, Frames
from tests.eval.run_records import record_of

FRAMES, HEIGHT, WIDTH = 4, 48, 64
COLOURS = {"full": (220, 40, 40), "no fusion": (40, 200, 60), "sdedit": (50, 80, 230)}


def counting(colour: tuple[int, int, int], texture: int) -> Frames:
    """Frames F,H,W,3 whose grey at the right says which one it is, over noise; a square of a colour at the left."""
    noise = np.random.default_rng(texture).integers(0, 40, (FRAMES, HEIGHT, WIDTH, 3))
    frames = (noise + (np.arange(FRAMES) * 30 + 20)[:, None, None, None]).astype(np.uint8)
    frames[:, :, WIDTH // 2 :] = (np.arange(FRAMES) * 30 + 40)[:, None, None, None]
    frames[:, 8:40, :24] = colour
    return frames


def make_run(
    folder: Path,
    edits: int,
    methods: Mapping[str, tuple[int, int, int]] | None = None,
    target: str = "a painted square",
) -> Path:
    """A run folder whose clips lie beside it."""
    for number in range(edits):
        clip = folder.parent / "clips" / str(number)
        write_frames(clip, counting((128, 128, 128), number))
        request = EditRequest(
            id=f"edit-{number}",
            clip=ClipSpec(path=str(clip)),
            source_prompt=f"a grey square, number {number}",
            target_prompt=f"{target}, number {number}",
            category=("style", "shape")[number % 2],
        )
        for method, colour in (COLOURS if methods is None else methods).items():
            result = folder / method / request.id
            write_frames(result / "frames", counting(colour, number))
            (result / "meta.json").write_text(json.dumps(record_of(request)), encoding="utf-8")
    return folder
