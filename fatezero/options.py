"""What the command line takes beside `MethodConfig` and `RuntimeConfig`. Light: importing this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EditOptions:
    """What to edit, and where the results go.

    Attributes:
        model: a folder in diffusers' Stable Diffusion layout, a hub id, or "picturebook".
        clip: a video file or a folder of images. Without clip, source, target and manifest, a shipped clip is edited.
        source: prompt that describes the clip.
        target: prompt that describes the edit.
        edited_words: words of the source prompt that the edit changes; they make the blending mask.
        target_words: words of the target prompt that stand for them; needed to blend latents by both.
        manifest: a file that lists many edits, in place of clip, source and target.
        root: folder that the manifest's clip paths start from; the manifest's own by default.
        start: index of the first frame taken.
        frames: how many frames are taken; all that follow by default.
        stride: every stride-th frame is taken.
        fps: resample to this rate first.
        height: rows; by default the size nearest the clip's shape at the checkpoint's own scale.
        width: columns; as height.
        fit: how another aspect ratio is met: scale and crop the centre, or stretch.
        seed: of a sampled posterior and of SDEdit's noise.
        id: names the result's folder; made from clip and target by default.
        out: folder of the run.
        variant: names this configuration within the run.
    """

    model: str = "picturebook"
    clip: str | None = None
    source: str | None = None
    target: str | None = None
    edited_words: tuple[str, ...] = ()
    target_words: tuple[str, ...] = ()
    manifest: str | None = None
    root: str | None = None
    start: int = 0
    frames: int | None = None
    stride: int = 1
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    fit: Literal["crop", "stretch"] = "crop"
    seed: int = 0
    id: str | None = None
    out: str = "runs/edit"
    variant: str = "fatezero"


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What to measure.

    Attributes:
        model: "medium" is a seeded random network of 35 million weights; "sd1" has Stable Diffusion 1.x's own
            configuration with random weights; anything else is a checkpoint.
        height: rows of the frames.
        width: columns of the frames.
        frames: of the clip.
        steps: of inversion and edit.
        repeats: timed runs of each kind, taken in turn; the medians are compared.
        threads: of the CPU.
        lengths: clip lengths whose peak memory is measured, each in its own process; () measures none.
    """

    model: str = "medium"
    height: int = 256
    width: int = 256
    frames: int = 4
    steps: int = 5
    repeats: int = 3
    threads: int = 1
    lengths: tuple[int, ...] = (8, 32, 128)
