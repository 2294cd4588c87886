"""What all trainings share: batches that follow from the step's number, checkpoints, and sample grids."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from fatezero.errors import first_line
from fatezero.system.progress import steps_shown
from fatezero.system.publishing import replacing
from fatezero.system.terminal import say

LAST = "last"  # name of the checkpoint that a training resumes from


class Settings(Protocol):
    """Of a training: what this module needs of them.

    Attributes:
        output: folder of checkpoints, logs and sample grids.
        steps: length of the training.
        seed: decides all draws.
        sample_every: steps between sample grids.
    """

    @property
    def output(self) -> Path: ...  # noqa: D102
    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def sample_every(self) -> int: ...  # noqa: D102


class Steps(Dataset[int]):
    """The numbers 0 … count-1: batches are drawn from the step's number, so a resumed training repeats nothing."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class SteppedModule(L.LightningModule):
    """A training whose batches follow from the seed and the step alone."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings

    def train_dataloader(self) -> DataLoader[int]:
        """One element per step."""
        return DataLoader(Steps(self.settings.steps), batch_size=1)

    def rng(self) -> np.random.Generator:
        """The randomness of this step, for numpy."""
        return np.random.default_rng([self.settings.seed, self.global_step])

    def generator(self) -> torch.Generator:
        """The randomness of this step, for torch, on the CPU."""
        return torch.Generator().manual_seed(int(self.rng().integers(2**63)))

    def sample_grid(self) -> npt.NDArray[np.uint8]:
        """A picture of what the model does now: uint8 H,W,3."""
        raise NotImplementedError


class SampleGrids(Callback):
    """Writes the module's sample grid to `output/samples`, and to Weights & Biases, now and then."""

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: object) -> None:
        """Draw a grid every `sample_every` steps."""
        assert isinstance(module, SteppedModule)
        if trainer.is_global_zero and trainer.global_step % module.settings.sample_every == 0:
            folder = module.settings.output / "samples"
            folder.mkdir(parents=True, exist_ok=True)
            with torch.no_grad():
                grid = module.sample_grid()
            Image.fromarray(grid).save(folder / f"{trainer.global_step:07d}.png")
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.log_image("samples", [grid], trainer.global_step)


class StepsShown(Callback):
    """Shows how far the training is, in a terminal or a log file; Lightning's own bar leaves a file empty."""

    def __init__(self) -> None:
        self._shown = steps_shown("training")

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Tell the first process's user of each step."""
        if trainer.is_global_zero:
            self._shown("", trainer.global_step, trainer.max_steps)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and then moves it there: Lightning's own way can leave a torn one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:  # noqa: ARG002
        """Save, whole or not at all.

        Raises:
            UserError: the folder cannot be written, or the disk is full.
        """
        with replacing(path) as partial:
            try:
                torch.save(checkpoint, partial)
            except RuntimeError as error:  # torch's word for an OSError
                raise OSError(first_line(error)) from error


def last_checkpoint(output: Path, **when: Any) -> ModelCheckpoint:
    """Keeps `output/checkpoints/last.ckpt`."""
    return ModelCheckpoint(output / "checkpoints", filename=LAST, enable_version_counter=False, **when)


def last_checkpoint_file(output: Path) -> Path:
    """Where it is."""
    return output / "checkpoints" / f"{LAST}.ckpt"


def steps_done(checkpoint: Path) -> int | None:
    """Steps of the training that a checkpoint holds; None where it does not read as one."""
    if not checkpoint.is_file():
        return None
    try:
        done = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"]
    except Exception:  # a torn file can fail in any way
        return None
    return done if type(done) is int and done >= 0 else None


def set_aside(checkpoint: Path) -> None:
    """Rename a checkpoint that no training can go on from, and say so."""
    names = (checkpoint.with_name(f"{checkpoint.name}.damaged{number}") for number in count(1))
    aside = next(name for name in names if not name.exists())
    checkpoint.rename(aside)
    say(f"{checkpoint} is torn or of another training: it is kept as {aside.name}, and the training starts again.")
