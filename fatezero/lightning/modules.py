"""Inversion and editing as predict steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from lightning import LightningModule

from fatezero.config import RuntimeConfig
from fatezero.errors import UserError
from fatezero.lightning.datamodule import ClipJob, LoadedEdit
from fatezero.pipeline import EditResult, FateZero, Inversion, Progress, no_progress
from fatezero.types import Clip, EditRequest

Made = TypeVar("Made")


class Outcome(Generic[Made]):
    """What became of a request.

    No dataclass: Lightning takes those apart when it returns predictions, and refuses frozen ones.

    Attributes:
        request: what was asked.
        result: what was made, or the sentence that says why there is nothing.
        clip: the source as it was read.
    """

    def __init__(self, request: EditRequest, result: Made | UserError, clip: Clip | UserError) -> None:
        """Hold them together."""
        self.request = request
        self.result = result
        self.clip = clip


class InversionModule(LightningModule):
    """Predicts the inversion behind a request; requests of one job in a row share it.

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
        self._last: tuple[ClipJob, Inversion | UserError] | None = None

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Load the networks on this process's device."""
        device = self.trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        runtime = replace(self._runtime, device=device.type)  # type: ignore[arg-type]
        self.editor = FateZero.load(self._checkpoint, runtime, self._report)

    def predict_step(self, batch: LoadedEdit, batch_idx: int) -> Outcome[Any]:  # noqa: ARG002
        """Invert a request's clip."""
        return Outcome(batch.request, self.invert(batch), batch.clip)

    def invert(self, batch: LoadedEdit) -> Inversion | UserError:
        """The inversion that a request's job shares, made when its first request comes."""
        if self._last is None or self._last[0] != batch.job:
            self._last = None  # the last one's memory is free before the next is taken
            self._last = batch.job, _or_mistake(lambda: self._invert(batch))
        return self._last[1]

    def _invert(self, batch: LoadedEdit) -> Inversion:
        if isinstance(batch.clip, UserError):
            raise batch.clip
        prompt, progress = batch.request.source_prompt, self._progress(batch.request.id)
        plans = [_or_mistake(partial(self.editor.plan, prompt, target)) for target in batch.job.targets]
        pairs = zip(batch.job.targets, plans, strict=True)
        sound = [target for target, plan in pairs if not isinstance(plan, UserError)]
        return self.editor.invert(batch.clip.frames, prompt, sound or batch.job.targets, progress)


class EditingModule(InversionModule):
    """Predicts edits, one for each request."""

    def predict_step(self, batch: LoadedEdit, batch_idx: int) -> Outcome[Any]:  # noqa: ARG002
        """Edit a request's clip from its job's inversion."""
        return Outcome(batch.request, _or_mistake(lambda: self._edit(batch)), batch.clip)

    def _edit(self, batch: LoadedEdit) -> EditResult:
        inversion = self.invert(batch)
        if isinstance(inversion, UserError):
            raise inversion
        return self.editor.edit_inverted(inversion, batch.target, self._progress(batch.request.id))


def _or_mistake(make: Callable[[], Made]) -> Made | UserError:
    """What is made, or the sentence that says why not: one request's mistake stops no other."""
    try:
        return make()
    except UserError as error:
        return error
    except torch.OutOfMemoryError:
        return UserError(
            "The device ran out of memory: take fewer frames or a smaller size, chunks (norm_scope 'frame'), or keep "
            "less there (store 'host', backend 'recompute')."
        )
