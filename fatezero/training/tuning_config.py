"""How a checkpoint is tuned on a clip. Light: importing this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Literal

from fatezero.config import MAX_THREADS, MAX_WIDTH, KeyFrame, MethodConfig, check_number
from fatezero.data.timecode import check_count_or_time
from fatezero.errors import UserError
from fatezero.types import ClipSpec, FrameSelection

MAX_TUNING_STEPS = 10_000_000
MAX_SEED = 2**63 - 1
MAX_CLASS_WEIGHT = 1e6
UNET_RATE, LORA_RATE, LORA_RANK = 3e-5, 1e-4, 16


@dataclass(frozen=True, kw_only=True)
class TuningConfig(FrameSelection):
    """How a checkpoint is tuned on one clip.

    A UNet as in Tune-A-Video (Wu et al., ICCV 2023, as FateZero's authors do it); a video transformer learns a LoRA.

    Attributes:
        clip: a video file or a folder of images.
        prompt: describes the clip.
        manifest: tune one model for each clip that a manifest's edits start from, in place of clip and prompt; then
            `fatezero edit --manifest … --model '<out>/{clip}/model'` uses them.
        root: folder that the manifest's clip paths start from; the manifest's own by default.
        categories: only the manifest's edits of these categories; all by default.
        out: folder of checkpoints, logs and sample grids; the tuned checkpoint is `<out>/model`. With a manifest,
            each clip has a folder of its name in it.
        steps: optimiser steps, one clip each.
        learning_rate: AdamW's, constant; by default 3e-5 of a UNet, 1e-4 of a transformer's LoRA.
        lora_rank: rank of a transformer's LoRA; 16 by default. UNets learn none.
        rank: rank of a UNet's temporal convolutions; null for full ones.
        convolutions: of a UNet, train the temporal convolutions beside temporal attention and the queries.
        key_frames: of a UNet, key frames of spatio-temporal attention; by default the checkpoint's recommendation,
            else the paper's.
        norm_scope: scope of the residual blocks' GroupNorms; likewise.
        class_images: folder of images of the object's kind that the model should not forget; none by default.
        class_prompt: describes them; the clip's prompt by default.
        class_weight: weight of their loss.
        precision: Lightning's: full, or mixed with half.
        gradient_checkpointing: trade time for memory.
        seed: seed of the temporal layers' start and of all noise.
        sample_prompts: what sample grids show beside the clip's reconstruction.
        sample_every: steps between sample grids.
        checkpoint_every: steps between checkpoints to resume from.
        wandb: also log to Weights & Biases, offline unless WANDB_MODE says otherwise.
        device: as for `fatezero edit`.
        threads: CPU threads; PyTorch's own choice by default.
    """

    clip: str | None = None
    prompt: str | None = None
    manifest: str | None = None
    root: str | None = None
    categories: tuple[str, ...] = ()
    out: Path = Path("runs/tuned")
    steps: int = 300
    learning_rate: float | None = None
    lora_rank: int | None = None
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
        for name in ("steps", "sample_every", "checkpoint_every"):
            check_number(f"--{name.replace('_', '-')}", getattr(self, name), 1, MAX_TUNING_STEPS)
        check_count_or_time("--start", self.start)
        if self.frames is not None:
            check_count_or_time("--frames", self.frames)
        check_number("--rank", self.rank, 1, MAX_WIDTH)
        check_number("--lora-rank", self.lora_rank, 1, MAX_WIDTH)
        check_number("--threads", self.threads, 1, MAX_THREADS)
        check_number("--seed", self.seed, 0, MAX_SEED)
        if self.learning_rate is not None and not 0 < self.learning_rate < inf:
            raise UserError(f"--learning-rate is {self.learning_rate}: it is more than 0, and finite.")
        check_number("--class-weight", self.class_weight, 0, MAX_CLASS_WEIGHT)
        MethodConfig(key_frames=self.key_frames or ())  # has bounds of its own
        one = (self.clip, self.prompt)
        if None in one if self.manifest is None else one != (None, None):
            raise UserError("Give --clip and --prompt, or --manifest alone.")
        if self.class_prompt is not None and self.class_images is None:
            raise UserError("--class-prompt was given without --class-images, which it describes.")

    def for_unet(self) -> TuningConfig:
        """The same with the defaults of a UNet.

        Raises:
            UserError: for what only a transformer has.
        """
        if self.lora_rank is not None:
            raise UserError("--lora-rank is for video transformers: a UNet's own layers are tuned; leave it out.")
        return replace(self, learning_rate=self.learning_rate or UNET_RATE)

    def for_transformer(self) -> TuningConfig:
        """The same with the defaults of a transformer.

        Raises:
            UserError: for what only a UNet has.
        """
        of_unets = ("rank", "convolutions", "key_frames", "norm_scope")
        for one in fields(self):
            if one.name in of_unets and getattr(self, one.name) != one.default:
                raise UserError(
                    f"--{one.name.replace('_', '-')} is for UNets: of a video transformer a LoRA is tuned, of "
                    "--lora-rank; leave it out."
                )
        rate, rank = self.learning_rate or LORA_RATE, self.lora_rank or LORA_RANK
        return replace(self, learning_rate=rate, lora_rank=rank)

    @property
    def output(self) -> Path:
        """The folder of checkpoints, logs and sample grids."""
        return self.out

    @property
    def spec(self) -> ClipSpec:
        """The clip. With a manifest it is each clip's in turn."""
        return ClipSpec(path=self.clip or "", **self.selection)
