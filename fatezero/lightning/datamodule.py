"""Tasks as Lightning batches: one each, those that share an inversion in a row, every process its own."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from fatezero.data.video import read_clip
from fatezero.errors import UserError
from fatezero.tasks import Job, Task, spread
from fatezero.types import Clip, ClipSpec


@dataclass
class LoadedTask:
    """One task of a job, with its frames.

    Attributes:
        job: whose inversion it shares.
        task: what is to be done.
        clip: the source as it was read, or the reason why there is nothing.
        wanted: False where another process has done it meanwhile.
    """

    job: Job
    task: Task
    clip: Clip | UserError
    wanted: bool = True


class _Tasks(Dataset[LoadedTask | None]):
    """Reads the next clip while the networks work on this one.

    A process without any work gets one None: Lightning knows no empty share.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._tasks = [(job, task) for job in jobs for task in job.tasks]
        self._clips: dict[ClipSpec, Future[Clip | UserError]] = {}
        self._reader = ThreadPoolExecutor(1, "reader")

    def __len__(self) -> int:
        return max(1, len(self._tasks))

    def __getitem__(self, index: int) -> LoadedTask | None:
        if not self._tasks:
            return None
        job, task = self._tasks[index]
        specs = [following.request.clip for _, following in self._tasks[index : index + 2]]
        self._clips = {
            spec: self._clips[spec] if spec in self._clips else self._reader.submit(_read, spec) for spec in specs
        }
        return LoadedTask(job, task, self._clips[task.request.clip].result())


def _read(spec: ClipSpec) -> Clip | UserError:
    try:
        return read_clip(spec)
    except UserError as error:  # a bad clip fails its own edits, not the run
        return error


class TaskDataModule(LightningDataModule):
    """Feeds tasks to predict, read when their turn comes; each process takes the share that `spread` gives it."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__()
        self._jobs = jobs

    def predict_dataloader(self) -> DataLoader[LoadedTask | None]:
        """One task at a time."""
        trainer = self.trainer
        workers, place = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        return DataLoader(_Tasks(spread(self._jobs, workers)[place]), batch_size=None)

    def transfer_batch_to_device(
        self,
        batch: LoadedTask | None,
        device: torch.device,  # noqa: ARG002
        dataloader_idx: int,  # noqa: ARG002
    ) -> LoadedTask | None:
        """Frames stay bytes on the host; the pipeline moves what it needs."""
        return batch
