"""Writes every prediction as soon as it is there, beside the networks' work on the next."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from fatezero.data.remote import RemoteRun
from fatezero.errors import UserError
from fatezero.lightning.datamodule import LoadedTask
from fatezero.lightning.modules import InversionModule, Outcome, Workshop
from fatezero.output import save_result
from fatezero.pipeline import EditResult
from fatezero.runs import clear_failure, is_done, record_failure, working_on
from fatezero.tasks import Task
from fatezero.types import Clip


class ResultWriter(BasePredictionWriter):
    """Saves each edit in its task's folder, and the sentence of each failure beside it.

    While a task is at work its folder is locked, so that two runs on the same folder do nothing twice.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the thread that writes, in the process whose results it writes."""
        super().setup(trainer, pl_module, stage)
        self._writer = ThreadPoolExecutor(1, "writer")
        self._saving: Future[None] | None = None
        self._lock = ExitStack()

    def on_predict_batch_start(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        batch: LoadedTask | None,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Take the task, unless another process has done it by now."""
        self._lock = ExitStack()
        if batch is None:
            return
        try:
            self._lock.enter_context(working_on(batch.task))
        except UserError as error:
            batch.clip = error
        batch.wanted = not is_done(batch.task)

    def write_on_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,
        prediction: Outcome[EditResult] | None,
        batch_indices: Sequence[int] | None,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int,  # noqa: ARG002
    ) -> None:
        """Save the outcome of one task while the next is worked on."""
        self._settle()
        module = cast("InversionModule", pl_module)
        self._saving = self._writer.submit(_publish, prediction, module.workshop, self._lock)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Wait for the last one, and for the other processes: then the run can be counted."""
        self._settle()
        trainer.strategy.barrier("results")

    def _settle(self) -> None:
        if self._saving is not None:
            self._saving.result()
            self._saving = None


class FailureLog(Callback):
    """Keeps the sentences of failed inversions in a folder that all processes share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_predict_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,
        batch: LoadedTask | None,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Keep a failure."""
        if batch is not None and isinstance(outputs.result, UserError):
            (self._folder / batch.task.request.id).write_text(str(outputs.result), encoding="utf-8")

    def read(self) -> dict[str, str]:
        """The sentences by request id."""
        return {file.name: file.read_text(encoding="utf-8") for file in sorted(self._folder.iterdir())}


def _publish(outcome: Outcome[EditResult] | None, workshop: Workshop, lock: ExitStack) -> None:
    """Write a result or a failure, and let go of the task."""
    with lock:
        if outcome is None:
            return
        try:
            if isinstance(outcome.result, UserError):
                raise outcome.result
            if outcome.task.piece is None:
                _save(outcome.task, outcome, outcome.result, workshop)
            else:
                _keep_piece(outcome, outcome.result, workshop)
        except UserError as error:
            workshop.say(f"{outcome.task.name}: {error}")
            record_failure(outcome.task, str(error))


def _save(task: Task, outcome: Outcome[EditResult], result: EditResult, workshop: Workshop) -> None:
    clip = cast("Clip", outcome.clip)
    save_result(task, result, clip, outcome.editor)
    _copy_away(task.folder, workshop.remote)
    clear_failure(task)
    workshop.say(f"{task.name}: {' '.join(clip.notes)}")


def _keep_piece(outcome: Outcome[EditResult], result: EditResult, workshop: Workshop) -> None:
    """Put a piece away; whoever brings the last one puts all together."""
    task = outcome.task
    assert task.piece is not None
    task.pieces.keep(task.piece, result)
    whole = replace(task, piece=None)
    with working_on(whole):
        if not is_done(whole) and all(map(task.pieces.holds, task.piece.all)):
            _save(whole, outcome, task.pieces.assemble(task.piece.all, result), workshop)
            task.pieces.discard()


def _copy_away(folder: Path, remote: RemoteRun | None) -> None:
    """Copy a result to its store; what did not arrive there whole is not done here either."""
    if remote is None:
        return
    try:
        remote.publish(folder)
    except UserError:
        shutil.rmtree(folder)
        raise
