"""Writes every prediction as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from fatezero.errors import UserError
from fatezero.lightning.modules import EditingModule, Outcome
from fatezero.output import save_result
from fatezero.pipeline import EditResult, FateZero
from fatezero.types import Clip


class ResultWriter(BasePredictionWriter):
    """Saves each edit in a folder named by its request.

    Attributes:
        failures: the requests that came to nothing, and why.
    """

    def __init__(self, folder: Path, report: Callable[[str], None] = lambda _: None) -> None:
        super().__init__(write_interval="batch")
        self._folder = folder
        self._report = report
        self.failures: list[tuple[str, str]] = []

    def write_on_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int,  # noqa: ARG002
    ) -> None:
        """Save the outcome of one request."""
        outcome = cast("Outcome[EditResult]", prediction)
        try:
            self._save(outcome, cast("EditingModule", pl_module).editor)
        except UserError as error:
            self.failures.append((outcome.request.id, str(error)))

    def _save(self, outcome: Outcome[EditResult], editor: FateZero) -> None:
        if isinstance(outcome.result, UserError):
            raise outcome.result
        folder, clip = self._folder / outcome.request.id, cast("Clip", outcome.clip)
        save_result(folder, outcome.result, outcome.request, clip.fps, clip.notes, editor.backbone, editor.runtime)
        self._report(f"{outcome.request.id}: {' '.join(clip.notes)}")
