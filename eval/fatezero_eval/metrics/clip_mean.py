"""The one torchmetrics state all metrics share: a sum and a count over clips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric


class ClipMean(Metric):
    """Mean over clips of a pure function of one clip, whatever the clips' lengths.

    A clip on which the function is NaN is left out of the mean and counted in `undefined`. The states are
    sums, so synchronising processes with different numbers of clips gives the mean over all of them.
    """

    is_differentiable = False
    full_state_update = False
    of_clip: ClassVar[Callable[..., Tensor]]  # the metric of one clip

    total: Tensor
    count: Tensor
    undefined: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("undefined", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, *clip: Tensor, **named: Any) -> None:
        """Score one clip; the arguments are those of `of_clip`."""
        value = type(self).of_clip(*clip, **named).double()
        if torch.isnan(value):
            self.undefined += 1
        else:
            self.total += value.to(self.total.device)
            self.count += 1

    def compute(self) -> Tensor:
        """Mean over the clips on which the metric is defined; NaN if there are none."""
        return self.total / self.count if self.count else torch.full_like(self.total, torch.nan)
