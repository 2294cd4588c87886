"""What the trainings of Picturebook's models share, by Lightning: schedule, averaging, checkpoints, logs, samples."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Literal

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fatezero.diffusion.number_formats import slow_format
from fatezero.errors import UserError
from fatezero.picturebook.models.pool import Shard, read_shard, render_shard
from fatezero.system.stopping import end_children
from fatezero.training.stepped import (
    SampleGrids,
    SteppedModule,
    StepsShown,
    WholeCheckpoints,
    last_checkpoint,
    last_checkpoint_file,
)

Accelerator = Literal["cpu", "gpu", "auto"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What every training needs to know.

    Attributes:
        output: folder for checkpoints, logs, sample grids and the exported weights.
        pool: folder of rendered pictures; missing shards are rendered into it.
        series: name of the endless series of pictures; the painter's and the judge's differ.
        shards: number of shards of the series to use.
        steps: length of the learning-rate schedule, in optimiser steps.
        batch: pictures per step.
        learning_rate: peak learning rate.
        warmup: steps of linear warm-up.
        weight_decay: weight decay of AdamW.
        ema_decay: decay of the averaged weights, per step.
        seed: decides the order of pictures, crops and noise.
        init_from: folder of exported weights to start from, or None for random weights.
        resume: continue from the last checkpoint in `output`, if there is one.
        sample_every: steps between sample grids.
        checkpoint_minutes: minutes between checkpoints.
        wandb: also log to Weights & Biases, offline unless WANDB_MODE says otherwise.
        threads: CPU threads; one, pinned to a core, is steady beside other work.
        minutes: stop after this long, to be resumed; None trains to the last step.
        accelerator: what the training runs on.
        bf16: let the networks work in bfloat16, weights stay fp32; None where the hardware multiplies in it.
    """

    output: Path
    pool: Path
    series: int = 1
    shards: int = 20
    steps: int = 10_000
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    seed: int = 0
    init_from: Path | None = None
    resume: bool = True
    sample_every: int = 1000
    checkpoint_minutes: float = 5
    wandb: bool = False
    threads: int = 1
    minutes: float | None = None
    accelerator: Accelerator = "cpu"
    bf16: bool | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that train nothing, and folders without weights."""
        for name in ("shards", "steps", "batch", "warmup", "sample_every", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it is at least 1.")
        if self.init_from is not None and not self.init_from.is_dir():
            raise UserError(f"init_from: there is no folder {self.init_from}; name one with exported weights.")


@dataclass(frozen=True, kw_only=True)
class SharedTrainingConfig(TrainingConfig):
    """What a training needs to know that several processes can share.

    Attributes:
        processes: how many processes on this machine share each step's batch; fastest with each pinned to a core of
            its own.
    """

    processes: int = 1

    def __post_init__(self) -> None:
        """Refuse shares that are not equal."""
        super().__post_init__()
        self.check_shares(batch=self.batch)

    def check_shares(self, **counts: int) -> None:
        """Refuse counts per step that the processes cannot share out equally."""
        for name, count in counts.items():
            if self.processes < 1 or count % self.processes:
                raise UserError(f"processes is {self.processes}: a step's {name} of {count} cannot be shared equally.")


class PicturebookModule(SteppedModule):
    """A training of one of Picturebook's models."""

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__(config)
        self.config = config
        torch.manual_seed(config.seed)  # of the random weights that the training starts from

    def autocast(self) -> torch.autocast:
        """What networks work in while it is entered: bfloat16 where the configuration, or the hardware, says so."""
        chosen = self.config.bf16
        enabled = not slow_format(torch.bfloat16, self.device) if chosen is None else chosen
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def on_fit_start(self) -> None:
        """Take the configured number of threads, in whatever process the training runs."""
        torch.set_num_threads(self.config.threads)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with linear warm-up and cosine decay to zero at the last step."""
        config = self.config
        optimizer = AdamW(
            self.parameters(),
            config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=True,
        )

        def scale(step: int) -> float:
            ramp = min(1.0, (step + 1) / config.warmup)
            return ramp * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, scale), "interval": "step"}}


class SharedModule(PicturebookModule):
    """A training whose steps several processes can share."""

    config: SharedTrainingConfig

    @property
    def share(self) -> slice:
        """Which of a step's pictures or clips are this process's."""
        return slice(self.global_rank, None, self.config.processes)


class StopAfter(Callback):
    """Ends a run of the training, not the training: the next run goes on."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop once the time is up."""
        trainer.should_stop = trainer.should_stop or time.monotonic() > self.end


def read_pool(config: TrainingConfig) -> list[Shard]:
    """The shards a training uses, rendered first where missing."""
    return [read_shard(render_shard(config.pool, config.series, number)) for number in range(config.shards)]


def fit(module: PicturebookModule, processes: int = 1) -> None:
    """Train to the end of the schedule, or of the run's time; afterwards the module holds the averaged weights.

    Args:
        module: the training.
        processes: number of processes that share each step's batch, which the module deals out; their gradients are
            averaged.
    """
    config = module.config
    loggers: list[Logger] = [CSVLogger(config.output, name="log", flush_logs_every_n_steps=50)]
    if config.wandb:
        mode = os.environ.get("WANDB_MODE", "offline")  # given explicitly: W&B reads its environment once per process
        loggers.append(WandbLogger(project="picturebook", name=config.output.name, save_dir=config.output, mode=mode))
    trainer = L.Trainer(
        accelerator=config.accelerator,
        devices=processes,
        strategy=DDPStrategy(process_group_backend="gloo", start_method="spawn") if processes > 1 else "auto",
        use_distributed_sampler=False,  # a step's number is the same in every process
        max_steps=config.steps,
        max_epochs=-1,  # a finished training may be resumed with more steps
        logger=loggers,
        log_every_n_steps=10,
        gradient_clip_val=1.0,
        enable_model_summary=False,
        enable_progress_bar=False,
        plugins=[WholeCheckpoints()],
        callbacks=[
            WeightAveraging(multi_avg_fn=partial(_average, config.ema_decay)),
            last_checkpoint(config.output, train_time_interval=timedelta(minutes=config.checkpoint_minutes)),
            last_checkpoint(config.output, every_n_epochs=1, save_on_train_epoch_end=True),
            LearningRateMonitor("step"),
            SampleGrids(),
            StepsShown(),
            *([StopAfter(config.minutes)] if config.minutes is not None else []),
        ],
    )
    last = last_checkpoint_file(config.output)
    others = multiprocessing.active_children()
    try:
        trainer.fit(module, ckpt_path=last if config.resume and last.exists() else None, weights_only=True)
    finally:
        end_children(spared=others)  # who would train on, without the one that was stopped


def _average(
    decay: float, averaged: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor | int
) -> None:
    """Torch's exponential moving average, as a function that can be sent to another process.

    Of few steps it averages the later ones: the random weights at the start would count for a thousand steps.
    """
    get_ema_multi_avg_fn(min(decay, (1 + int(count)) / (10 + int(count))))(averaged, current, count)


def to_images(pixels: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Float N,3,H,W in -1..1 to uint8 N,H,W,3."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def to_pixels(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Uint8 N,H,W,3 to float N,3,H,W in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
