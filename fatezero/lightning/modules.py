"""Inversion and editing as predict steps."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from lightning import LightningModule
from tqdm import tqdm

from fatezero.cache import TrajectoryCache
from fatezero.config import RuntimeConfig
from fatezero.data.remote import RemoteRun
from fatezero.diffusion.checkpoint import Checkpoint
from fatezero.errors import UserError
from fatezero.lightning.datamodule import LoadedTask
from fatezero.pieces import needed_frames, own_part
from fatezero.pipeline import EditResult, FateZero, Inversion
from fatezero.tasks import Job, Task
from fatezero.types import Clip

Made = TypeVar("Made")


class Outcome(Generic[Made]):
    """What became of a task.

    No dataclass: Lightning takes those apart when it returns predictions, and refuses frozen ones.

    Attributes:
        task: what was to be done.
        result: what was made, or the sentence that says why there is nothing.
        clip: the source as it was read.
        editor: that made it.
    """

    def __init__(self, task: Task, result: Made | UserError, clip: Clip | UserError, editor: FateZero) -> None:
        """Hold them together."""
        self.task = task
        self.result = result
        self.clip = clip
        self.editor = editor


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What every process needs to load its networks; it travels to the processes that are started.

    Attributes:
        runtime: of the run; the device is the trainer's.
        cache: folder of kept inversions; None keeps none.
        cache_bytes: its bound; None is no bound.
        remote: the run in an object store that results are copied to; None leaves them here.
        threads: of the CPU in each process; None leaves PyTorch's own choice.
        quiet: show no progress.
    """

    runtime: RuntimeConfig
    cache: Path | None = None
    cache_bytes: int | None = None
    remote: RemoteRun | None = None
    threads: int | None = None
    quiet: bool = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in a process that was started for this work: Lightning's remarks are for its own users."""
        silence_lightning()
        self.__dict__.update(state)

    def load(self, device: torch.device, checkpoint: Checkpoint) -> FateZero:
        """An editor on a device.

        Raises:
            UserError: if the checkpoint cannot be loaded.
        """
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        runtime = replace(self.runtime, device=device.type)  # type: ignore[arg-type]
        cache = TrajectoryCache(self.cache, self.cache_bytes) if self.cache else None
        return FateZero.load(checkpoint.name, runtime, self.say, cache, checkpoint.motion_adapter)

    def say(self, sentence: str) -> None:
        """Tell the user without breaking a bar."""
        if not self.quiet:
            tqdm.write(sentence)


def silence_lightning() -> None:
    """Show no remarks of Lightning in this process."""
    for name in ("lightning.pytorch", "lightning.fabric", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")


class StepBar:
    """A bar for each stage of one task."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._name = name
        self._quiet = quiet
        self._bar: tqdm | None = None  # type: ignore[type-arg]

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        if self._bar is None or done == 1:
            self._bar = tqdm(total=total, desc=f"{self._name} {stage}", unit="step", disable=self._quiet)
        self._bar.update()
        if done == total:
            self._bar.close()


class InversionModule(LightningModule):
    """Predicts the inversion behind a task; tasks of one job in a row share it.

    The networks are loaded by each process for itself, on its own device, when a task first needs them; nothing is
    trained, so they are no parameters of this module and no strategy wraps them.
    """

    editor: FateZero

    def __init__(self, workshop: Workshop) -> None:
        super().__init__()
        self.workshop = workshop
        self._loaded: Checkpoint | None = None
        self._last: tuple[Job, Inversion | UserError] | None = None

    def load(self, checkpoint: Checkpoint) -> None:
        """Have a checkpoint's networks on this process's device, and no others.

        Raises:
            UserError: if it cannot be loaded.
        """
        if self._loaded != checkpoint:
            if self._loaded is not None:  # two models need not fit at once
                self._last = None
                del self.editor
            self.editor = self.workshop.load(self.trainer.strategy.root_device, checkpoint)
            self._loaded = checkpoint

    def predict_step(self, batch: LoadedTask | None, batch_idx: int) -> Outcome[Any] | None:
        """Invert a task's clip."""
        if batch is None:
            return None
        self.load(batch.task.checkpoint)
        return Outcome(batch.task, self.invert(batch, self._bar(batch, batch_idx)), batch.clip, self.editor)

    def invert(self, batch: LoadedTask, progress: Callable[[str, int, int], None]) -> Inversion | UserError:
        """The inversion that a job shares, made when its first task comes."""
        if self._last is None or self._last[0] != batch.job:
            self._last = None  # the last one's memory is free before the next is taken
            self._last = batch.job, _or_mistake(lambda: self._invert(batch, progress))
        return self._last[1]

    def _invert(self, batch: LoadedTask, progress: Callable[[str, int, int], None]) -> Inversion:
        if isinstance(batch.clip, UserError):
            raise batch.clip
        prompt, targets = batch.task.request.source_prompt, batch.job.targets
        plans = [_or_mistake(partial(self.editor.plan, prompt, target)) for target in targets]
        sound = [target for target, plan in zip(targets, plans, strict=True) if not isinstance(plan, UserError)]
        frames, piece = batch.clip.frames, batch.task.piece
        if piece is None:
            return self.editor.invert(frames, prompt, sound or targets, progress)
        needed = needed_frames(frames, piece, batch.task.method)
        return self.editor.invert(needed, prompt, sound or targets, progress, piece.middle(batch.task.method))

    def _bar(self, batch: LoadedTask, batch_idx: int) -> StepBar:
        count = sum(self.trainer.num_predict_batches)
        place = f"process {self.global_rank}, " if self.trainer.world_size > 1 else ""
        return StepBar(f"[{place}{batch_idx + 1}/{count}] {batch.task.name}", quiet=self.workshop.quiet)


class EditingModule(InversionModule):
    """Predicts edits, one for each task."""

    def predict_step(self, batch: LoadedTask | None, batch_idx: int) -> Outcome[Any] | None:
        """Edit a task's clip from its job's inversion."""
        if batch is None or not batch.wanted:
            return None
        self.load(batch.task.checkpoint)
        progress = self._bar(batch, batch_idx)
        return Outcome(batch.task, _or_mistake(lambda: self._edit(batch, progress)), batch.clip, self.editor)

    def _edit(self, batch: LoadedTask, progress: Callable[[str, int, int], None]) -> EditResult:
        inversion = self.invert(batch, progress)
        if isinstance(inversion, UserError):
            raise inversion
        result = self.editor.edit_inverted(inversion, batch.task.target, progress)
        return own_part(result, batch.task.piece) if batch.task.piece else result


def _or_mistake(make: Callable[[], Made]) -> Made | UserError:
    """What is made, or the sentence that says why not: one task's mistake stops no other."""
    try:
        return make()
    except UserError as error:
        return error
    except torch.OutOfMemoryError:
        return UserError(
            "The device ran out of memory: take fewer frames or a smaller size, chunks (norm_scope 'frame'), or keep "
            "less there (store 'host', backend 'recompute')."
        )
