"""One prediction of a denoising network for a whole clip: what is asked, and what is returned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fatezero.diffusion.texts import TextConditioning
from fatezero.errors import UserError


@dataclass(frozen=True)
class Branch:
    """What one branch of the batch denoises.

    Attributes:
        latents: F,C,h,w of the whole clip.
        text: what the network is told of the prompt.
        guidance: scale that a network with a guidance embedding is told; 1 is no guidance.
    """

    latents: Tensor
    text: TextConditioning
    guidance: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Branches:
    """The branches of one network call, in the order of the batch: source, unconditional, conditional.

    Attributes:
        source: runs the source again, for its attention; None where it is kept or not needed.
        unconditional: the branch without a prompt, for classifier-free guidance; None without guidance.
        conditional: under the prompt of the inversion or the edit; its attention is watched and fused.
    """

    conditional: Branch
    unconditional: Branch | None = None
    source: Branch | None = None

    @property
    def batch(self) -> list[Branch]:
        """Those that there are, in order."""
        return [branch for branch in (self.source, self.unconditional, self.conditional) if branch is not None]

    @property
    def twins(self) -> bool:
        """Whether the last two differ in nothing that the network knows before it reads their prompts."""
        first, second = self.unconditional, self.conditional
        if first is None or first.latents is not second.latents:
            return False
        return first.text.pooled is None and second.text.pooled is None  # pooled, a prompt is read at once

    @property
    def denoised(self) -> tuple[str, ...]:
        """Names of those that are asked for their noise, in order."""
        return ("conditional",) if self.unconditional is None else ("unconditional", "conditional")


@dataclass(frozen=True)
class Output:
    """What the network returned: F,C,h,w for each branch that is asked for its noise.

    Attributes:
        conditional: under the prompt.
        unconditional: without one; None without guidance.
    """

    conditional: Tensor
    unconditional: Tensor | None

    def guided(self, scale: float) -> Tensor:
        """Classifier-free guidance (Ho & Salimans 2022): F,C,h,w."""
        if self.unconditional is None:
            return self.conditional
        return self.unconditional + scale * (self.conditional - self.unconditional)


class FiniteCheck:
    """Looks for NaN and infinity in a network's outputs.

    On a GPU the answer is fetched while the next step is at work, so that no step waits for it.
    """

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        """Take the checkpoint's name and its dtype, for the sentence."""
        self._about = name, dtype
        self._last: tuple[Tensor, float, torch.cuda.Event | None] | None = None

    def add(self, outputs: Sequence[Tensor], timestep: float) -> None:
        """Look at a step's outputs.

        Raises:
            UserError: as `settle`.
        """
        before, finite = self._last, torch.stack([output.isfinite().all() for output in outputs]).all()
        event = None
        if finite.is_cuda:
            finite = finite.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._last = finite, timestep, event
        self._check(self._last if event is None else before)

    def settle(self) -> None:
        """Wait for the last answer.

        Raises:
            UserError: if the network has returned NaN or infinity.
        """
        self._check(self._last)

    def _check(self, step: tuple[Tensor, float, torch.cuda.Event | None] | None) -> None:
        if step is None:
            return
        finite, timestep, event = step
        if event is not None:
            event.synchronize()
        if not bool(finite):
            name, dtype = self._about
            raise UserError(
                f"The denoising network of {name} returned NaN or infinity at timestep {timestep:g} in {dtype}: use "
                "dtype float32, or check the checkpoint."
            )
