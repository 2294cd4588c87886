"""Which process this is of those that torchrun or SLURM has started."""

from __future__ import annotations

import os

LAUNCHERS = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS")  # without either, Lightning need not be imported to be asked


def started_by_cluster() -> bool:
    """Whether torchrun or SLURM has started this process as one of several."""
    return cluster_rank() is not None


def is_first_process() -> bool:
    """Whether this process speaks for all: those that a cluster started all run the same command."""
    return cluster_rank() in (None, 0)


def cluster_rank() -> int | None:
    """This process's place among all that a cluster started; None where none did."""
    if not any(name in os.environ for name in LAUNCHERS):
        return None
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment  # noqa: PLC0415
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment  # noqa: PLC0415

    for environment in (TorchElasticEnvironment, SLURMEnvironment):
        if environment.detect():
            return environment().global_rank()
    return None
