"""What NIQE knows of undistorted photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fatezero_eval.networks.weight_files import check_finite, digest_of, reading

NIQE_REMEDY = "give --niqe the modelparameters.mat of NIQE's authors (niqe_release.zip of LIVE, University of Texas)."
_MEAN, _COVARIANCE = "mu_prisparam", "cov_prisparam"


@dataclass(frozen=True)
class PhotoStatistics:
    """The distribution of NIQE's 36 features over photographs.

    Attributes:
        id: names the file and its content.
        mean: 36.
        covariance: 36,36.
    """

    id: str
    mean: Tensor
    covariance: Tensor


def load_photo_statistics(file: Path) -> PhotoStatistics:
    """The distribution from the MATLAB file that NIQE's authors publish.

    Raises:
        UserError: the file is missing or holds something else.
    """
    from scipy.io import loadmat  # noqa: PLC0415

    with reading(file, "NIQE's parameters", NIQE_REMEDY):
        found = loadmat(file, appendmat=False, variable_names=[_MEAN, _COVARIANCE])
        mean, covariance = (torch.from_numpy(np.asarray(found[name], np.float64)) for name in (_MEAN, _COVARIANCE))
        if mean.numel() != 36 or covariance.shape != (36, 36):
            raise ValueError(f"{mean.numel()} means, covariances of {tuple(covariance.shape)}")
        check_finite({_MEAN: mean, _COVARIANCE: covariance})
    return PhotoStatistics(f"niqe:{digest_of(file)}", mean.ravel(), covariance)
