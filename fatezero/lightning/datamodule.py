"""Jobs as Lightning batches: one each, those that share an inversion in a row, every process its own."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from fatezero.clips.video import read_clip
from fatezero.errors import UserError, attempt
from fatezero.runs.jobs import EditJob, InversionGroup
from fatezero.runs.scheduling import spread
from fatezero.types import Clip, ClipSpec


@dataclass
class LoadedJob:
    """One job of a group, with its frames.

    Attributes:
        group: whose inversion it shares.
        job: what is to be done.
        clip: the source as it was read, or the reason why there is nothing.
        wanted: False where another process has done it meanwhile.
    """

    group: InversionGroup
    job: EditJob
    clip: Clip | UserError
    wanted: bool = True


class _Jobs(Dataset[LoadedJob | None]):
    """Reads the next clip while the networks work on this one.

    A process without any work gets one None: Lightning knows no empty share.
    """

    def __init__(self, groups: Sequence[InversionGroup], reader: Executor) -> None:
        self._jobs = [(group, job) for group in groups for job in group.jobs]
        self._clips: dict[ClipSpec, Future[Clip | UserError]] = {}
        self._reader = reader

    def __len__(self) -> int:
        return max(1, len(self._jobs))

    def __getitem__(self, index: int) -> LoadedJob | None:
        if not self._jobs:
            return None
        group, job = self._jobs[index]
        specs = dict.fromkeys(following.request.clip for _, following in self._jobs[index : index + 2])
        self._clips = {
            spec: self._clips[spec] if spec in self._clips else self._reader.submit(_read, spec) for spec in specs
        }
        return LoadedJob(group, job, self._clips[job.request.clip].result())


def _read(spec: ClipSpec) -> Clip | UserError:
    return attempt(lambda: read_clip(spec))  # a bad clip fails its own edits, not the run


class JobDataModule(LightningDataModule):
    """Feeds jobs to predict, read when their turn comes; each process takes the share that `spread` gives it."""

    def __init__(self, groups: Sequence[InversionGroup]) -> None:
        super().__init__()
        self._groups = groups
        self._reader: ThreadPoolExecutor | None = None

    def predict_dataloader(self) -> DataLoader[LoadedJob | None]:
        """One job at a time."""
        trainer = self.trainer
        workers, place = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        self._reader = ThreadPoolExecutor(1, "reader")
        return DataLoader(_Jobs(spread(self._groups, workers)[place], self._reader), batch_size=None)

    def teardown(self, stage: str) -> None:  # noqa: ARG002
        """Let the thread that reads go."""
        if self._reader is not None:
            self._reader.shutdown()

    def transfer_batch_to_device(
        self,
        batch: LoadedJob | None,
        device: torch.device,  # noqa: ARG002
        dataloader_idx: int,  # noqa: ARG002
    ) -> LoadedJob | None:
        """Frames stay bytes on the host; the pipeline moves what it needs."""
        return batch
