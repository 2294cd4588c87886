"""All metrics as data.

A change to a metric's formula, model, colour range, reduction or NaN policy is a new version, so a new id.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial

from torch import Tensor

from fatezero.errors import UserError
from fatezero_eval.metrics import consistency, flickering, motion_fidelity, structure, text, warp_error
from fatezero_eval.scoring.comparisons import FIDELITY_METRICS
from fatezero_eval.scoring.metric import Embeddings, Metric
from fatezero_eval.scoring.windows import Window

ONE_FRAME = "the clip has one frame"
NO_PIXELS = "no pixel is visible in both frames of any pair, or the clip has one frame"


def _unprojected(clip: Embeddings) -> Tensor:
    return consistency.adjacent(clip.edited[:0] if clip.pooled is None else clip.pooled)


_judged = partial(Metric, network="clip")
_followed = partial(Metric, network="motion")

CLIP_METRICS = (
    _judged(
        name="text_alignment",
        unit="100 cos",
        family=text.TextAlignment,
        of_clip=lambda c: text.text_alignment(c.edited, c.target_prompt),
    ),
    _judged(
        name="frame_accuracy",
        unit="share of frames",
        family=text.FrameAccuracy,
        of_clip=lambda c: text.frame_accuracy(c.edited, c.source_prompt, c.target_prompt),
    ),
    _judged(
        name="frame_accuracy/fatezero",
        unit="share of frames",
        family=text.FrameAccuracy,
        of_clip=lambda c: text.frame_accuracy(c.bottom_square, c.source_prompt, c.target_prompt),
    ),
    _judged(
        name="directional_similarity",
        unit="cos",
        family=text.DirectionalSimilarity,
        undefined="the frames or the prompts did not change",
        of_clip=lambda c: text.direction_of_frames(c.edited, c.source, c.source_prompt, c.target_prompt),
    ),
    Metric(
        name="pick_score",
        unit="logit",
        family=text.PickScore,
        network="pick",
        of_clip=lambda c: text.pick_score(c.edited, c.target_prompt, c.logit_scale),
    ),
    _judged(
        name="frame_consistency",
        unit="cos",
        family=consistency.FrameConsistency,
        undefined=ONE_FRAME,
        of_clip=lambda c: consistency.adjacent(c.edited),
    ),
    _judged(
        name="frame_consistency/fatezero",
        unit="cos",
        family=consistency.FrameConsistency,
        undefined=ONE_FRAME,
        of_clip=lambda c: consistency.adjacent(c.bottom_square),
    ),
    _judged(
        name="frame_consistency/all_pairs",
        unit="cos",
        family=consistency.AllPairsConsistency,
        undefined=ONE_FRAME,
        of_clip=lambda c: consistency.all_pairs(c.edited),
    ),
    _judged(
        name="frame_consistency/vbench",
        unit="cos",
        family=consistency.VBenchConsistency,
        undefined=ONE_FRAME,
        of_clip=lambda c: consistency.vbench(c.edited),
    ),
    _judged(
        name="frame_consistency/unprojected",
        unit="cos",
        family=consistency.FrameConsistency,
        undefined="the clip has one frame, or the judge's vision tower has no projection",
        of_clip=_unprojected,
    ),
)

MOTION_METRICS = (
    _followed(
        name="warp_error",
        unit="squared difference",
        family=warp_error.WarpError,
        display=1000,
        undefined=NO_PIXELS,
        of_window=lambda c: warp_error.default_of_pairs(c.every("edited"), c.motion[0], c.valid),
    ),
    _followed(
        name="warp_error/lai2018",
        unit="squared difference",
        family=warp_error.WarpError,
        display=1000,
        undefined=ONE_FRAME,
        of_window=lambda c: warp_error.lai2018_of_pairs(c.every("edited"), *c.motion),
    ),
    _followed(
        name="warp_error/rerender_pixel_mse",
        unit="squared difference",
        family=warp_error.WarpError,
        display=1000,
        undefined=ONE_FRAME,
        of_window=lambda c: warp_error.rerender_of_pairs(c.every("edited"), *c.motion),
    ),
    _followed(
        name="warp_error/evalcrafter",
        unit="squared difference, summed over channels",
        family=warp_error.WarpError,
        undefined=ONE_FRAME,
        of_window=lambda c: warp_error.evalcrafter_of_pairs(c.every("edited"), *c.motion),
    ),
    _followed(
        name="warp_error/rave_warpssim",
        unit="squared difference",
        family=warp_error.WarpError,
        display=1000,
        undefined=ONE_FRAME,
        of_window=lambda c: warp_error.wrong_way_of_pairs(c.every("edited"), c.motion[0]),
    ),
    _followed(
        name="warp_ssim",
        unit="SSIM",
        family=warp_error.WarpSSIM,
        undefined=NO_PIXELS,
        of_window=lambda c: warp_error.warp_ssim_of_pairs(c.every("edited"), c.motion[0], c.valid),
    ),
    _followed(
        name="warp_ssim/rave",
        unit="SSIM",
        family=warp_error.WarpSSIM,
        undefined=ONE_FRAME,
        of_window=lambda c: warp_error.rave_of_pairs(c.every("edited"), c.motion[0]),
    ),
    _followed(
        name="valid_pixels",
        unit="share of pixels",
        family=None,
        undefined=ONE_FRAME,
        of_window=lambda c: c.valid.double().mean((1, 2)),
    ),
    Metric(
        name="temporal_flickering",
        unit="1 - mean difference",
        family=flickering.TemporalFlickering,
        undefined=ONE_FRAME,
        of_window=lambda c: flickering.flickering_of_pairs(c.every("edited")),
    ),
    Metric(
        name="motion_fidelity",
        unit="pixels",
        family=motion_fidelity.MotionFidelity,
        network="flow",
        undefined=ONE_FRAME,
        of_window=lambda c: motion_fidelity.endpoint_error_of_pairs(c.forward("source"), c.forward("edited")),
    ),
)


def _structure(window: Window) -> Tensor:
    dino = window.networks.dino
    assert dino is not None
    keys = [dino.keys(window.frames[version][window.overlap :]) for version in ("source", "edited")]
    return structure.structure_distance_of_frames(*keys)


STRUCTURE_METRICS = (
    Metric(
        name="structure_distance",
        unit="squared cos",
        family=structure.StructureDistance,
        network="dino",
        display=1000,
        of_window=_structure,
    ),
)

METRICS = (*CLIP_METRICS, *MOTION_METRICS, *STRUCTURE_METRICS, *FIDELITY_METRICS)
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
    found = _BY_ID.get(metric_id)
    if found is None:
        raise UserError(
            f"these rows hold the metric {metric_id!r}, which this version does not know; score the clips again."
        )
    return found
