"""Tasks through `Trainer.predict`, in this process, in several on this machine, or in those a cluster has started."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from fatezero.errors import UserError
from fatezero.lightning.datamodule import TaskDataModule
from fatezero.lightning.modules import silence_lightning
from fatezero.options import WorkOptions
from fatezero.tasks import Job

PATIENCE = timedelta(days=7)  # processes wait for each other at the end only, and shares may differ by hours


def run_jobs(
    module: LightningModule, jobs: Sequence[Job], work: WorkOptions, device: str, callbacks: Sequence[Callback] = ()
) -> None:
    """Predict every task of the jobs once, whatever the number of processes.

    Args:
        module: `EditingModule` or `InversionModule`.
        jobs: to be shared among the processes.
        work: how many processes.
        device: "cpu", "cuda" or "mps".
        callbacks: such as `ResultWriter`.

    Raises:
        UserError: if a process died; what it had finished is kept.
        KeyboardInterrupt: if the user stopped it.
    """
    silence_lightning()
    trainer = Trainer(
        accelerator=device,
        devices=work.devices,
        num_nodes=work.num_nodes,
        strategy=_strategy(work, device),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=list(callbacks),
        inference_mode=True,
        use_distributed_sampler=False,  # each process takes its own share: see `TaskDataModule`
    )
    try:
        trainer.predict(module, TaskDataModule(jobs), return_predictions=False)
    except SystemExit as stopped:  # Lightning's way to say that it was interrupted
        raise KeyboardInterrupt from stopped
    except ProcessRaisedException as died:
        raise UserError(_last_line(died).removeprefix(f"{UserError.__module__}.UserError: ")) from died
    except ProcessExitedException as died:
        raise UserError(
            f"Process {died.error_index} died ({_last_line(died)}); every finished result is kept. Give the same "
            "command again to go on."
        ) from died


def started_by_cluster() -> bool:
    """Whether torchrun or SLURM has started this process as one of several."""
    return TorchElasticEnvironment.detect() or SLURMEnvironment.detect()


def is_first_process() -> bool:
    """Whether this process speaks for all: those that a cluster started all run the same command."""
    for environment in (TorchElasticEnvironment, SLURMEnvironment):
        if environment.detect():
            return environment().global_rank() == 0
    return True


def _strategy(work: WorkOptions, device: str) -> Strategy | str:
    if started_by_cluster():
        return DDPStrategy(timeout=PATIENCE, process_group_backend=_backend(device))
    if work.num_nodes > 1:
        raise UserError("--num-nodes is for processes that SLURM or torchrun starts; neither has started this one.")
    if work.devices == 1:
        return "auto"
    return DDPStrategy(timeout=PATIENCE, process_group_backend=_backend(device), start_method="spawn")


def _backend(device: str) -> str:
    return "nccl" if device == "cuda" else "gloo"


def _last_line(error: Any) -> str:
    return str(error).strip().splitlines()[-1].strip()
