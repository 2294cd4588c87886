"""Edit requests as Lightning batches: one request each, those that share an inversion in a row."""

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
from fatezero.pipeline import Target
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
class LoadedEdit:
    """One request of a job, with its frames or the reason why there are none."""

    job: ClipJob
    place: int
    clip: Clip | UserError

    @property
    def request(self) -> EditRequest:
        """What was asked."""
        return self.job.requests[self.place]

    @property
    def target(self) -> Target:
        """The same as the pipeline takes it."""
        return self.job.targets[self.place]


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
        groups.setdefault((request.clip, request.source_prompt, target.basis), []).append((request, target))
    return tuple(ClipJob(*zip(*group, strict=True)) for group in groups.values())


def sized(spec: ClipSpec, native: int, unit: int) -> ClipSpec:
    """The clip at a checkpoint's own scale, where the request leaves the size open; one side given decides the other.

    Raises:
        UserError: if the clip cannot be read.
    """
    if spec.height is not None and spec.width is not None:
        return spec
    own = probe(replace(spec, height=None, width=None))
    if spec.height is not None:
        return replace(spec, width=max(round(own.width * spec.height / own.height / unit), 1) * unit)
    if spec.width is not None:
        return replace(spec, height=max(round(own.height * spec.width / own.width / unit), 1) * unit)
    height, width = fitting_size(own.height, own.width, native, unit)
    return replace(spec, height=height, width=width)


class _Edits(Dataset[LoadedEdit]):
    def __init__(self, jobs: Sequence[ClipJob]) -> None:
        self._edits = [(job, place) for job in jobs for place in range(len(job.requests))]
        self._last: tuple[ClipSpec, Clip | UserError] | None = None

    def __len__(self) -> int:
        return len(self._edits)

    def __getitem__(self, index: int) -> LoadedEdit:
        job, place = self._edits[index]
        return LoadedEdit(job, place, self._read(job.requests[place].clip))

    def _read(self, spec: ClipSpec) -> Clip | UserError:
        if self._last is None or self._last[0] != spec:
            try:
                self._last = spec, read_clip(spec)
            except UserError as error:  # a bad clip fails its own edits, not the run
                self._last = spec, error
        return self._last[1]


class EditDataModule(LightningDataModule):
    """Feeds requests to predict, read when their turn comes."""

    def __init__(self, jobs: Sequence[ClipJob]) -> None:
        super().__init__()
        self._jobs = jobs

    def predict_dataloader(self) -> DataLoader[LoadedEdit]:
        """One request at a time."""
        return DataLoader(_Edits(self._jobs), batch_size=None)

    def transfer_batch_to_device(
        self,
        batch: LoadedEdit,
        device: torch.device,  # noqa: ARG002
        dataloader_idx: int,  # noqa: ARG002
    ) -> LoadedEdit:
        """Frames stay bytes on the host; the pipeline moves what it needs."""
        return batch
