"""Work shared among processes through Lightning's predict, which never repeats a piece of it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Generic, Literal, TypeVar

import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

T = TypeVar("T")


class _Worker(LightningModule, Generic[T]):
    """Does the work whose numbers it is given, after a start in its own process."""

    def __init__(self, work: Sequence[T], start: Callable[[], Callable[[T], None]]) -> None:
        super().__init__()
        self._work = work
        self._start = start

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Start in the process that will do the work."""
        self._do = self._start()

    def predict_step(self, batch: list[torch.Tensor]) -> None:
        """Do one piece of work."""
        self._do(self._work[int(batch[0])])


def share(
    work: Sequence[T], start: Callable[[], Callable[[T], None]], processes: int, device: Literal["cpu", "cuda"]
) -> None:
    """Share work among at most so many processes.

    Predict shards without repeating: of three pieces two processes get 0 and 2, and 1.

    Args:
        work: what to do, such that no piece depends on another.
        start: called once in each process, which it must be possible to send it to; returns what does one piece.
        processes: how many, at most.
        device: where the work is done.
    """
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators"):
        logging.getLogger(name).setLevel(logging.WARNING)
    trainer = Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=min(processes, len(work)),  # more processes than pieces of work are an error in Lightning
        strategy="ddp_spawn",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    numbers = DataLoader(TensorDataset(torch.arange(len(work))))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.predict(_Worker(work, start), numbers, return_predictions=False)
