"""Inversion and editing as predict steps."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic

import torch
from lightning import LightningModule
from tqdm import tqdm

from fatezero.config import RuntimeConfig
from fatezero.data.remote import RemoteRun
from fatezero.diffusion.checkpoint import Checkpoint
from fatezero.errors import Made, UserError, attempt, unwrap
from fatezero.lightning.arriving import arrive
from fatezero.lightning.datamodule import LoadedJob
from fatezero.pipeline import FateZero
from fatezero.results import EditResult, Inversion
from fatezero.runs.inversion_cache import InversionCache
from fatezero.runs.jobs import EditJob, InversionGroup
from fatezero.runs.segments import needed_frames, own_part
from fatezero.system.importing import importing
from fatezero.system.progress import Progress, no_progress, steps_shown
from fatezero.system.terminal import heard, printable
from fatezero.types import Clip


class Prediction(Generic[Made]):
    """What became of a job.

    No dataclass: Lightning takes those apart when it returns predictions, and refuses frozen ones.

    Attributes:
        job: what was to be done.
        result: what was made, or the sentence that says why there is nothing.
        clip: the source as it was read.
        editor: the editor that made it, or the reason why there is none.
    """

    def __init__(
        self, job: EditJob, result: Made | UserError, clip: Clip | UserError, editor: FateZero | UserError
    ) -> None:
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
        threads: CPU threads of each process.
        processes: how many share this machine's memory.
        quiet: show no progress.
        verbose: say how the work is done.
    """

    runtime: RuntimeConfig
    cache: Path | None = None
    cache_bytes: int | None = None
    remote: RemoteRun | None = None
    threads: int = 1
    processes: int = 1
    quiet: bool = False
    verbose: bool = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in a process that was started for this work."""
        arrive()
        self.__dict__.update(state)

    def load(self, device: torch.device, checkpoint: Checkpoint) -> FateZero:
        """An editor on a device.

        Raises:
            UserError: if the checkpoint cannot be loaded.
        """
        torch.set_num_threads(self.threads)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        runtime = replace(self.runtime, device=device.type)  # type: ignore[arg-type]
        cache = InversionCache(self.cache, self.cache_bytes) if self.cache else None
        with importing():  # diffusers and transformers
            return FateZero.load(checkpoint.networks, runtime, self.say, cache, self.processes, self.say_detail)

    def say(self, sentence: str) -> None:
        """Tell the user without breaking a bar.

        Raises:
            Stopped: nobody reads it any more.
        """
        if not self.quiet:
            with heard(sys.stdout):
                tqdm.write(printable(sentence))
                sys.stdout.flush()

    def say_detail(self, sentence: str) -> None:
        """Tell the user who asked how the work is done."""
        if self.verbose:
            self.say(sentence)

    def progress(self, name: str) -> Progress:
        """What shows how far a job is."""
        return no_progress if self.quiet else steps_shown(name, alone=self.processes == 1)


class InversionModule(LightningModule):
    """Predicts the inversion behind a job; jobs of one group in a row share it.

    The networks are loaded by each process for itself, on its own device, when a job first needs them; nothing is
    trained, so they are no parameters of this module and no strategy wraps them.
    """

    def __init__(self, factory: EditorFactory) -> None:
        super().__init__()
        self.factory = factory
        self._editor: tuple[Checkpoint, FateZero | UserError] | None = None
        self._last: tuple[InversionGroup, Inversion | UserError] | None = None

    def editor(self, checkpoint: Checkpoint) -> FateZero | UserError:
        """An editor with a checkpoint's networks on this process's device, and no others; or why there is none."""
        if self._editor is None or self._editor[0] != checkpoint:
            self._editor = self._last = None  # two models need not fit at once
            device = self.trainer.strategy.root_device
            self._editor = checkpoint, attempt(lambda: self.factory.load(device, checkpoint))
        return self._editor[1]

    def predict_step(self, batch: LoadedJob | None, batch_idx: int) -> Prediction[Any] | None:
        """Invert a job's clip."""
        if batch is None or not batch.wanted:
            return None
        editor, progress = self.editor(batch.job.checkpoint), self._progress(batch, batch_idx)
        return Prediction(batch.job, attempt(lambda: self._make(unwrap(editor), batch, progress)), batch.clip, editor)

    def _make(self, editor: FateZero, batch: LoadedJob, progress: Progress) -> Any:
        return unwrap(self.invert(editor, batch, progress))

    def invert(self, editor: FateZero, batch: LoadedJob, progress: Progress) -> Inversion | UserError:
        """The inversion that a group shares, made when its first job comes."""
        if self._last is None or self._last[0] != batch.group:
            self._last = None  # the last one's memory is free before the next is taken
            self._last = batch.group, attempt(lambda: _invert(editor, batch, progress))
        return self._last[1]

    def _progress(self, batch: LoadedJob, batch_idx: int) -> Progress:
        count = sum(self.trainer.num_predict_batches)
        if self.trainer.world_size > 1:
            return self.factory.progress(f"[process {self.global_rank}, {batch_idx + 1}/{count}] {batch.job.name}")
        return self.factory.progress(
            f"[{batch_idx + 1}/{count}] {batch.job.name}" if count > 1 else batch.job.folder.name
        )


class EditingModule(InversionModule):
    """Predicts edits, one for each job."""

    def _make(self, editor: FateZero, batch: LoadedJob, progress: Progress) -> EditResult:
        inversion = unwrap(self.invert(editor, batch, progress))
        result = editor.edit_inverted(inversion, batch.job.target, progress)
        return own_part(result, batch.job.segment) if batch.job.segment else result


def _invert(editor: FateZero, batch: LoadedJob, progress: Progress) -> Inversion:
    frames = unwrap(batch.clip).frames
    prompt, targets, segment = batch.job.request.source_prompt, batch.group.targets, batch.job.segment
    plans = [attempt(partial(editor.plan, prompt, target)) for target in targets]
    sound = [target for target, plan in zip(targets, plans, strict=True) if not isinstance(plan, UserError)]
    if segment is None:
        return editor.invert(frames, prompt, sound or targets, progress)
    editor.backbone.check_cut()
    needed = needed_frames(frames, segment, batch.job.method)
    return editor.invert(needed, prompt, sound or targets, progress, segment.middle(batch.job.method))
