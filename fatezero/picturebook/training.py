"""What the three trainings share: schedule, averaging, checkpoints, logs and sample grids, by Lightning."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from PIL import Image
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

from fatezero.errors import UserError
from fatezero.picturebook.pool import Shard, read_shard, render_shard


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What every training needs to know.

    Attributes:
        output: folder for checkpoints, logs, sample grids and the exported weights.
        pool: folder of rendered pictures; missing shards are rendered into it.
        series: names the endless series of pictures; the painter's and the judge's differ.
        shards: how many shards of the series are used.
        steps: length of the learning-rate schedule, in optimiser steps.
        batch: pictures a step.
        learning_rate: its peak.
        warmup: steps of linear warm-up.
        weight_decay: AdamW's.
        ema_decay: decay of the averaged weights, a step.
        seed: decides the order of pictures, crops and noise.
        init_from: folder of exported weights to start from, or None for random weights.
        resume: continue from the last checkpoint in `output`, if there is one.
        sample_every: steps between sample grids.
        checkpoint_minutes: minutes between checkpoints.
        wandb: also log to Weights & Biases, offline unless WANDB_MODE says otherwise.
        threads: CPU threads; one pinned to a core is steady beside other work.
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

    def __post_init__(self) -> None:
        """Refuse numbers that train nothing, and folders without weights."""
        for name in ("shards", "steps", "batch", "warmup", "sample_every", "threads"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it is at least 1.")
        if self.init_from is not None and not self.init_from.is_dir():
            raise UserError(f"init_from: there is no folder {self.init_from}; name one with exported weights.")


class Steps(Dataset[int]):
    """The numbers 0 … count-1: batches are drawn from the step's number, so a resumed training repeats nothing."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class PicturebookModule(L.LightningModule):
    """A training whose batches follow from the seed and the step alone."""

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__()
        self.config = config

    def train_dataloader(self) -> DataLoader[int]:
        """One element a step."""
        return DataLoader(Steps(self.config.steps), batch_size=1)

    def rng(self) -> np.random.Generator:
        """The randomness of this step."""
        return np.random.default_rng([self.config.seed, self.global_step])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with linear warm-up and cosine decay to zero at the last step."""
        config = self.config
        optimizer = AdamW(self.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay)

        def scale(step: int) -> float:
            ramp = min(1.0, (step + 1) / config.warmup)
            return ramp * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, scale), "interval": "step"}}

    def sample_grid(self) -> npt.NDArray[np.uint8]:
        """A picture of what the model does now: uint8 H,W,3."""
        raise NotImplementedError


class SampleGrids(Callback):
    """Writes the module's sample grid to `output/samples`, and to Weights & Biases, now and then."""

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: object) -> None:
        """Draw a grid every `sample_every` steps."""
        assert isinstance(module, PicturebookModule)
        if trainer.global_step % module.config.sample_every == 0:
            folder = module.config.output / "samples"
            folder.mkdir(parents=True, exist_ok=True)
            with torch.no_grad():
                grid = module.sample_grid()
            Image.fromarray(grid).save(folder / f"{trainer.global_step:07d}.png")
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.log_image("samples", [grid], trainer.global_step)


def read_pool(config: TrainingConfig) -> list[Shard]:
    """The shards a training uses, rendered first where missing."""
    return [read_shard(render_shard(config.pool, config.series, number)) for number in range(config.shards)]


def last_checkpoint(config: TrainingConfig, **when: Any) -> ModelCheckpoint:
    """Keeps `output/checkpoints/last.ckpt`."""
    return ModelCheckpoint(config.output / "checkpoints", filename="last", enable_version_counter=False, **when)


def fit(module: PicturebookModule) -> None:
    """Train to the end of the schedule; afterwards the module holds the averaged weights."""
    config = module.config
    torch.set_num_threads(config.threads)
    L.seed_everything(config.seed, verbose=False)
    loggers: list[Logger] = [CSVLogger(config.output, name="log", flush_logs_every_n_steps=50)]
    if config.wandb:
        mode = os.environ.get("WANDB_MODE", "offline")  # given explicitly: W&B reads its environment once a process
        loggers.append(WandbLogger(project="picturebook", name=config.output.name, save_dir=config.output, mode=mode))
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=config.steps,
        max_epochs=-1,  # a finished training may be resumed with more steps
        logger=loggers,
        log_every_n_steps=10,
        gradient_clip_val=1.0,
        enable_model_summary=False,
        callbacks=[
            EMAWeightAveraging(decay=config.ema_decay),
            last_checkpoint(config, train_time_interval=timedelta(minutes=config.checkpoint_minutes)),
            last_checkpoint(config, every_n_epochs=1, save_on_train_epoch_end=True),
            LearningRateMonitor("step"),
            SampleGrids(),
        ],
    )
    last = config.output / "checkpoints" / "last.ckpt"
    trainer.fit(module, ckpt_path=last if config.resume and last.exists() else None, weights_only=False)


def to_images(pixels: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Float N,3,H,W in -1..1 to uint8 N,H,W,3."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def to_pixels(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Uint8 N,H,W,3 to float N,3,H,W in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
