"""Frozen records that cross module borders. Light on purpose: importing this needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fatezero.errors import UserError
from fatezero.system.terminal import quoted

Frames = npt.NDArray[np.uint8]  # F,H,W,3 RGB, 0..255
# Frames per second; or, where they vary, F+1 rising seconds: when each frame is shown, from 0, and when the last ends.
Timing = float | tuple[float, ...]


def mean_rate(timing: Timing) -> float:
    """Frames per second, the mean where the rate varies."""
    return (len(timing) - 1) / timing[-1] if isinstance(timing, tuple) else timing


@dataclass(frozen=True, kw_only=True)
class FrameSelection:
    """Which frames of a clip are taken, and at what size.

    Attributes:
        start: the first frame taken: its index, or the time at which it is shown, such as 12.5s or 00:01:02.5.
        frames: how many frames are taken, or for how long, such as 2s; all that follow by default.
        stride: every stride-th frame is taken.
        fps: resample to this rate before counting frames; the file's own frames by default.
        height: rows of the result; left open, a clip keeps its own, and an edit takes the size nearest the clip's
            shape at the checkpoint's own scale.
        width: columns of the result; as height.
        fit: how another aspect ratio is met: "crop" scales to cover and crops the centre, "right" crops the right end
            (the last of pictures side by side), "stretch" distorts.
        stream: which of a file's videos is taken, counted from 0; by default the film (see docs/reference/clips.md).
    """

    start: int | str = 0
    frames: int | str | None = None
    stride: int = 1
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    fit: Literal["crop", "right", "stretch"] = "crop"
    stream: int | None = None

    @property
    def selection(self) -> dict[str, Any]:
        """The fields above by name, whatever else a subclass holds."""
        return {field.name: getattr(self, field.name) for field in fields(FrameSelection)}


@dataclass(frozen=True, kw_only=True)
class ClipSpec(FrameSelection):
    """Which frames of which file, and at what size.

    Attributes:
        path: a video file (mp4, webm, gif, webp, …) or a folder of images; empty where an edit has no source clip.
        audio: "keep" the file's sound beside the edited frames, or "drop" it.
    """

    path: str
    audio: Literal["keep", "drop"] = "keep"


@dataclass(frozen=True, kw_only=True)
class MaskSpec:
    """Where a clip's edit belongs.

    Pictures of a coloured palette number their objects, and 0 is none (DAVIS); where they use its black, that is none.
    So do lossless grey ones if no level of the whole mask lies above half of their range, be they zeros and ones. Of
    other grey ones, what is brighter than half is inside; of coloured ones, what is not black; of lossy ones and of
    videos, what is brighter than half or of a strong colour.

    Attributes:
        path: a video, an image, or a folder of images; empty where runs are stated.
        objects: numbers of those that are inside; () is all.
        runs: start and length of each run of pixels inside, counted row by row in 512 x 512 (PIE-Bench); None where
            there is a path.
    """

    path: str = ""
    objects: tuple[int, ...] = ()
    runs: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class CompanionSpec:
    """What lies beside a clip, such as its true edit or a mask: its frame i belongs to frame i of the clip's file.

    So the clip's range, stride, rate and size hold for it too, whatever times it has itself.

    Attributes:
        clip: what is taken of the clip's file.
        content: a file or folder; or a mask, whose frames are 255 inside and 0 outside.
    """

    clip: ClipSpec
    content: str | MaskSpec


@dataclass(frozen=True)
class Sound:
    """The sound that belongs to a clip.

    Attributes:
        path: the file that holds it.
        start: when the clip's first frame is shown, in seconds of the file's own timestamps.
        end: when the clip ends, likewise; None keeps the sound to its own end, which may be later.
    """

    path: Path
    start: float
    end: float | None = None


@dataclass(frozen=True)
class Clip:
    """Decoded frames.

    Attributes:
        frames: uint8 F,H,W,3 RGB.
        timing: when each is shown.
        notes: one sentence for each thing done to the file's own frames (range, resize, crop).
        sound: None where the file has none, or it is dropped.
        path: the file that the frames are from; empty where they are from none.
    """

    frames: Frames
    timing: Timing
    notes: tuple[str, ...] = ()
    sound: Sound | None = None
    path: str = ""

    def __repr__(self) -> str:
        return f"<Clip {self}>"

    def __str__(self) -> str:
        count, height, width = self.frames.shape[:3]
        name = f"{quoted(self.path)}, " if self.path else ""
        return f"{name}{count} frames of {width} x {height}, {self.fps:.4g} a second"

    @property
    def fps(self) -> float:
        """Frames per second, the mean where the rate varies."""
        return mean_rate(self.timing)


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """One clip, one pair of prompts.

    Attributes:
        id: names the edit, and so the result's folder (see `data.layout.result_name`); any text.
        clip: the source frames; its path is empty where there are none: such an edit can be scored, but not made.
        source_prompt: describes the clip as it is.
        target_prompt: describes the clip as it should become.
        edited_words: words of the source prompt that the edit changes; they make the blending mask.
        target_words: words of the target prompt that stand for them, by which latents are blended; by default those
            that stand in their places.
        category: style, attribute, object, shape, background or the benchmark's own word.
        seed: belongs to the request, never to a process.
        settings: dotted names of configuration fields set for this request alone.

    Raises:
        UserError: words are a text rather than a tuple of texts.
    """

    id: str
    clip: ClipSpec
    source_prompt: str
    target_prompt: str
    edited_words: tuple[str, ...] = ()
    target_words: tuple[str, ...] = ()
    category: str = ""
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_source(self) -> bool:
        """Whether there is a source clip."""
        return bool(self.clip.path)

    def __post_init__(self) -> None:
        for name in ("edited_words", "target_words"):
            words = getattr(self, name)
            if isinstance(words, str):
                raise UserError(
                    f"{name} is the text {quoted(words)}, of which each letter would be a word; write "
                    f"{quoted(tuple(words.split()))}."
                )
