"""Inversion and editing as predict steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import torch
from lightning import LightningModule

from fatezero.config import RuntimeConfig
from fatezero.errors import UserError
from fatezero.lightning.datamodule import LoadedJob
from fatezero.pipeline import EditResult, FateZero, Inversion, Progress, Target, no_progress
from fatezero.types import Clip, EditRequest


class InvertedJob:
    """A job's inversion, or the reason why there is none.

    (No dataclass: Lightning takes those apart when it returns predictions, and refuses frozen ones.)
    """

    def __init__(self, loaded: LoadedJob, inversion: Inversion | UserError) -> None:
        """Hold both together."""
        self.loaded = loaded
        self.inversion = inversion


class Outcome:
    """What became of a request.

    Attributes:
        request: what was asked.
        result: the edit, or the sentence that says why there is none.
        clip: the source as it was read.
    """

    def __init__(self, request: EditRequest, result: EditResult | UserError, clip: Clip | UserError) -> None:
        """Hold them together."""
        self.request = request
        self.result = result
        self.clip = clip


class InversionModule(LightningModule):
    """Predicts the inversion of a job's clip.

    The networks are loaded by each process for itself, on its own device; nothing is trained, so they are no
    parameters of this module and no strategy wraps them.
    """

    editor: FateZero

    def __init__(
        self,
        checkpoint: str,
        runtime: RuntimeConfig,
        progress: Callable[[str], Progress] = lambda _: no_progress,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take what to run.

        Args:
            checkpoint: as `FateZero.load` takes it.
            runtime: of the run; the device is the trainer's.
            progress: gives the progress of a request, by its id.
            report: is told what was chosen and what was measured.
        """
        super().__init__()
        self._checkpoint = checkpoint
        self._runtime = runtime
        self._progress = progress
        self._report = report

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Load the networks on this process's device."""
        device = self.trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        runtime = replace(self._runtime, device=device.type)  # type: ignore[arg-type]
        self.editor = FateZero.load(self._checkpoint, runtime, self._report)

    def predict_step(self, batch: LoadedJob, batch_idx: int) -> InvertedJob:  # noqa: ARG002
        """Invert a job's clip; what the user can mend becomes part of the answer."""
        return InvertedJob(batch, self.invert(batch, batch.job.targets))

    def invert(self, batch: LoadedJob, targets: Sequence[Target]) -> Inversion | UserError:
        """Invert a job's clip for some of its targets."""
        if isinstance(batch.clip, UserError):
            return batch.clip
        first = batch.job.requests[0]
        try:
            return self.editor.invert(batch.clip.frames, first.source_prompt, targets, self._progress(first.id))
        except UserError as error:
            return error


class EditingModule(InversionModule):
    """Predicts all edits of a job from one inversion."""

    def predict_step(self, batch: LoadedJob, batch_idx: int) -> list[Outcome]:  # type: ignore[override]  # noqa: ARG002
        """Invert a job's clip and edit it once for every request; one that cannot be planned stops no other."""
        job = batch.job
        refusals = [self._refusal(request, target) for request, target in zip(job.requests, job.targets, strict=True)]
        sound = [target for target, refusal in zip(job.targets, refusals, strict=True) if refusal is None]
        inversion = self.invert(batch, sound) if sound else None
        outcomes = []
        for request, target, refusal in zip(job.requests, job.targets, refusals, strict=True):
            result = refusal or self._edit(inversion, request, target)
            outcomes.append(Outcome(request, result, batch.clip))
        return outcomes

    def _refusal(self, request: EditRequest, target: Target) -> UserError | None:
        try:
            self.editor.plan(request.source_prompt, target)
        except UserError as error:
            return error
        return None

    def _edit(
        self, inversion: Inversion | UserError | None, request: EditRequest, target: Target
    ) -> EditResult | UserError:
        if not isinstance(inversion, Inversion):
            return cast("UserError", inversion)
        try:
            return self.editor.edit_inverted(inversion, target, self._progress(request.id))
        except UserError as error:
            return error
