"""Metrics that compare the edited frames with the source outside or inside a mask, or with the true edit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor

from fatezero_eval.metrics import fidelity
from fatezero_eval.metrics.families import MetricFamily
from fatezero_eval.networks.loading import Role
from fatezero_eval.scoring.metric import NEVER, Metric
from fatezero_eval.scoring.windows import Window

EMPTY = "the mask leaves no pixel in any frame"
_PIE = "/pie_compat"
Place = Literal["outside", "inside", "truth"]
# Two clips F,3,H,W and a mask F,H,W to F values; PIE's take a mask of each clip, LPIPS its network too.
Comparison = Callable[..., Tensor]


def _compare(window: Window, function: Comparison, place: Place, network: Role | None, *, bordered: bool) -> Tensor:
    if network is not None:
        function = partial(function, network=getattr(window.networks, network))
    edited = window.fresh("edited")
    if place == "truth":
        return function(edited, window.fresh("true_edit"), fidelity.everywhere(edited))
    mask = window.mask("mask")
    if not bordered:
        return function(edited, window.fresh("source"), mask if place == "inside" else ~mask)
    masks = [fidelity.with_border(window.mask(version)) for version in (window.edited_mask, "mask")]
    return function(edited, window.fresh("source"), *(masks if place == "inside" else [~each for each in masks]))


def _fidelity(
    place: Place,
    family: MetricFamily,
    unit: str,
    function: Comparison,
    *,
    network: Role | None = None,
    mode: str = "",
) -> Metric:
    return Metric(
        name=f"{family.name.lower()}/{place}{mode}",
        version=2 if mode == _PIE else 1,
        unit=unit,
        family=family,
        network=network,
        needs=("true_edit",) if place == "truth" else ("source", "mask"),
        undefined=NEVER if place == "truth" else EMPTY,
        of_window=partial(_compare, function=function, place=place, network=network, bordered=mode == _PIE),
    )


_MASKED: tuple[Place, ...] = ("outside", "inside")
_EVERYWHERE: tuple[Place, ...] = (*_MASKED, "truth")
_SQUARED = "squared difference"

FIDELITY_METRICS = (
    *(_fidelity(place, fidelity.PSNR_FAMILY, "dB", fidelity.psnr) for place in _EVERYWHERE),
    *(_fidelity(place, fidelity.SSIM_FAMILY, "SSIM", fidelity.ssim) for place in _EVERYWHERE),
    *(_fidelity(place, fidelity.MSE_FAMILY, _SQUARED, fidelity.mse) for place in _EVERYWHERE),
    *(_fidelity(place, fidelity.LPIPS_FAMILY, "LPIPS", fidelity.lpips, network="lpips") for place in _EVERYWHERE),
    *(_fidelity(place, fidelity.PSNR_FAMILY, "dB", fidelity.psnr_pie, mode=_PIE) for place in _MASKED),
    *(_fidelity(place, fidelity.SSIM_FAMILY, "SSIM", fidelity.ssim_pie, mode=_PIE) for place in _MASKED),
    *(_fidelity(place, fidelity.MSE_FAMILY, _SQUARED, fidelity.mse_pie, mode=_PIE) for place in _MASKED),
    *(
        _fidelity(place, fidelity.LPIPS_FAMILY, "LPIPS", fidelity.lpips_pie, network="lpips_squeeze", mode=_PIE)
        for place in _MASKED
    ),
    Metric(
        name="mask_iou",
        unit="IoU",
        family=fidelity.MASK_IOU,
        needs=("mask", "own_mask"),
        undefined="both masks are empty in every frame",
        of_window=lambda c: fidelity.mask_iou(c.mask("own_mask"), c.mask("mask")),
    ),
)
