"""Jobs through `Trainer.predict`, in this process, in several on this machine, or in those a cluster has started."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from fatezero.errors import UserError
from fatezero.lightning.arriving import Listening
from fatezero.lightning.cluster import started_by_cluster
from fatezero.lightning.datamodule import JobDataModule
from fatezero.lightning.fork_server import start_fork_server
from fatezero.lightning.quiet import silence_lightning
from fatezero.runs.jobs import InversionGroup
from fatezero.system.stopping import Stopped, end_children, end_with_parent


def run_groups(
    module: LightningModule,
    groups: Sequence[InversionGroup],
    devices: int,
    num_nodes: int,
    device: str,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Predict every job of the groups once, whatever the number of processes.

    Args:
        module: `EditingModule` or `InversionModule`.
        groups: the work, shared among the processes.
        devices: processes on this machine, one device each.
        num_nodes: machines.
        device: "cpu", "cuda" or "mps".
        callbacks: such as `ResultWriter`.

    Raises:
        UserError: if a process died; what it had finished is kept.
        Stopped: by a signal.
        KeyboardInterrupt: by the user, where signals are left to Python.
    """
    silence_lightning()
    if started_by_cluster():
        end_with_parent()
    others = multiprocessing.active_children()
    trainer = Trainer(
        accelerator=device,
        devices=devices,
        num_nodes=num_nodes,
        strategy=_strategy(devices, num_nodes, device),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[*callbacks, Listening()],
        inference_mode=True,
        use_distributed_sampler=False,  # each process takes its own share: see `JobDataModule`
    )
    try:
        trainer.predict(module, JobDataModule(groups), return_predictions=False)
    except Stopped:
        raise
    except SystemExit as stopped:  # Lightning's way to say that it was interrupted
        raise KeyboardInterrupt from stopped
    except ProcessRaisedException as died:
        raise UserError(_last_line(died).removeprefix(f"{UserError.__module__}.UserError: ")) from died
    except ProcessExitedException as died:
        raise UserError(
            f"Process {died.error_index} died ({_last_line(died)}); every finished result is kept. Give the same "
            "command again to go on."
        ) from died
    finally:
        end_children(spared=others)


def _strategy(devices: int, num_nodes: int, device: str) -> Strategy | str:
    if started_by_cluster():
        return DDPStrategy(process_group_backend=_backend(device))
    if num_nodes > 1:
        raise UserError("--num-nodes is for processes that SLURM or torchrun starts; neither has started this one.")
    if devices == 1:
        return "auto"
    if device == "cpu":
        start_fork_server()
        return DDPStrategy(process_group_backend=_backend(device), start_method="forkserver")
    return DDPStrategy(process_group_backend=_backend(device), start_method="spawn")


def _backend(device: str) -> str:
    return "nccl" if device == "cuda" else "gloo"


def _last_line(error: Any) -> str:
    return str(error).strip().splitlines()[-1].strip()
