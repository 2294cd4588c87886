"""DDIM (Song et al. 2021, equation 12 with eta = 0): one closed move, cleaner to noisier or back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from fatezero.errors import UserError, first_line

PredictionType = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class Step:
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


def schedule(scheduler_config: Mapping[str, Any], steps: int) -> tuple[Step, ...]:
    """Steps from clean to noise, as diffusers' DDIMScheduler places them.

    Args:
        scheduler_config: the checkpoint's scheduler configuration, of whatever scheduler class.
        steps: how many.

    Returns:
        `steps` moves; the first one leaves the clean latent.

    Raises:
        UserError: for more steps than half the training levels, a schedule that ends in pure noise, or a configuration
            that describes none.
    """
    scheduler = _scheduler(scheduler_config)
    levels = len(scheduler.alphas_cumprod)
    if steps > levels // 2:
        raise UserError(f"steps is {steps}: of the checkpoint's {levels} noise levels take at most {levels // 2}.")
    if float(scheduler.alphas_cumprod[-1]) == 0:
        raise UserError(
            "The checkpoint's schedule ends in pure noise (zero terminal signal), from where DDIM has no way back: "
            "use one without rescale_betas_zero_snr."
        )
    try:
        scheduler.set_timesteps(steps)
        ascending = [int(t) for t in scheduler.timesteps.flip(0)]
    except Exception as error:  # a value of any wrong type
        raise UserError(f"The checkpoint's scheduler places no steps: {first_line(error)}.") from error
    if len(ascending) != steps or not 0 <= min(ascending) <= max(ascending) < levels:
        raise UserError(
            f"The checkpoint's scheduler places {steps} steps outside its {levels} noise levels: mend steps_offset or "
            "timestep_spacing in its scheduler_config.json."
        )
    stride = levels // steps

    def alpha(timestep: int) -> float:
        return float(scheduler.alphas_cumprod[timestep] if timestep >= 0 else scheduler.final_alpha_cumprod)

    return tuple(Step(t, alpha(t - stride), alpha(t)) for t in ascending)


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
    return scheduler


def predicted_noise(output: Tensor, x: Tensor, alpha: float, prediction_type: PredictionType) -> Tensor:
    """The network's output as predicted noise.

    Args:
        output: what the UNet returned, of x's shape.
        x: the latent it was asked about.
        alpha: cumulative alpha of x's own level (in inversion the cleaner one, as DDIMInverseScheduler has it).
        prediction_type: what the network was trained to return (v: Salimans & Ho 2022).
    """
    if prediction_type == "v_prediction":
        signal, sigma = _signal_and_noise(alpha)
        return signal * output + sigma * x
    return output


def move(x: Tensor, noise: Tensor, alpha_from: float, alpha_to: float) -> Tensor:
    """Carry x from one level to another along the predicted noise.

    sqrt(alpha_to) * (x - sqrt(1 - alpha_from) * noise) / sqrt(alpha_from) + sqrt(1 - alpha_to) * noise
    """
    signal_from, sigma_from = _signal_and_noise(alpha_from)
    signal_to, sigma_to = _signal_and_noise(alpha_to)
    return signal_to * ((x - sigma_from * noise) / signal_from) + sigma_to * noise


def _signal_and_noise(alpha: float) -> tuple[float, float]:
    """sqrt(alpha) and sqrt(1 - alpha), rounded to float32 as in diffusers' schedulers, whatever the latents' dtype."""
    cumulative = torch.tensor(alpha, dtype=torch.float32)
    return float(cumulative.sqrt()), float((1 - cumulative).sqrt())
