"""Flow matching (Lipman et al. 2023; Liu et al. 2023): latents on straight lines, moved by a predicted velocity.

At level sigma the latents are (1 - sigma) * clean + sigma * noise, and the network predicts noise - clean.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor

from fatezero.errors import UserError, first_line


@dataclass(frozen=True)
class FlowStep:
    """One move of the schedule between a cleaner and a noisier level.

    Attributes:
        timestep: the noisier level's timestep, as the network is told it.
        sigma_clean: share of noise at the cleaner level.
        sigma_noisy: share of noise at the noisier level.
    """

    timestep: float
    sigma_clean: float
    sigma_noisy: float

    @property
    def sigma_middle(self) -> float:
        """Share of noise in the middle of the move."""
        return (self.sigma_clean + self.sigma_noisy) / 2

    @property
    def middle(self) -> float:
        """The timestep in the middle of the move: timesteps are multiples of sigma."""
        return self.timestep * self.sigma_middle / self.sigma_noisy

    def noised(self, clean: Tensor, noise: Tensor) -> Tensor:
        """Clean latents at the noisier level."""
        return noised(clean, noise, self.sigma_noisy)


def noised(clean: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Latents at a level: (1 - sigma) * clean + sigma * noise."""
    return clean + sigma * (noise - clean)


def placed_steps(scheduler: Any, **where: Any) -> tuple[FlowStep, ...]:
    """Steps from clean to noise, as a scheduler of diffusers places them.

    Args:
        scheduler: of flows.
        where: what a pipeline gives `set_timesteps`: how many they are, or their levels, and perhaps a shift.

    Raises:
        UserError: for levels that do not fall from noise to clean.
    """
    try:
        scheduler.set_timesteps(**where)
    except Exception as error:  # a value of any wrong type
        raise UserError(f"The checkpoint's scheduler places no steps: {first_line(error)}.") from error
    sigmas, timesteps = scheduler.sigmas.tolist(), scheduler.timesteps.tolist()
    falls = all(noisier > cleaner for noisier, cleaner in pairwise(sigmas))
    if len(sigmas) != len(timesteps) + 1 or not falls or not 0 <= sigmas[-1] < sigmas[0] <= 1:
        raise UserError(
            "The checkpoint's scheduler places levels that do not fall from 1 to 0: mend shift or num_train_timesteps "
            "in its scheduler_config.json, or take fewer steps."
        )
    falling = [FlowStep(t, clean, noisy) for t, (noisy, clean) in zip(timesteps, pairwise(sigmas), strict=True)]
    return tuple(reversed(falling))


def even_levels(steps: int) -> list[float]:
    """Shares of noise from 1 down in equal moves to 0, without that last one: what a scheduler shifts to its own."""
    return [1 - step / steps for step in range(steps)]


def shift_of_size(scheduler: Any, places: int) -> dict[str, float]:
    """The shift that `set_timesteps` is given where a scheduler's levels depend on the size; nothing elsewhere.

    It grows linearly with the places that the transformer sees (Esser et al. 2024), as diffusers' pipelines have it.
    """
    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        return {}
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    return {"mu": config.base_shift + slope * (places - config.base_image_seq_len)}


class FlowSolver:
    """Walks a schedule, move by move, in one direction: z' = z + (sigma' - sigma) v.

    Of first order (Euler's moves), the network is asked where the edit's move starts, and in the inversion about the
    cleaner latents at that same timestep, as DDIM's inversion does. The second order is the midpoint method with the
    velocity of the move before carrying the latents to the middle, so that each move takes one call (FireFlow, Deng et
    al. 2025; with a call of its own for the way to the middle it is RF-Solver, Wang et al. 2025). Both directions ask
    at the middle's timestep. In the first move there is no velocity yet, and the network is asked about the latents
    where the move starts.
    """

    def __init__(self, order: Literal[1, 2]) -> None:
        self._order = order
        self._last: Tensor | None = None  # the velocity of the move before

    @property
    def asks_midway(self) -> bool:
        """Of second order it is asked in the middle of a move."""
        return self._order == 2

    def asked_to_denoise(self, x: Tensor, step: FlowStep) -> tuple[Tensor, float]:
        """The latents and the timestep that the network is asked about, from those at the step's noisier level."""
        return self._asked(x, step, step.sigma_noisy)

    def asked_to_invert(self, x: Tensor, step: FlowStep) -> tuple[Tensor, float]:
        """The latents and the timestep that the network is asked about, from those at the step's cleaner level."""
        return self._asked(x, step, step.sigma_clean)

    def denoise(self, x: Tensor, output: Tensor, step: FlowStep) -> Tensor:
        """Latents at the step's cleaner level, from those at its noisier one and what the network returned."""
        return self._moved(x, output, step.sigma_clean - step.sigma_noisy)

    def invert(self, x: Tensor, output: Tensor, step: FlowStep) -> Tensor:
        """Latents at the step's noisier level, from those at its cleaner one and what the network returned."""
        return self._moved(x, output, step.sigma_noisy - step.sigma_clean)

    def _asked(self, x: Tensor, step: FlowStep, sigma: float) -> tuple[Tensor, float]:
        if self._order == 1:
            return x, step.timestep
        return (x if self._last is None else x + (step.sigma_middle - sigma) * self._last), step.middle

    def _moved(self, x: Tensor, output: Tensor, distance: float) -> Tensor:
        self._last = output
        return x + distance * output
