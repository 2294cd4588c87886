"""Inversion and editing as predict steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from lightning import LightningModule
from tqdm import tqdm

from fatezero.config import RuntimeConfig
from fatezero.data.remote import RemoteRun
from fatezero.diffusion.checkpoint import Checkpoint
from fatezero.errors import UserError
from fatezero.lightning.datamodule import LoadedJob
from fatezero.lightning.quiet import silence_lightning
from fatezero.pipeline import FateZero
from fatezero.results import EditResult, Inversion
from fatezero.runs.inversion_cache import InversionCache
from fatezero.runs.jobs import EditJob, InversionGroup
from fatezero.runs.segments import needed_frames, own_part
from fatezero.types import Clip

Made = TypeVar("Made")


class Prediction(Generic[Made]):
    """What became of a job.

    No dataclass: Lightning takes those apart when it returns predictions, and refuses frozen ones.

    Attributes:
        job: what was to be done.
        result: what was made, or the sentence that says why there is nothing.
        clip: the source as it was read.
        editor: the editor that made it.
    """

    def __init__(self, job: EditJob, result: Made | UserError, clip: Clip | UserError, editor: FateZero) -> None:
        """Hold them together."""
        self.job = job
        self.result = result
        self.clip = clip
        self.editor = editor


@dataclass(frozen=True, kw_only=True)
class EditorFactory:
    """What every process needs to load its networks; it travels to the processes that are started.

    Attributes:
        runtime: how the networks run; the device is the trainer's.
        cache: folder of kept inversions; None keeps none.
        cache_bytes: its bound; None is no bound.
        remote: the run in an object store that results are copied to; None leaves them here.
        threads: CPU threads of each process; None leaves PyTorch's own choice.
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
        cache = InversionCache(self.cache, self.cache_bytes) if self.cache else None
        return FateZero.load(checkpoint.name, runtime, self.say, cache, checkpoint.motion_adapter)

    def say(self, sentence: str) -> None:
        """Tell the user without breaking a bar."""
        if not self.quiet:
            tqdm.write(sentence)


class StepBar:
    """A bar for each stage of one job."""

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
    """Predicts the inversion behind a job; jobs of one group in a row share it.

    The networks are loaded by each process for itself, on its own device, when a job first needs them; nothing is
    trained, so they are no parameters of this module and no strategy wraps them.
    """

    editor: FateZero

    def __init__(self, factory: EditorFactory) -> None:
        super().__init__()
        self.factory = factory
        self._loaded: Checkpoint | None = None
        self._last: tuple[InversionGroup, Inversion | UserError] | None = None

    def load(self, checkpoint: Checkpoint) -> None:
        """Have a checkpoint's networks on this process's device, and no others.

        Raises:
            UserError: if it cannot be loaded.
        """
        if self._loaded != checkpoint:
            if self._loaded is not None:  # two models need not fit at once
                self._last = None
                del self.editor
            self.editor = self.factory.load(self.trainer.strategy.root_device, checkpoint)
            self._loaded = checkpoint

    def predict_step(self, batch: LoadedJob | None, batch_idx: int) -> Prediction[Any] | None:
        """Invert a job's clip."""
        if batch is None:
            return None
        self.load(batch.job.checkpoint)
        return Prediction(batch.job, self.invert(batch, self._bar(batch, batch_idx)), batch.clip, self.editor)

    def invert(self, batch: LoadedJob, progress: Callable[[str, int, int], None]) -> Inversion | UserError:
        """The inversion that a group shares, made when its first job comes."""
        if self._last is None or self._last[0] != batch.group:
            self._last = None  # the last one's memory is free before the next is taken
            self._last = batch.group, _or_mistake(lambda: self._invert(batch, progress))
        return self._last[1]

    def _invert(self, batch: LoadedJob, progress: Callable[[str, int, int], None]) -> Inversion:
        if isinstance(batch.clip, UserError):
            raise batch.clip
        prompt, targets = batch.job.request.source_prompt, batch.group.targets
        plans = [_or_mistake(partial(self.editor.plan, prompt, target)) for target in targets]
        sound = [target for target, plan in zip(targets, plans, strict=True) if not isinstance(plan, UserError)]
        frames, segment = batch.clip.frames, batch.job.segment
        if segment is None:
            return self.editor.invert(frames, prompt, sound or targets, progress)
        needed = needed_frames(frames, segment, batch.job.method)
        return self.editor.invert(needed, prompt, sound or targets, progress, segment.middle(batch.job.method))

    def _bar(self, batch: LoadedJob, batch_idx: int) -> StepBar:
        count = sum(self.trainer.num_predict_batches)
        place = f"process {self.global_rank}, " if self.trainer.world_size > 1 else ""
        return StepBar(f"[{place}{batch_idx + 1}/{count}] {batch.job.name}", quiet=self.factory.quiet)


class EditingModule(InversionModule):
    """Predicts edits, one for each job."""

    def predict_step(self, batch: LoadedJob | None, batch_idx: int) -> Prediction[Any] | None:
        """Edit a job's clip from its group's inversion."""
        if batch is None or not batch.wanted:
            return None
        self.load(batch.job.checkpoint)
        progress = self._bar(batch, batch_idx)
        return Prediction(batch.job, _or_mistake(lambda: self._edit(batch, progress)), batch.clip, self.editor)

    def _edit(self, batch: LoadedJob, progress: Callable[[str, int, int], None]) -> EditResult:
        inversion = self.invert(batch, progress)
        if isinstance(inversion, UserError):
            raise inversion
        result = self.editor.edit_inverted(inversion, batch.job.target, progress)
        return own_part(result, batch.job.segment) if batch.job.segment else result


def _or_mistake(make: Callable[[], Made]) -> Made | UserError:
    """What is made, or the sentence that says why not: one job's mistake stops no other."""
    try:
        return make()
    except UserError as error:
        return error
    except torch.OutOfMemoryError:
        return UserError(
            "The device ran out of memory: take fewer frames or a smaller size, chunks (norm_scope 'frame'), or keep "
            "less there (store 'host', backend 'recompute')."
        )
