"""What a sample of clips tells of other clips: bootstrap intervals and the signed-rank test."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isfinite, nan

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
# n clips all fall on one side of the true median in 2^(1-n) of all draws. Below six clips that is more than 5 %: not
# even their whole range is a 95 % interval, and no two-sided rank test can reach 5 %.
FEWEST_CLIPS = 6
RESAMPLES = 1999
_SEED = 20240229  # any fixed number would do
_TOGETHER = 20  # samples in one call: their resamples fit into a cache


@dataclass(frozen=True)
class Interval:
    """A mean over clips and its 95 % bootstrap interval.

    Attributes:
        value: mean over clips.
        low: lower end; NaN with fewer than `FEWEST_CLIPS` clips, too few for an interval.
        high: upper end; NaN likewise.
    """

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there were enough clips for an interval."""
        return isfinite(self.low)


def intervals(samples: Iterable[Mapping[str, float]]) -> list[Interval | None]:
    """Mean of each sample of clips, with the 95 % interval of SciPy's BCa bootstrap (Efron 1987).

    A sample's interval depends on its values alone. Equal values have an interval of no width.

    Args:
        samples: values by clip; one without clips has no mean.
    """
    values = [sorted(sample.values()) for sample in samples]
    found = [Interval(mean(sample), nan, nan) if sample else None for sample in values]
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, sample in enumerate(values):
        if len(sample) >= FEWEST_CLIPS:
            by_length[len(sample)].append(index)
    for indices in by_length.values():
        for start in range(0, len(indices), _TOGETHER):
            part = indices[start : start + _TOGETHER]
            for index, (low, high) in zip(part, _bootstrap([values[index] for index in part]), strict=True):
                found[index] = Interval(mean(values[index]), low, high)
    return found


def _bootstrap(samples: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Lower and upper end of each of K sorted samples of one length; SciPy is mostly overhead for one at a time."""
    from scipy.stats import DegenerateDataWarning, bootstrap  # noqa: PLC0415  (a second to import)

    data = np.array(samples)
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        ends = bootstrap(
            (data,),
            _mean_of_last_axis,
            axis=-1,
            vectorized=True,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(_SEED),
        ).confidence_interval
    # BCa is undefined where all values are equal up to rounding
    low = np.where(np.isnan(ends.low), data[:, 0], ends.low)
    high = np.where(np.isnan(ends.high), data[:, -1], ends.high)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _mean_of_last_axis(values: npt.NDArray[np.float64], axis: int = -1) -> npt.NDArray[np.float64]:
    """In contiguous memory, where a mean's last bit does not depend on the samples beside it."""
    means: npt.NDArray[np.float64] = np.ascontiguousarray(values).mean(axis=axis)
    return means


def wilcoxon_p(clips: Mapping[str, float]) -> float | None:
    """P-value of the two-sided Wilcoxon signed-rank test; None without clips.

    Exact or by permutation for few clips, the normal approximation for many: as SciPy chooses.
    """
    from scipy.stats import wilcoxon  # noqa: PLC0415

    values = sorted(clips.values())
    if not values:
        return None
    return float(wilcoxon(values).pvalue) if any(values) else 1.0


def mean(values: Sequence[float]) -> float:
    """Mean whose last bit does not depend on the order of the values."""
    return fsum(values) / len(values)
