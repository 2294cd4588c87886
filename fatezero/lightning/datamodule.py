"""Edit requests as Lightning batches: one batch is one clip with all edits that share its inversion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from fatezero.config import MethodConfig
from fatezero.data.video import probe, read_clip
from fatezero.diffusion.checkpoint import fitting_size
from fatezero.errors import UserError
from fatezero.pipeline import Target, method_of_inversion
from fatezero.settings import with_settings
from fatezero.types import Clip, ClipSpec, EditRequest


@dataclass(frozen=True)
class ClipJob:
    """Edits of one clip that share an inversion.

    Attributes:
        requests: what was asked.
        targets: the same as the pipeline takes it, in the same order.
    """

    requests: tuple[EditRequest, ...]
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class LoadedJob:
    """A job with its frames, or the reason why there are none."""

    job: ClipJob
    clip: Clip | UserError


def group_requests(requests: Sequence[EditRequest], method: MethodConfig) -> tuple[ClipJob, ...]:
    """Put requests together that can share an inversion, in order of first appearance.

    Raises:
        UserError: for settings that a request has wrong.
    """
    groups: dict[object, list[tuple[EditRequest, Target]]] = {}
    for request in requests:
        own = with_settings(method, request.settings, f"request {request.id}")
        target = Target(
            prompt=request.target_prompt,
            edited_words=request.edited_words,
            target_words=request.target_words,
            seed=request.seed,
            method=own,
        )
        drawn = request.seed if own.posterior == "sample" else None
        key = (request.clip, request.source_prompt, repr(method_of_inversion(own)), drawn)
        groups.setdefault(key, []).append((request, target))
    return tuple(ClipJob(*zip(*group, strict=True)) for group in groups.values())


def sized(spec: ClipSpec, native: int, unit: int) -> ClipSpec:
    """The clip at a checkpoint's own scale, where the request leaves the size open.

    Raises:
        UserError: if the clip cannot be read.
    """
    if spec.height is not None or spec.width is not None:
        return spec
    info = probe(spec)
    height, width = fitting_size(info.height, info.width, native, unit)
    return replace(spec, height=height, width=width)


class _Jobs(Dataset[LoadedJob]):
    def __init__(self, jobs: Sequence[ClipJob]) -> None:
        self._jobs = jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def __getitem__(self, index: int) -> LoadedJob:
        job = self._jobs[index]
        try:
            return LoadedJob(job, read_clip(job.requests[0].clip))
        except UserError as error:  # a bad clip fails its own edits, not the run
            return LoadedJob(job, error)


class EditDataModule(LightningDataModule):
    """Feeds jobs to predict, read when their turn comes."""

    def __init__(self, jobs: Sequence[ClipJob]) -> None:
        super().__init__()
        self._jobs = jobs

    def predict_dataloader(self) -> DataLoader[LoadedJob]:
        """One job at a time."""
        return DataLoader(_Jobs(self._jobs), batch_size=None)

    def transfer_batch_to_device(
        self,
        batch: LoadedJob,
        device: torch.device,  # noqa: ARG002
        dataloader_idx: int,  # noqa: ARG002
    ) -> LoadedJob:
        """Frames stay bytes on the host; the pipeline moves what it needs."""
        return batch
