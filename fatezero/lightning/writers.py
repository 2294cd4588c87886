"""Writes every prediction as soon as it is there, beside the networks' work on the next."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from fatezero.data.files import json_digest
from fatezero.data.layout import result_name
from fatezero.data.remote import RemoteRun
from fatezero.errors import UserError, attempt, unwrap
from fatezero.lightning.datamodule import LoadedJob
from fatezero.lightning.predict_steps import EditorFactory, InversionModule, Prediction
from fatezero.results import EditResult
from fatezero.runs.jobs import EditJob
from fatezero.runs.locks import at_work, working_on
from fatezero.runs.saving import save_result
from fatezero.runs.state import clear_failure, is_done, record_failure
from fatezero.system.stopping import Stopped


class ResultWriter(BasePredictionWriter):
    """Saves each edit in its job's folder, and the sentence of each failure beside it.

    While a job is being done its folder is locked, so that two runs on the same folder do nothing twice.
    """

    def __init__(self, run: Path) -> None:
        super().__init__(write_interval="batch")
        self._run = run
        self._lock, self._present = ExitStack(), ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the thread that writes, in the process whose results it writes."""
        super().setup(trainer, pl_module, stage)
        self._writer = ThreadPoolExecutor(1, "writer")
        self._saving: Future[None] | None = None
        Finalize(None, self._let_go, exitpriority=1)  # a process that is told to stop calls no hook of Lightning's
        if trainer.world_size > 1:
            group = json_digest([os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT")], 4)
            self._present.enter_context(at_work(self._run, group, trainer.global_rank, trainer.world_size))

    def on_predict_batch_start(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        batch: LoadedJob | None,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Take the job, unless another process has done it by now."""
        self._lock = ExitStack()
        if batch is None:
            return
        locked = attempt(lambda: self._lock.enter_context(working_on(batch.job)))
        if isinstance(locked, UserError):
            batch.clip = locked
        batch.wanted = not is_done(batch.job)

    def write_on_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,
        prediction: Prediction[EditResult] | None,
        batch_indices: Sequence[int] | None,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int,  # noqa: ARG002
    ) -> None:
        """Save the prediction of one job while the next is worked on."""
        self._settle()
        module = cast("InversionModule", pl_module)
        self._saving = self._writer.submit(_publish, prediction, module.factory, self._lock.pop_all())

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Wait for the last one, and the first process for the others: then the run can be counted."""
        self._settle()
        self._writer.shutdown()
        self._present.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Let go of the job in progress."""
        self._let_go()

    def _let_go(self) -> None:
        """Hold nothing any more, and wait for nobody."""
        self._lock.close()
        stopped = Stopped(signal.SIGTERM)
        self._present.__exit__(type(stopped), stopped, None)

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
        batch: LoadedJob | None,
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Keep a failure."""
        if batch is not None and isinstance(outputs.result, UserError):
            values = {"id": batch.job.request.id, "reason": str(outputs.result)}
            (self._folder / result_name(values["id"])).write_text(json.dumps(values), encoding="utf-8")

    def read(self) -> dict[str, str]:
        """The sentences by request id."""
        kept = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(self._folder.iterdir())]
        return {values["id"]: values["reason"] for values in kept}


def _publish(prediction: Prediction[EditResult] | None, factory: EditorFactory, lock: ExitStack) -> None:
    """Write a result or a failure, and let go of the job."""
    with lock:
        if prediction is None:
            return
        job = prediction.job
        said = attempt(lambda: _save(prediction, factory))
        if isinstance(said, UserError):  # its sentence is told when all is done, from where it is kept
            unkept = attempt(partial(record_failure, job, said))
            said = f"{said} {unkept}" if unkept else ""
        if said:
            factory.say(f"{job.name}: {said}")


def _save(prediction: Prediction[EditResult], factory: EditorFactory) -> str:
    """Write a result and say what was done to its clip; of a segment nothing is said unless it was the last."""
    if prediction.job.segment is None:
        return _save_whole(prediction.job, prediction, unwrap(prediction.result), factory)
    return _keep_segment(prediction, unwrap(prediction.result), factory)


def _save_whole(job: EditJob, prediction: Prediction[EditResult], result: EditResult, factory: EditorFactory) -> str:
    reader, *notes = save_result(job, result, unwrap(prediction.clip), unwrap(prediction.editor))
    factory.say_detail(f"{job.name}: {reader}")
    _copy_away(job.folder, factory.remote)
    clear_failure(job)
    return " ".join(notes)


def _keep_segment(prediction: Prediction[EditResult], result: EditResult, factory: EditorFactory) -> str:
    """Put a segment away; whoever brings the last one puts all together."""
    job = prediction.job
    assert job.segment is not None
    whole = replace(job, segment=None)
    with working_on(whole):
        if is_done(whole):  # by who brought the others while this one was made
            return ""
        job.segments.keep(job.segment, result)
        if not all(map(job.segments.holds, job.segment.all)):
            return ""
        said = _save_whole(whole, prediction, job.segments.assemble(job.segment.all, result), factory)
        job.segments.discard()
    return said


def _copy_away(folder: Path, remote: RemoteRun | None) -> None:
    """Copy a result to its store; what did not arrive there whole is not done here either."""
    if remote is None:
        return
    try:
        remote.publish(folder)
    except UserError:
        shutil.rmtree(folder)
        raise
