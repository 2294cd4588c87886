"""Whether raters agree: Krippendorff's α for names, with its interval over clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fatezero_eval.people.draws import Draws, ends
from fatezero_eval.tables.resampling import Interval


def krippendorff_alpha(units: Sequence[Sequence[str]]) -> float | None:
    """Krippendorff's α for nominal values, with missing data.

    α is 1 where all agree, 0 where they agree as often as chance would have it, and below 0 where less often. A unit
    that fewer than two raters judged tells nothing and counts nothing.

    Args:
        units: for each thing that was judged, the values that it was given, in any order.

    Returns:
        α; None where no unit has two values, or all values are the same, so that chance alone would agree.
    """
    return _alpha(_coincidences(units).sum(axis=0)) if units else None


def alpha_over_clips(units: Mapping[str, Sequence[Sequence[str]]], draws: Draws) -> Interval | None:
    """α of units that belong to clips, with the percentile interval of drawing clips.

    Raters are not drawn: one who is drawn twice agrees with himself. Draws in which α is not defined are left out.

    Args:
        units: by clip, as for `krippendorff_alpha`.
        draws: of the same clips.
    """
    flat = [unit for clip in draws.clips for unit in units.get(clip, ())]
    counts = _coincidences(flat)
    value = _alpha(counts.sum(axis=0)) if flat else None
    if value is None:
        return None
    lengths = [len(units.get(clip, ())) for clip in draws.clips]
    by_clip = np.stack([part.sum(axis=0) for part in np.split(counts, np.cumsum(lengths)[:-1])])
    drawn = [_alpha(counts_VV) for counts_VV in np.tensordot(draws.of_clips, by_clip, axes=1)]
    return Interval(value, *ends([alpha for alpha in drawn if alpha is not None], draws))


def _coincidences(units: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
    """For each unit how often two of its values meet, U,V,V: each pair of raters counts 1 / (raters - 1)."""
    values = sorted({value for unit in units for value in unit})
    counts = np.zeros((len(units), len(values), len(values)))
    for number, unit in enumerate(units):
        if len(unit) > 1:
            given = Counter(unit)
            n_V = np.array([given[value] for value in values], dtype=float)
            counts[number] = (np.outer(n_V, n_V) - np.diag(n_V)) / (len(unit) - 1)
    return counts


def _alpha(coincidences_VV: npt.NDArray[np.float64]) -> float | None:
    """1 - observed / expected disagreement (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability")."""
    n_V = coincidences_VV.sum(axis=0)
    n = n_V.sum()
    expected = n * n - (n_V * n_V).sum()
    if n == 0 or expected == 0:
        return None
    return float(1 - (n - 1) * (n - np.trace(coincidences_VV)) / expected)
