"""DDIM (Song et al. 2021, equation 12 with eta = 0): a closed move to another level; and a second order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fatezero.errors import UserError, first_line

PredictionType = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class DDIMStep:
    """One move of the schedule between a cleaner and a noisier level.

    Attributes:
        timestep: the noisier level's timestep. The UNet is told this one in both directions, so an inversion step and
            the edit step that undoes it ask the network about the same time.
        alpha_clean: cumulative alpha of the cleaner level.
        alpha_noisy: cumulative alpha of the noisier level.
    """

    timestep: int
    alpha_clean: float
    alpha_noisy: float

    def noised(self, clean: Tensor, noise: Tensor) -> Tensor:
        """Clean latents at the noisier level."""
        return move(clean, noise, 1.0, self.alpha_noisy)


def schedule(scheduler_config: Mapping[str, Any], steps: int) -> tuple[DDIMStep, ...]:
    """Steps from clean to noise, as diffusers' DDIMScheduler places them.

    The cleaner level of a step lies levels // steps below the noisier one, as in diffusers. Under "linspace" spacing,
    and "trailing" where steps do not divide the levels, that is not quite the level where the next cleaner step
    begins; both directions take the same moves, so an edit starts where its inversion ended and undoes it.

    Args:
        scheduler_config: the checkpoint's scheduler configuration, of whatever scheduler class.
        steps: how many.

    Returns:
        `steps` moves; the first one leaves the clean latent.

    Raises:
        UserError: for more steps than half the training levels, a schedule that ends in pure noise where the network
            predicts noise, one that clips what it predicts, or a configuration that describes none.
    """
    return placed_ddim_steps(_scheduler(scheduler_config), steps)


def placed_ddim_steps(scheduler: Any, steps: int) -> tuple[DDIMStep, ...]:
    """Steps from clean to noise, as a scheduler of diffusers with cumulative alphas places them.

    Raises:
        UserError: for more steps than half the training levels, or where it does not place so many.
    """
    levels = len(scheduler.alphas_cumprod)
    if steps > levels // 2:
        raise UserError(f"steps is {steps}: of the checkpoint's {levels} noise levels take at most {levels // 2}.")
    try:
        scheduler.set_timesteps(steps)
        ascending = [int(t) for t in scheduler.timesteps.flip(0)]
    except Exception as error:  # a value of any wrong type
        raise UserError(f"The checkpoint's scheduler places no steps: {first_line(error)}.") from error
    if len(ascending) != steps or not 0 <= min(ascending) <= max(ascending) < levels:
        raise UserError(
            f"The checkpoint's scheduler does not place {steps} steps within its {levels} noise levels: take another "
            "number of steps, or mend steps_offset or timestep_spacing in its scheduler_config.json."
        )
    stride = levels // steps

    def alpha(timestep: int) -> float:
        return float(scheduler.alphas_cumprod[timestep] if timestep >= 0 else scheduler.final_alpha_cumprod)

    return tuple(DDIMStep(t, alpha(t - stride), alpha(t)) for t in ascending)


def as_ddim(scheduler: Any, path: Path) -> Any:
    """The noise levels of a scheduler under diffusers' DDIMScheduler, every field stated.

    Steps are placed as diffusers places them when it makes a DDIMScheduler of the same configuration: what it leaves
    open is DDIM's default, not the scheduler's own. A scheduler that does not clip becomes a DDIM that does not.

    Args:
        scheduler: of diffusers.
        path: its configuration's file, named in errors.

    Raises:
        UserError: if its own noise levels are others, because the file leaves open what the two classes assume
            differently, or states what only one of them knows.
    """
    from diffusers import DDIMScheduler  # noqa: PLC0415  (seconds to import)

    own = scheduler.config
    try:
        ddim = DDIMScheduler.from_config(own, clip_sample=own.get("clip_sample", False))
        same = torch.equal(ddim.betas.nan_to_num(), scheduler.betas.nan_to_num())
    except Exception as error:  # a value of any wrong type
        raise UserError(f"{path} describes no noise schedule for DDIM ({first_line(error)}): get it again.") from error
    if not same:
        raise UserError(
            f"{path}: its noise levels under {type(scheduler).__name__} are not those under DDIM: state "
            "num_train_timesteps, beta_start, beta_end and beta_schedule as the model was trained; of "
            "rescale_betas_zero_snr that only DDIM reads, name DDIMScheduler, or take it away."
        )
    stated = {name: value for name, value in ddim.config.items() if name != "_use_default_values"}
    return DDIMScheduler.from_config(stated)


def _scheduler(config: Mapping[str, Any]) -> Any:
    """DDIM's noise levels by a checkpoint's configuration, which loses signal from each level to the next."""
    from diffusers import DDIMScheduler  # noqa: PLC0415  (seconds to import)

    try:
        scheduler = DDIMScheduler.from_config(dict(config))
        levels = [1.0, *scheduler.alphas_cumprod.tolist()]
    except Exception as error:  # a value of any wrong type
        raise UserError(
            f"The checkpoint's scheduler_config.json describes no noise schedule ({first_line(error)}): get it again."
        ) from error
    if not all(0 <= noisier <= cleaner for cleaner, noisier in pairwise(levels)):
        raise UserError(
            "The checkpoint's scheduler_config.json describes a schedule whose signal does not fall from 1 to 0: mend "
            "beta_start, beta_end or trained_betas."
        )
    if config.get("clip_sample"):
        raise UserError(
            "The checkpoint's schedule clips what the network predicts, which no inversion can undo: set clip_sample "
            "to false in its scheduler_config.json."
        )
    if levels[-1] == 0 and config.get("prediction_type", "epsilon") != "v_prediction":
        raise UserError(
            "The checkpoint's schedule ends in pure noise (zero terminal signal), from where DDIM has no way back for "
            "a network that predicts noise: use one that predicts v, or one without rescale_betas_zero_snr."
        )
    return scheduler


def move(
    x: Tensor, output: Tensor, alpha_from: float, alpha_to: float, prediction_type: PredictionType = "epsilon"
) -> Tensor:
    """Carry x from one level to another along what the network predicts.

    sqrt(alpha_to) * clean + sqrt(1 - alpha_to) * noise. Predicted noise is taken off x and the rest divided by the
    signal; of a predicted v (Salimans & Ho 2022) clean and noise are both sums, so it leads out of pure noise as well.

    Args:
        x: the latent that the network was asked about.
        output: what it returned, of x's shape.
        alpha_from: cumulative alpha of x's own level (in inversion the cleaner one, as DDIMInverseScheduler has it).
        alpha_to: cumulative alpha of the level to go to.
        prediction_type: what the network was trained to return.
    """
    signal_from, sigma_from = _signal_and_noise(alpha_from)
    signal_to, sigma_to = _signal_and_noise(alpha_to)
    if prediction_type == "v_prediction":
        clean, noise = signal_from * x - sigma_from * output, signal_from * output + sigma_from * x
    else:
        clean, noise = (x - sigma_from * output) / signal_from, output
    return signal_to * clean + sigma_to * noise


class DDIMSolver:
    """Walks a schedule, move by move, in one direction.

    Over rho = sigma / signal, DDIM's moves are Euler's for d(x / signal) / d rho = noise(x, rho) (Song et al. 2021,
    equation 14). The second order takes in place of the predicted noise e the line through it and the step before's e',
    at the middle of the move (Adams and Bashforth's method, which is exact where the noise changes linearly over rho):

        e + w (e - e'),  w = (rho_clean - rho) / (2 (rho - rho')),

    where each prediction stands at the level of the timestep that the network was told, rho for this step's and rho'
    for the one before's: the noisier end of its move, in both directions. So an edit extrapolates, as PNDM and LMS do,
    while an inversion, whose predictions stand at the ends of their moves, takes the mean of the two and is steadier
    by that, but stays of first order: the network is asked about the cleaner latent at the noisier level's timestep, so
    that its attention pairs up with the edit's. The first move of either is DDIM's.
    """

    def __init__(self, order: Literal[1, 2], prediction_type: PredictionType) -> None:
        self._order = order
        self._prediction_type = prediction_type
        self._last: tuple[Tensor, float] | None = None  # the noise of the step before, and its level

    @property
    def asks_midway(self) -> bool:
        """It is asked where the move starts."""
        return False

    def asked_to_denoise(self, x: Tensor, step: DDIMStep) -> tuple[Tensor, float]:
        """The latents as they are, at the noisier level's timestep."""
        return x, step.timestep

    def asked_to_invert(self, x: Tensor, step: DDIMStep) -> tuple[Tensor, float]:
        """The latents as they are, the cleaner level's, at the noisier level's timestep."""
        return x, step.timestep

    def denoise(self, x: Tensor, output: Tensor, step: DDIMStep) -> Tensor:
        """Latents at the step's cleaner level, from those at its noisier one and what the network returned."""
        return self._move(x, output, step, step.alpha_noisy, step.alpha_clean)

    def invert(self, x: Tensor, output: Tensor, step: DDIMStep) -> Tensor:
        """Latents at the step's noisier level, from those at its cleaner one and what the network returned."""
        return self._move(x, output, step, step.alpha_clean, step.alpha_noisy)

    def _move(self, x: Tensor, output: Tensor, step: DDIMStep, alpha_from: float, alpha_to: float) -> Tensor:
        if self._order == 1:
            return move(x, output, alpha_from, alpha_to, self._prediction_type)
        last, noise = self._last, _noise(x, output, alpha_from, self._prediction_type)
        self._last = noise, step.alpha_noisy
        if last is None:
            return move(x, output, alpha_from, alpha_to, self._prediction_type)
        return move(x, noise + _line_weight(step, last[1]) * (noise - last[0]), alpha_from, alpha_to)


def _line_weight(step: DDIMStep, alpha_last: float) -> float:
    """The factor w of `DDIMSolver`, multiplied out so that it is finite where a level is pure noise.

    0 where both predictions stand at one level, as some schedules have it: two points that are one make no line.
    """
    signal_clean, sigma_clean = _signal_and_noise(step.alpha_clean)
    signal, sigma = _signal_and_noise(step.alpha_noisy)
    signal_last, sigma_last = _signal_and_noise(alpha_last)
    move_length = (sigma_clean * signal - signal_clean * sigma) * signal_last
    distance = (sigma * signal_last - signal * sigma_last) * signal_clean
    return move_length / (2 * distance) if distance else 0.0


def _noise(x: Tensor, output: Tensor, alpha: float, prediction_type: PredictionType) -> Tensor:
    """The noise that a network predicts in x."""
    signal, sigma = _signal_and_noise(alpha)
    return signal * output + sigma * x if prediction_type == "v_prediction" else output


def _signal_and_noise(alpha: float) -> tuple[float, float]:
    """sqrt(alpha) and sqrt(1 - alpha), rounded to float32 as in diffusers' schedulers, whatever the latents' dtype."""
    cumulative = torch.tensor(alpha, dtype=torch.float32)
    return float(cumulative.sqrt()), float((1 - cumulative).sqrt())
