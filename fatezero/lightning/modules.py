"""Inversion and editing as predict steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from lightning import LightningModule

from fatezero.config import RuntimeConfig
from fatezero.errors import UserError
from fatezero.lightning.datamodule import LoadedJob
from fatezero.pipeline import EditResult, FateZero, Inversion, Progress, no_progress
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
        fps: of the source's frames.
        notes: what was done to the source's frames on reading.
    """

    def __init__(
        self, request: EditRequest, result: EditResult | UserError, fps: float = 0.0, notes: tuple[str, ...] = ()
    ) -> None:
        """Hold them together."""
        self.request = request
        self.result = result
        self.fps = fps
        self.notes = notes


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
        """Invert a job's clip."""
        return self.invert(batch)

    def invert(self, batch: LoadedJob) -> InvertedJob:
        """Invert a job's clip; what the user can mend becomes part of the answer."""
        if isinstance(batch.clip, UserError):
            return InvertedJob(batch, batch.clip)
        job = batch.job
        try:
            prompt, first = job.requests[0].source_prompt, job.requests[0].id
            inversion = self.editor.invert(batch.clip.frames, prompt, job.targets, self._progress(first))
        except UserError as error:
            return InvertedJob(batch, error)
        return InvertedJob(batch, inversion)


class EditingModule(InversionModule):
    """Predicts all edits of a job from one inversion."""

    def predict_step(self, batch: LoadedJob, batch_idx: int) -> list[Outcome]:  # type: ignore[override]  # noqa: ARG002
        """Invert a job's clip and edit it once for every request."""
        inverted = self.invert(batch)
        if isinstance(inverted.inversion, UserError):
            return [Outcome(request, inverted.inversion) for request in batch.job.requests]
        clip = cast("Clip", batch.clip)
        outcomes = []
        for request, target in zip(batch.job.requests, batch.job.targets, strict=True):
            result: EditResult | UserError
            try:
                result = self.editor.edit_inverted(inverted.inversion, target, self._progress(request.id))
            except UserError as error:
                result = error
            outcomes.append(Outcome(request, result, clip.fps, clip.notes))
        return outcomes
