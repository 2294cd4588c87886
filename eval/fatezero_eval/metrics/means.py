"""Means and lists of values of which some may be undefined."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_defined(values: Tensor) -> Tensor:
    """Mean over the entries that are not NaN, as float64; NaN where none is left.

    Args:
        values: any shape.
    """
    defined = values.double()[~torch.isnan(values)]
    return defined.mean() if defined.numel() else torch.tensor(torch.nan, dtype=torch.float64)


def stacked(values: list[Tensor]) -> Tensor:
    """Scalars as one tensor; an empty list gives an empty float64 tensor."""
    return torch.stack(values) if values else torch.empty(0, dtype=torch.float64)
