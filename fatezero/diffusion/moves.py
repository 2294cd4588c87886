"""What the method needs of a schedule of noise levels: steps, and moves along them in both directions."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Step(Protocol):
    """One move of a schedule between a cleaner and a noisier level."""

    @property
    def timestep(self) -> float:
        """What the network is told: of the noisier level, in both directions, so that attention pairs up."""

    def noised(self, clean: Tensor, noise: Tensor) -> Tensor:
        """Clean latents at the noisier level."""


class Solver(Protocol):
    """Walks a schedule, move by move, in one direction.

    Each move is asked about and then made: the network's answer goes into `denoise` or `invert`.
    """

    @property
    def asks_midway(self) -> bool:
        """Whether the network is asked about other latents than those that a move starts from."""

    def asked_to_denoise(self, x: Tensor, step: Any) -> tuple[Tensor, float]:
        """The latents and the timestep that the network is asked about, from those at the step's noisier level."""

    def asked_to_invert(self, x: Tensor, step: Any) -> tuple[Tensor, float]:
        """The latents and the timestep that the network is asked about, from those at the step's cleaner level."""

    def denoise(self, x: Tensor, output: Tensor, step: Any) -> Tensor:
        """Latents at the step's cleaner level, from those at its noisier one and what the network returned."""

    def invert(self, x: Tensor, output: Tensor, step: Any) -> Tensor:
        """Latents at the step's noisier level, from those at its cleaner one and what the network returned."""
