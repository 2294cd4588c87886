"""An edit on disk: frames without loss, videos for a player, pictures of where its words look."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from fatezero.clips.video import side_by_side, write_frames, write_video
from fatezero.data.layout import EDITED_VIDEO, FRAMES, MASK_VIDEO, MASKS, SIDE_BY_SIDE_VIDEO
from fatezero.errors import UserError
from fatezero.system.publishing import replacing
from fatezero.types import Clip, Frames

PICTURE_FRAMES = 8
_ATTENTION_PICTURE = "attention_*.png"
_OWN = (FRAMES, EDITED_VIDEO, SIDE_BY_SIDE_VIDEO, MASKS, MASK_VIDEO, _ATTENTION_PICTURE)


def write_edit(
    folder: Path,
    source: Clip,
    edited: Frames,
    prompts: tuple[str, str],
    masks: npt.NDArray[np.float32] | None,
    attention: Mapping[str, npt.NDArray[np.float32]],
) -> tuple[str, ...]:
    """Write everything that is to be seen of an edit into a folder that is there.

    Args:
        folder: where the files go.
        source: the clip; its times are those of the videos, its sound that of the edited one.
        edited: uint8 F,H,W,3.
        prompts: what describes the source, and the edit.
        masks: float F,H,W in [0, 1]; None where nothing was blended.
        attention: by edited word, float F,m,n in [0, 1].

    Returns:
        One sentence for each way in which the edited video differs from the frames, and on what became of its sound.

    Raises:
        UserError: if a file cannot be written.
    """
    write_frames(folder / FRAMES, edited)
    written = write_video(folder / EDITED_VIDEO, edited, source.timing, sound=source.sound)
    panels = list(zip(prompts, (source.frames, edited), strict=True))
    write_video(folder / SIDE_BY_SIDE_VIDEO, side_by_side(panels), source.timing)
    if masks is not None:
        grey = grey_masks(masks)
        write_frames(folder / MASKS, grey)
        write_video(folder / MASK_VIDEO, np.repeat(grey[..., None], 3, axis=-1), source.timing)
    for index, (word, maps) in enumerate(attention.items()):
        name = _ATTENTION_PICTURE.replace("*", f"{index}_{_file_safe(word)}")
        Image.fromarray(attention_picture(source.frames, maps)).save(folder / name)
    return written


def write_edit_folder(
    folder: Path,
    source: Clip,
    edited: Frames,
    prompts: tuple[str, str],
    masks: npt.NDArray[np.float32] | None,
    attention: Mapping[str, npt.NDArray[np.float32]],
) -> tuple[str, ...]:
    """The same into a folder of its own, which appears whole and replaces an older edit.

    Raises:
        UserError: as `write_edit`; if the folder holds anything else, which would be lost.
    """
    there = sorted(folder.glob("*"))
    whole = any(path.name == SIDE_BY_SIDE_VIDEO for path in there)  # else its frames are no edit's
    for path in there:
        if not whole or not any(path.match(name) for name in _OWN):
            raise UserError(f"{path} is no part of an edit and would be lost: save to a folder of its own.")
    with replacing(folder) as partial:
        partial.mkdir()
        return write_edit(partial, source, edited, prompts, masks, attention)


def grey_masks(masks: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Masks in [0, 1] as grey levels of the same shape, 255 inside."""
    return np.rint(masks * 255).astype(np.uint8)


def attention_picture(frames: Frames, attention: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Where a word looks: frames in the upper row, its attention over them in the lower.

    Args:
        frames: uint8 F,H,W,3.
        attention: float F,m,n in [0, 1].

    Returns:
        uint8 2H,(k * W),3 of k evenly spaced frames.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, PICTURE_FRAMES).round().astype(int))
    return np.concatenate(
        [
            np.concatenate([frames[i] for i in chosen], axis=1),
            np.concatenate([_heat(frames[i], attention[i]) for i in chosen], axis=1),
        ]
    )


def _heat(frame: npt.NDArray[np.uint8], attention: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    height, width = frame.shape[:2]
    enlarged = cv2.resize(np.rint(attention * 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    colours = cv2.cvtColor(cv2.applyColorMap(enlarged, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    mixed: npt.NDArray[np.uint8] = cv2.addWeighted(frame, 0.35, colours, 0.65, 0)
    return mixed


def _file_safe(word: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "_", word) or "word"
