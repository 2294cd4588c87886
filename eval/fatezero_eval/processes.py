"""Evaluation in several processes through Lightning's predict: the one place here that knows Lightning."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from fatezero_eval.config import Scoring
from fatezero_eval.evaluate import Task, run_task


class _Scorer(LightningModule):
    """Scores the tasks whose numbers it is given; each process loads its own models."""

    def __init__(self, tasks: Sequence[Task], config: Scoring) -> None:
        super().__init__()
        self._tasks = tasks
        self._config = config
        self._models: Any = None

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Load the models in the process that will use them."""
        from fatezero_eval.models import load_models, selected  # noqa: PLC0415

        self._models = load_models(self._config, selected(self._config))

    def predict_step(self, batch: list[torch.Tensor]) -> None:
        """Score one task; what goes wrong with it is kept in its file."""
        run_task(self._tasks[int(batch[0])], self._config, self._models)


def run_in_processes(tasks: Sequence[Task], config: Scoring) -> None:
    """Share the tasks among at most `config.processes` processes.

    Predict shards without repeating (three tasks on two processes: 0, 2 and 1), and every process writes only
    the files of its own tasks, so the result does not depend on how many there are.
    """
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators"):
        logging.getLogger(name).setLevel(logging.WARNING)
    trainer = Trainer(
        accelerator="gpu" if config.device == "cuda" else "cpu",
        devices=min(config.processes, len(tasks)),  # fewer items than processes is an error in Lightning
        strategy="ddp_spawn",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    numbers = DataLoader(TensorDataset(torch.arange(len(tasks))))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.predict(_Scorer(tasks, config), numbers, return_predictions=False)
