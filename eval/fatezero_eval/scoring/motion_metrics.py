"""Metrics of motion: by the flow that is known or estimated, by points, and by what neighbouring frames share."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from fatezero_eval.metrics import (
    dynamic_degree,
    editboard,
    flickering,
    motion_fidelity,
    motion_smoothness,
    track_correlation,
    warp_error,
)
from fatezero_eval.scoring.metric import ONE_FRAME, Metric
from fatezero_eval.scoring.windows import Window

FEW_FRAMES = "the clip has fewer than three frames"
NO_PIXELS = "no pixel is visible in both frames of any pair, or the clip has one frame"

_followed = partial(Metric, network="motion", needs=("source",))


def _editboard_flows(window: Window, *versions: str) -> list[Tensor]:
    return [window.flow(version, window.networks.editboard_flow) for version in versions]


def _ff_alpha(window: Window) -> Tensor:
    return editboard.ff_alpha_of_pairs(
        window.every("source"), window.every("edited"), *_editboard_flows(window, "source")
    )


MOTION_METRICS = (
    _followed(
        name="warp_error",
        unit="squared difference",
        family=warp_error.WARP_ERROR,
        display=1000,
        undefined=NO_PIXELS,
        of_window=lambda c: warp_error.default_of_pairs(c.every("edited"), c.followed, c.valid),
    ),
    _followed(
        name="warp_error/lai2018",
        unit="squared difference",
        family=warp_error.WARP_ERROR,
        display=1000,
        undefined=ONE_FRAME,
        of_window=lambda c: warp_error.lai2018_of_pairs(c.every("edited"), *c.motion),
    ),
    _followed(
        name="warp_error/rerender_pixel_mse",
        unit="squared difference",
        family=warp_error.WARP_ERROR,
        display=1000,
        undefined=ONE_FRAME,
        of_window=lambda c: warp_error.rerender_of_pairs(c.every("edited"), *c.motion),
    ),
    _followed(
        name="warp_error/evalcrafter",
        unit="squared difference, summed over channels",
        family=warp_error.WARP_ERROR,
        undefined=ONE_FRAME,
        of_window=lambda c: warp_error.evalcrafter_of_pairs(c.every("edited"), *c.motion),
    ),
    _followed(
        name="warp_error/rave_warpssim",
        unit="squared difference",
        family=warp_error.WARP_ERROR,
        display=1000,
        undefined=ONE_FRAME,
        of_window=lambda c: warp_error.wrong_way_of_pairs(c.every("edited"), c.motion[0]),
    ),
    _followed(
        name="warp_ssim",
        unit="SSIM",
        family=warp_error.WARP_SSIM,
        undefined=NO_PIXELS,
        of_window=lambda c: warp_error.warp_ssim_of_pairs(c.every("edited"), c.followed, c.valid),
    ),
    _followed(
        name="warp_ssim/rave",
        version=2,
        unit="SSIM",
        family=warp_error.WARP_SSIM,
        undefined=ONE_FRAME,
        of_window=lambda c: warp_error.rave_of_pairs(c.every("edited"), c.motion[0]),
        settled=warp_error.rave_of_frames,
    ),
    Metric(
        name="warp_error/ff_alpha",
        needs=("source",),
        unit="levels of 255",
        family=warp_error.WARP_ERROR,
        network="editboard_flow",
        undefined="less than 70 % of the source can be followed, or the clip has one frame",
        of_window=_ff_alpha,
        settled=editboard.ff_alpha,
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
        family=flickering.TEMPORAL_FLICKERING,
        undefined=ONE_FRAME,
        of_window=lambda c: flickering.flickering_of_pairs(c.every("edited")),
    ),
    Metric(
        name="motion_fidelity",
        needs=("source",),
        unit="pixels",
        family=motion_fidelity.MOTION_FIDELITY,
        network="flow",
        undefined=ONE_FRAME,
        of_window=lambda c: motion_fidelity.endpoint_error_of_pairs(c.forward("source"), c.forward("edited")),
    ),
    Metric(
        name="motion_fidelity/ff_beta",
        needs=("source",),
        unit="1 - cos",
        family=motion_fidelity.MOTION_FIDELITY,
        network="editboard_flow",
        undefined=ONE_FRAME,
        of_window=lambda c: editboard.ff_beta_of_pairs(*_editboard_flows(c, "source", "edited")),
    ),
    Metric(
        name="track_correlation",
        needs=("source",),
        unit="cos",
        family=track_correlation.TRACK_CORRELATION,
        network="tracker",
        undefined="the clip has one frame, or no point of it or of its source can be followed to the end",
        of_clip=lambda c: track_correlation.track_correlation(c.edited, c.source),
    ),
    Metric(
        name="dynamic_degree",
        unit="share of clips",
        family=dynamic_degree.DYNAMIC_DEGREE,
        network="flow",
        undefined=FEW_FRAMES,
        of_window=lambda c: dynamic_degree.strides_of_pairs(c.forward("edited")),
        settled=dynamic_degree.moves,
    ),
    Metric(
        name="motion_smoothness/flow",
        unit="1 - mean difference",
        family=motion_smoothness.MOTION_SMOOTHNESS,
        network="flow",
        undefined=FEW_FRAMES,
        of_clip=lambda values: values,
    ),
)
