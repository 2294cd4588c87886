"""A transformer's schedule, tried: whether its steps go from noise to a clean clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fatezero.errors import UserError, first_line

TRIAL_STEPS = 4
TRIAL_SHIFT = 1.0  # of a schedule that is told it with each clip: `mu` of diffusers


def check_steps(scheduler: Any, path: Path) -> None:
    """Refuse a schedule whose noise levels do not fall, step by step, to none.

    Args:
        scheduler: of a flow, or CogVideoX's; it is not changed.
        path: its file, named in errors.

    Raises:
        UserError: saying so.
    """
    try:
        trial = type(scheduler).from_config(scheduler.config)
        told = {"mu": TRIAL_SHIFT} if trial.config.get("use_dynamic_shifting") else {}
        with np.errstate(all="ignore"):  # what comes of it is looked at below
            trial.set_timesteps(TRIAL_STEPS, **told)
        levels = _noise_levels(trial)
        times = trial.timesteps.double()
    except Exception as error:  # a value of any wrong type
        raise UserError(f"{path} describes no noise schedule ({first_line(error)}): get it again.") from error
    falls = len(levels) == TRIAL_STEPS + 1 and bool((levels.diff() < 0).all()) and 0 < float(levels[0]) <= 1
    in_range = bool(((times >= 0) & (times <= scheduler.config.num_train_timesteps)).all())
    if not falls or not in_range or float(levels[-1]) != 0:
        raise UserError(
            f"{path} describes {TRIAL_STEPS} steps through the noise levels {_written(levels)} at the timesteps "
            f"{_written(times)}: levels fall from at most 1 to 0; get the checkpoint again."
        )


def _noise_levels(trial: Any) -> Tensor:
    """Share of noise before each step and after the last."""
    if hasattr(trial, "sigmas"):
        levels: Tensor = trial.sigmas.double()
        return levels
    kept = torch.as_tensor(trial.alphas_cumprod).double()[trial.timesteps.long()]
    return torch.cat([(1 - kept).sqrt(), 1 - torch.as_tensor(trial.final_alpha_cumprod).double()[None]])


def _written(values: Tensor) -> str:
    return ", ".join(f"{float(value):.4g}" for value in values[: TRIAL_STEPS + 1])
