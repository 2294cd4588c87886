"""How far two sets of videos lie apart, each video one vector of features.

Shapes: N and M videos, D features, C clips, whose videos are alike: edits of one clip are no independent draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float64]


def frechet_distance(one_ND: Features, other_MD: Features) -> float:
    """Fréchet's distance of the normal distributions with the sets' means and covariances, at least 0 but for rounding.

    |μ − ν|² + tr(Σ + Τ − 2(ΣΤ)^½). With Σ = AᵀA and Τ = BᵀB the last trace is the sum of the singular values of ABᵀ,
    which needs no root of a matrix and no covariance of full rank.

    Source: Dowson and Landau 1982; Unterthiner et al. 2018 (FVD), with covariances over N − 1.

    Args:
        one_ND: at least two videos.
        other_MD: likewise.
    """
    gap = one_ND.mean(0) - other_MD.mean(0)
    one, other = (
        np.linalg.qr(videos - videos.mean(0), mode="r") / np.sqrt(len(videos) - 1) for videos in (one_ND, other_MD)
    )
    shared = np.linalg.svd(one @ other.T, compute_uv=False).sum()
    return float(gap @ gap + (one**2).sum() + (other**2).sum() - 2 * shared)


def kernel(one_ND: Features, other_MD: Features) -> Features:
    """The polynomial kernel of JEDi, (x·y / D)², N,M."""
    squares: Features = (one_ND @ other_MD.T / one_ND.shape[1]) ** 2
    return squares


def biased_mmd(one_ND: Features, other_MD: Features) -> float:
    """100 times the squared maximum mean discrepancy, each video paired with itself as well; at least 0.

    Of equal distributions it is above 0, the more so the fewer the videos.

    Source: JEDi (Luo et al. 2025), `mmd_polynomial.py` and `JEDi.py` of oooolga/JEDi.
    """
    within = kernel(one_ND, one_ND).mean() + kernel(other_MD, other_MD).mean()
    return float(100 * (within - 2 * kernel(one_ND, other_MD).mean()))


def unbiased_mmd(one: Sequence[Features], other: Sequence[Features]) -> tuple[float, float]:
    """100 times the squared maximum mean discrepancy over pairs of different clips, and its standard error.

    Gretton et al. 2012, equation 4, for clips in place of videos: the videos of a clip are averaged first, and no pair
    of one clip counts. So it is 0 on average for equal distributions, whatever the number of clips, and below 0 at
    times; a set beside itself gives 0. The error is the jackknife's over clips (Arvesen 1969).

    Args:
        one: by clip, N,D each; at least three clips.
        other: of the same clips, M,D each.
    """
    aligned = _between(one, one) + _between(other, other) - _between(one, other) - _between(other, one)
    np.fill_diagonal(aligned, 0)
    clips, total = len(aligned), aligned.sum()
    without = (total - aligned.sum(0) - aligned.sum(1)) / ((clips - 1) * (clips - 2))
    error = np.sqrt((clips - 1) * without.var())
    return float(100 * total / (clips * (clips - 1))), float(100 * error)


def _between(one: Sequence[Features], other: Sequence[Features]) -> Features:
    """The kernel's mean over the videos of each two clips, C,C."""
    means = kernel(np.concatenate(one), np.concatenate(other))
    for axis, clips in enumerate((one, other)):
        lengths = np.array([len(videos) for videos in clips])
        starts = np.cumsum(lengths) - lengths
        means = np.add.reduceat(means, starts, axis) / np.expand_dims(lengths, 1 - axis)
    return means
