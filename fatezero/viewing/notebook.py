"""An edit as a notebook shows it: source, edit and mask side by side in one video that the HTML carries."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fatezero.clips.video import side_by_side, write_video
from fatezero.system.terminal import QUOTED, printable, shortened
from fatezero.types import Clip, Frames
from fatezero.viewing.result_files import grey_masks

HEIGHT = 256  # rows of a panel, at most
PIXELS = 2**24  # of the whole video, at most, so that a notebook stays a file that one can open
CRF = 26  # of H.264


def edit_html(source: Clip, edited: Frames, prompts: tuple[str, str], masks: npt.NDArray[np.float32] | None) -> str:
    """HTML of an edit that needs nothing beside it and runs no script.

    Args:
        source: the clip, with the times of its frames.
        edited: uint8 F,H,W,3.
        prompts: what describes the source, and the edit.
        masks: float F,H,W in [0, 1]; None where nothing was blended.
    """
    panels = [("source", source.frames), ("edit", edited)]
    if masks is not None:
        panels.append(("mask", np.repeat(grey_masks(masks)[..., None], 3, axis=-1)))
    height, shown = _bounds(edited, len(panels))
    joined = side_by_side([(label, _scaled(frames[:shown], height)) for label, frames in panels])
    timing = source.timing[: shown + 1] if isinstance(source.timing, tuple) else source.timing
    width = joined.shape[2] * max(1, HEIGHT // height)  # small clips are enlarged
    video = b64encode(_mp4(joined, timing)).decode("ascii")
    size = f"{len(edited)} frames of {edited.shape[2]} x {edited.shape[1]}"
    note = size if shown == len(edited) else f"{size}, of which the first {shown} are shown: save() writes all"
    words = " → ".join(f"<q>{escape(shortened(printable(prompt), QUOTED))}</q>" for prompt in prompts)
    return (
        f"<figure style='margin:0'><figcaption>{words}</figcaption>"
        f"<video controls autoplay loop muted playsinline width='{width}' style='max-width:100%' "
        f"src='data:video/mp4;base64,{video}'></video><br><small>{note}</small></figure>"
    )


def _bounds(frames: Frames, panels: int) -> tuple[int, int]:
    """Rows of a panel, and how many frames are shown."""
    count, height, width = frames.shape[:3]
    rows = min(height, HEIGHT)
    columns = max(1, round(width * rows / height))
    return rows, max(1, min(count, PIXELS // (rows * columns * panels)))


def _scaled(frames: Frames, height: int) -> Frames:
    if frames.shape[1] == height:
        return frames
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height))) for frame in frames])


def _mp4(frames: Frames, timing: float | tuple[float, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edit.mp4"
        write_video(path, frames, timing, crf=CRF)
        return path.read_bytes()
