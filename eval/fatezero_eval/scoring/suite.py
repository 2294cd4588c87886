"""All metrics as data.

A change to a metric's formula, model, colour range, reduction or NaN policy is a new version, so a new id.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from fatezero.errors import UserError
from fatezero_eval.scoring.asking import ASKING_METRICS
from fatezero_eval.scoring.comparisons import FIDELITY_METRICS
from fatezero_eval.scoring.judged_metrics import CLIP_METRICS, STRUCTURE_METRICS, SUBJECT_METRICS
from fatezero_eval.scoring.metric import Metric
from fatezero_eval.scoring.motion_metrics import MOTION_METRICS
from fatezero_eval.scoring.rows import PUBLISHED

METRICS = (
    *(*CLIP_METRICS, *SUBJECT_METRICS, *MOTION_METRICS, *STRUCTURE_METRICS, *FIDELITY_METRICS),
    *ASKING_METRICS,
)
_BY_ID = {metric.id: metric for metric in METRICS}

DEFAULT = (
    *("text_alignment", "frame_accuracy", "directional_similarity", "frame_consistency"),
    *("warp_error", "valid_pixels", "warp_ssim", "temporal_flickering", "motion_fidelity"),
    *("psnr/outside", "ssim/outside", "psnr/truth", "ssim/truth", "mse/truth", "mask_iou"),
)


def choose(names: Sequence[str] = ()) -> tuple[Metric, ...]:
    """The metrics with these names, in the suite's order.

    Args:
        names: names, or patterns such as `warp_error*`; none stands for the default suite.

    Raises:
        UserError: a name that no metric has.
    """
    patterns = tuple(names) or DEFAULT
    for pattern in patterns:
        if not any(fnmatchcase(metric.name, pattern) for metric in METRICS):
            known = [metric.name for metric in METRICS]
            close = difflib.get_close_matches(pattern, known, n=3, cutoff=0.4) or known
            raise UserError(f"there is no metric {pattern!r}; did you mean {', '.join(close)}?")
    return tuple(m for m in METRICS if any(fnmatchcase(m.name, pattern) for pattern in patterns))


def by_id(metric_id: str) -> Metric:
    """The metric a row was scored with.

    Raises:
        UserError: the row comes from another version of the suite.
    """
    if metric_id.endswith(PUBLISHED):
        return Metric(name=metric_id.removesuffix(PUBLISHED), version=0, unit="as published", family=None)
    found = _BY_ID.get(metric_id)
    if found is None:
        raise UserError(
            f"these rows hold the metric {metric_id!r}, which this version does not know; score the clips again."
        )
    return found
