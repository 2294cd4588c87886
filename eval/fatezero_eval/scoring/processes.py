"""Work shared among processes through Lightning's predict, which never repeats a piece of it."""

from __future__ import annotations

import logging
import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Generic, Literal, TypeVar

import torch
from lightning import LightningModule, Trainer
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException
from torch.utils.data import DataLoader, TensorDataset

from fatezero.errors import UserError
from fatezero.system.progress import no_progress, steps_shown
from fatezero.system.stopping import end_children, end_with_parent, listen, stopping_on_signals

T = TypeVar("T")


class _Worker(LightningModule, Generic[T]):
    """Does the work whose numbers it is given, after a start in its own process."""

    def __init__(self, work: Sequence[T], start: Callable[[], Callable[[T], None]], quiet: bool) -> None:
        super().__init__()
        self._work = work
        self._start = start
        self._quiet = quiet

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in a process that was started for this work."""
        _silence_remarks()
        super().__setstate__(state)  # type: ignore[no-untyped-call]

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Start in the process that will do the work, and end with its parent or when told to."""
        end_with_parent()
        self._stopping = ExitStack()
        self._stopping.enter_context(stopping_on_signals())
        self._do = self._start()
        name = f"scoring, process {self.global_rank}"
        self._shown = no_progress if self._quiet else steps_shown(name, "clip", alone=False)

    def on_predict_start(self) -> None:
        """Lightning has put its own handlers there after `setup`."""
        listen()

    def predict_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Do one piece of work."""
        self._shown("", batch_idx + 1, int(sum(self.trainer.num_predict_batches)))
        self._do(self._work[int(batch[0])])

    def teardown(self, stage: str) -> None:  # noqa: ARG002
        """Let go of the signals; the process that shares the work out never took them."""
        if hasattr(self, "_stopping"):
            self._stopping.close()


def share(
    work: Sequence[T],
    start: Callable[[], Callable[[T], None]],
    processes: int,
    device: Literal["cpu", "cuda"],
    *,
    quiet: bool,
) -> None:
    """Share work among at most so many processes; none of them outlives this call.

    Predict shards without repeating: of three pieces two processes get 0 and 2, and 1.

    Args:
        work: what to do, such that no piece depends on another.
        start: called once in each process, which it must be possible to send it to; returns what does one piece.
        processes: how many, at most.
        device: where the work is done.
        quiet: say nothing of how far each process is.

    Raises:
        UserError: a process died; what it had finished is kept.
    """
    others = multiprocessing.active_children()
    try:
        with warnings.catch_warnings():
            _silence_remarks()
            trainer = _trainer(min(processes, len(work)), device)  # more than pieces of work are an error there
            numbers = DataLoader(TensorDataset(torch.arange(len(work))))
            trainer.predict(_Worker(work, start, quiet), numbers, return_predictions=False)
    except (ProcessExitedException, ProcessRaisedException) as died:
        end_children(spared=others)
        raise UserError(
            f"Process {died.error_index} of the evaluation died ({_last_line(died)}); what is scored is kept. Give "
            "the same command again to go on."
        ) from died
    except BaseException:
        end_children(spared=others)
        raise


def _trainer(processes: int, device: Literal["cpu", "cuda"]) -> Trainer:
    return Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=processes,
        strategy="ddp_spawn",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _silence_remarks() -> None:
    """Show none of Lightning's remarks, which are for its own users, in this process."""
    for name in ("lightning.pytorch", "lightning.fabric", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")


def _last_line(error: Any) -> str:
    return str(error).strip().splitlines()[-1].strip().removeprefix(f"{UserError.__module__}.UserError: ")
