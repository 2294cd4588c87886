"""What a scheduler's configuration may say: what DDIM takes as diffusers does, and what it has no way to honour.

Light: importing this needs no torch. Other fields (Karras, exponential and beta sigmas, solver orders, LCM's original
steps) say how another sampler places and takes its steps; DDIM places its own, as diffusers' DDIMScheduler does when
it is made from such a configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fatezero.errors import UserError
from fatezero.system.terminal import quoted

SCHEDULER_FILE = Path("scheduler", "scheduler_config.json")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("leading", "trailing", "linspace")
TRAINED_LEVELS = 1000  # where a configuration does not say how many
# Of schedulers that carry data to noise along straight lines, and of no other.
FLOW_FIELDS = ("shift", "base_shift", "max_shift", "use_flow_sigmas", "use_dynamic_shifting")


def vet_schedule(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a configuration of noise levels or steps that DDIM does not reproduce.

    Args:
        config: of a scheduler.
        path: its file, named in errors.

    Raises:
        UserError: naming the field and what it says.
    """
    check_no_flow(config, path)
    if config.get("thresholding"):
        _refuse(config, "thresholding", path, "it pulls in what the network predicts, which no inversion undoes")
    if config.get("timestep_type") == "continuous":
        _refuse(config, "timestep_type", path, "the network is told noise levels in place of timesteps")
    if str(config.get("variance_type")).startswith("learned"):
        _refuse(config, "variance_type", path, "the network predicts variances too, which DDIM has no use for")
    if config.get("timestep_spacing", "leading") not in SPACINGS:
        _refuse(config, "timestep_spacing", path, f"it is {' or '.join(SPACINGS)}")
    betas, levels = config.get("trained_betas"), config.get("num_train_timesteps", TRAINED_LEVELS)
    if isinstance(betas, list) and len(betas) != levels:
        raise UserError(
            f"{path}: trained_betas are {len(betas)}, num_train_timesteps is {quoted(levels)}: they are as many; mend "
            "the file."
        )
    if betas is None and config.get("beta_schedule", "linear") not in BETA_SCHEDULES:
        _refuse(config, "beta_schedule", path, f"DDIM knows {', '.join(BETA_SCHEDULES)}, and trained_betas")


def check_no_flow(config: Mapping[str, Any], path: Path) -> None:
    """Refuse the configuration of a model that predicts a flow.

    Raises:
        UserError: naming the field that says so.
    """
    if str(config.get("_class_name")).startswith("FlowMatch"):
        _refuse_flow(config, "_class_name", path)
    if config.get("prediction_type") == "flow_prediction":
        _refuse_flow(config, "prediction_type", path)
    for name in FLOW_FIELDS:
        if config.get(name):
            _refuse_flow(config, name, path)


def _refuse_flow(config: Mapping[str, Any], name: str, path: Path) -> None:
    _refuse(config, name, path, "this is flow matching, a UNet of Stable Diffusion predicts noise or v")


def _refuse(config: Mapping[str, Any], name: str, path: Path, reason: str) -> None:
    raise UserError(f"{path}: {name} is {quoted(config[name])}: {reason}; use a checkpoint with another schedule.")
