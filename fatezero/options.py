"""What the command line takes beside `MethodConfig` and `RuntimeConfig`. Light: importing this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fatezero.config import KeyFrame
from fatezero.errors import UserError
from fatezero.types import ClipSpec


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """Which frames of a clip are taken, and at what size.

    Attributes:
        start: index of the first frame taken.
        frames: how many frames are taken; all that follow by default.
        stride: every stride-th frame is taken.
        fps: resample to this rate first.
        height: rows; by default the size nearest the clip's shape at the checkpoint's own scale.
        width: columns; as height.
        fit: how another aspect ratio is met: scale and crop the centre, or stretch.
    """

    start: int = 0
    frames: int | None = None
    stride: int = 1
    fps: float | None = None
    height: int | None = None
    width: int | None = None
    fit: Literal["crop", "stretch"] = "crop"


@dataclass(frozen=True, kw_only=True)
class EditOptions(FrameOptions):
    """What to edit, and where the results go.

    Attributes:
        model: a folder in diffusers' Stable Diffusion layout (tuned or not), a hub id, or "picturebook".
        motion_adapter: makes a video model of it: a folder in the layout of diffusers' MotionAdapter, a hub id, or
            "picturebook-motion".
        clip: a video file or a folder of images, here or in an object store. Without clip, source, target and
            manifest, a shipped clip is edited.
        source: prompt that describes the clip.
        target: prompt that describes the edit.
        edited_words: words of the source prompt that the edit changes; they make the blending mask.
        target_words: words of the target prompt that stand for them; needed to blend latents by both.
        manifest: a file that lists many edits, in place of clip, source and target.
        root: folder that the manifest's clip paths start from; the manifest's own by default.
        seed: of a sampled posterior and of SDEdit's noise.
        id: names the result's folder; made from clip and target by default.
        out: folder of the run, or its address in an object store (s3://…, gs://…).
        variant: names this configuration within the run.
        redo: replace results that were made with other settings.
    """

    model: str = "picturebook"
    motion_adapter: str | None = None
    clip: str | None = None
    source: str | None = None
    target: str | None = None
    edited_words: tuple[str, ...] = ()
    target_words: tuple[str, ...] = ()
    manifest: str | None = None
    root: str | None = None
    seed: int = 0
    id: str | None = None
    out: str = "runs/edit"
    variant: str = "fatezero"
    redo: bool = False


@dataclass(frozen=True, kw_only=True)
class InvertOptions:
    """What to invert ahead of its edits.

    Attributes:
        model: as for `fatezero edit`.
        motion_adapter: as for `fatezero edit`.
        manifest: the edits to come; edits of one clip share an inversion.
        root: folder that the manifest's clip paths start from; the manifest's own by default.
    """

    model: str = "picturebook"
    motion_adapter: str | None = None
    manifest: str
    root: str | None = None


@dataclass(frozen=True, kw_only=True)
class TuneOptions(FrameOptions):
    """How a checkpoint is tuned on one clip (Tune-A-Video, Wu et al., ICCV 2023, as FateZero's authors do it).

    Attributes:
        model: the image model to start from, as for `fatezero edit`.
        clip: a video file or a folder of images.
        prompt: describes the clip.
        manifest: tune one model for each clip that a manifest's edits start from, in place of clip and prompt; then
            `fatezero edit --manifest … --model '<out>/{clip}/model'` uses them.
        root: folder that the manifest's clip paths start from; the manifest's own by default.
        categories: of the manifest's edits, those of these categories alone; all by default.
        out: folder of checkpoints, logs and sample grids; the tuned checkpoint is `<out>/model`. With a manifest,
            each clip has a folder of its name in it.
        steps: optimiser steps, one clip each.
        learning_rate: AdamW's, constant.
        rank: of the temporal convolutions; null for full ones.
        convolutions: train the temporal convolutions beside temporal attention and the queries.
        key_frames: of spatio-temporal attention; by default the checkpoint's recommendation, else the paper's.
        norm_scope: of the residual blocks' GroupNorms; likewise.
        class_images: folder of images of the object's kind that the model should not forget; none by default.
        class_prompt: describes them; the clip's prompt by default.
        class_weight: of their loss.
        precision: Lightning's: full, or mixed with half.
        gradient_checkpointing: trade time for memory.
        seed: of the temporal layers' start and of all noise.
        sample_prompts: what sample grids show beside the clip's reconstruction.
        sample_every: steps between sample grids.
        checkpoint_every: steps between checkpoints to resume from.
        wandb: also log to Weights & Biases, offline unless WANDB_MODE says otherwise.
        device: as for `fatezero edit`.
        threads: CPU threads; PyTorch's own choice by default.
    """

    model: str = "picturebook"
    clip: str | None = None
    prompt: str | None = None
    manifest: str | None = None
    root: str | None = None
    categories: tuple[str, ...] = ()
    out: Path = Path("runs/tuned")
    steps: int = 300
    learning_rate: float = 3e-5
    rank: int | None = 160
    convolutions: bool = True
    key_frames: tuple[KeyFrame, ...] | None = None
    norm_scope: Literal["clip", "frame"] | None = None
    class_images: str | None = None
    class_prompt: str | None = None
    class_weight: float = 1.0
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    gradient_checkpointing: bool = False
    seed: int = 0
    sample_prompts: tuple[str, ...] = ()
    sample_every: int = 100
    checkpoint_every: int = 50
    wandb: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "sample_every", "checkpoint_every", "rank", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}: it is at least 1.")
        if not self.learning_rate > 0:
            raise UserError(f"--learning-rate is {self.learning_rate}: it is more than 0.")
        one = (self.clip, self.prompt)
        if None in one if self.manifest is None else one != (None, None):
            raise UserError("Give --clip and --prompt, or --manifest alone.")
        if self.class_prompt is not None and self.class_images is None:
            raise UserError("--class-prompt was given without --class-images, which it describes.")

    @property
    def output(self) -> Path:
        """The folder of checkpoints, logs and sample grids."""
        return self.out

    @property
    def spec(self) -> ClipSpec:
        """The clip. With a manifest it is each clip's in turn."""
        return ClipSpec(
            path=self.clip or "",
            start=self.start,
            frames=self.frames,
            stride=self.stride,
            fps=self.fps,
            height=self.height,
            width=self.width,
            fit=self.fit,
        )


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """What to do with kept inversions.

    Attributes:
        action: list them; verify them, taking damaged ones away; or prune to a bound.
        folder: that was given as --cache.
        cache_gb: what may stay, in units of 1e9 bytes; the least recently used go first.
    """

    action: Literal["ls", "verify", "prune"]
    folder: Path
    cache_gb: float | None = None


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """How the work is shared out, and what it may take.

    Attributes:
        devices: processes on this machine, one device each.
        num_nodes: machines; SLURM or torchrun starts the processes on them.
        piece: longer clips are cut into pieces of this many frames, which processes share; needs norm_scope 'frame'
            and key frames of self, first, middle, last. By default a clip is one process's.
        threads: CPU threads of each process; by default the cores are shared out. Equal numbers give equal bytes.
        cache: folder in which inversions are kept and found again; none are kept by default.
        cache_gb: bound of that folder in units of 1e9 bytes; the least recently used go first.
        disk_gb: what results may take in units of 1e9 bytes; by default what is free.
        dry_run: say what would be done, what it takes and how long, and stop.
    """

    devices: int = 1
    num_nodes: int = 1
    piece: int | None = None
    threads: int | None = None
    cache: Path | None = None
    cache_gb: float | None = None
    disk_gb: float | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes", "piece", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}: it is at least 1.")
        for name in ("cache_gb", "disk_gb"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"--{name.replace('_', '-')} is {value}: a budget is more than nothing.")
        if self.cache_gb is not None and self.cache is None:
            raise UserError("--cache-gb was given without --cache, the folder it bounds.")


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
        scale: measure processes, resuming and the cache on the shipped model in place of all this; of the other
            options, frames and steps count.
    """

    model: str = "medium"
    height: int = 256
    width: int = 256
    frames: int = 4
    steps: int = 5
    repeats: int = 3
    threads: int = 1
    lengths: tuple[int, ...] = (8, 32, 128)
    scale: bool = False
