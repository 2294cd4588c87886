"""All metrics as data: what each is called, what it needs, which way is better, and what computes it.

A change to a metric's formula, model, colour range, reduction or NaN policy is a new version, so a new id.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal

from torch import Tensor

from fatezero.errors import UserError
from fatezero_eval import consistency, fidelity, flickering, motion, structure, text, warp_error
from fatezero_eval.clips import Chunk
from fatezero_eval.state import ClipMean

Model = Literal[
    "clip", "pick", "dino", "lpips", "lpips_squeeze", "flow", "motion"
]  # motion: known flow, else estimated
Version = Literal["mask", "own_mask", "true_edit"]


@dataclass(frozen=True)
class Embeddings:
    """A whole clip as its encoder sees it.

    Attributes:
        edited: F,D edited frames.
        bottom_square: F,D the same, portrait frames cropped to their bottom square first.
        pooled: F,E edited frames before the projection; None where the model has none.
        source: F,D source frames.
        source_prompt: D.
        target_prompt: D.
        logit_scale: the encoder's own.
    """

    edited: Tensor
    bottom_square: Tensor
    pooled: Tensor | None
    source: Tensor
    source_prompt: Tensor
    target_prompt: Tensor
    logit_scale: Tensor


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: family, or family/mode.
        version: rises with every change of meaning.
        unit: of the stored value.
        family: its torchmetrics class or that of its default mode, which says which way is better; None where
            no way is.
        model: what it needs beside frames; None for none.
        needs: versions of the clip that not every benchmark has.
        display: tables show the value times this.
        undefined: when it is NaN.
        of_clip: values from a whole clip's embeddings, of which the clip's value is the mean.
        of_chunk: one value for each fresh frame or pair of a chunk, of which the clip's value is the mean.
    """

    name: str
    version: int = 1
    unit: str
    family: type[ClipMean] | None
    model: Model | None = None
    needs: tuple[Version, ...] = ()
    display: float = 1
    undefined: str
    of_clip: Callable[[Embeddings], Tensor] | None = None
    of_chunk: Callable[[Chunk], Tensor] | None = None

    @property
    def id(self) -> str:
        """Name and version, as rows carry it."""
        return f"{self.name}@{self.version}"

    @property
    def higher_is_better(self) -> bool | None:
        """Which way the arrow points; None where it points nowhere."""
        return None if self.family is None else self.family.higher_is_better


ONE_FRAME = "the clip has one frame"
NO_PIXELS = "no pixel is visible in both frames of any pair, or the clip has one frame"
EMPTY = "the mask leaves no pixel in any frame"
NEVER = "never"


def _unprojected(clip: Embeddings) -> Tensor:
    return consistency.adjacent(clip.edited[:0] if clip.pooled is None else clip.pooled)


CLIP_METRICS = (
    Metric(
        name="text_alignment",
        unit="100 cos",
        family=text.TextAlignment,
        model="clip",
        undefined=NEVER,
        of_clip=lambda c: text.text_alignment(c.edited, c.target_prompt),
    ),
    Metric(
        name="frame_accuracy",
        unit="share of frames",
        family=text.FrameAccuracy,
        model="clip",
        undefined=NEVER,
        of_clip=lambda c: text.frame_accuracy(c.edited, c.source_prompt, c.target_prompt),
    ),
    Metric(
        name="frame_accuracy/fatezero",
        unit="share of frames",
        family=text.FrameAccuracy,
        model="clip",
        undefined=NEVER,
        of_clip=lambda c: text.frame_accuracy(c.bottom_square, c.source_prompt, c.target_prompt),
    ),
    Metric(
        name="directional_similarity",
        unit="cos",
        family=text.DirectionalSimilarity,
        model="clip",
        undefined="the frames or the prompts did not change",
        of_clip=lambda c: text.direction_of_frames(c.edited, c.source, c.source_prompt, c.target_prompt),
    ),
    Metric(
        name="pick_score",
        unit="logit",
        family=text.PickScore,
        model="pick",
        undefined=NEVER,
        of_clip=lambda c: text.pick_score(c.edited, c.target_prompt, c.logit_scale),
    ),
    Metric(
        name="frame_consistency",
        unit="cos",
        family=consistency.FrameConsistency,
        model="clip",
        undefined=ONE_FRAME,
        of_clip=lambda c: consistency.adjacent(c.edited),
    ),
    Metric(
        name="frame_consistency/fatezero",
        unit="cos",
        family=consistency.FrameConsistency,
        model="clip",
        undefined=ONE_FRAME,
        of_clip=lambda c: consistency.adjacent(c.bottom_square),
    ),
    Metric(
        name="frame_consistency/all_pairs",
        unit="cos",
        family=consistency.AllPairsConsistency,
        model="clip",
        undefined=ONE_FRAME,
        of_clip=lambda c: consistency.all_pairs(c.edited),
    ),
    Metric(
        name="frame_consistency/vbench",
        unit="cos",
        family=consistency.VBenchConsistency,
        model="clip",
        undefined=ONE_FRAME,
        of_clip=lambda c: consistency.vbench(c.edited),
    ),
    Metric(
        name="frame_consistency/unprojected",
        unit="cos",
        family=consistency.FrameConsistency,
        model="clip",
        undefined="the clip has one frame, or the judge's vision tower has no projection",
        of_clip=_unprojected,
    ),
)

MOTION_METRICS = (
    Metric(
        name="warp_error",
        unit="squared difference",
        family=warp_error.WarpError,
        model="motion",
        display=1000,
        undefined=NO_PIXELS,
        of_chunk=lambda c: warp_error.default_of_pairs(c.every("edited"), c.motion[0], c.valid),
    ),
    Metric(
        name="warp_error/lai2018",
        unit="squared difference",
        family=warp_error.WarpError,
        model="motion",
        display=1000,
        undefined=ONE_FRAME,
        of_chunk=lambda c: warp_error.lai2018_of_pairs(c.every("edited"), *c.motion),
    ),
    Metric(
        name="warp_error/rerender_pixel_mse",
        unit="squared difference",
        family=warp_error.WarpError,
        model="motion",
        display=1000,
        undefined=ONE_FRAME,
        of_chunk=lambda c: warp_error.rerender_of_pairs(c.every("edited"), *c.motion),
    ),
    Metric(
        name="warp_error/evalcrafter",
        unit="squared difference, summed over channels",
        family=warp_error.WarpError,
        model="motion",
        undefined=ONE_FRAME,
        of_chunk=lambda c: warp_error.evalcrafter_of_pairs(c.every("edited"), *c.motion),
    ),
    Metric(
        name="warp_error/rave_warpssim",
        unit="squared difference",
        family=warp_error.WarpError,
        model="motion",
        display=1000,
        undefined=ONE_FRAME,
        of_chunk=lambda c: warp_error.wrong_way_of_pairs(c.every("edited"), c.motion[0]),
    ),
    Metric(
        name="warp_ssim",
        unit="SSIM",
        family=warp_error.WarpSSIM,
        model="motion",
        undefined=NO_PIXELS,
        of_chunk=lambda c: warp_error.warp_ssim_of_pairs(c.every("edited"), c.motion[0], c.valid),
    ),
    Metric(
        name="warp_ssim/rave",
        unit="SSIM",
        family=warp_error.WarpSSIM,
        model="motion",
        undefined=ONE_FRAME,
        of_chunk=lambda c: warp_error.rave_of_pairs(c.every("edited"), c.motion[0]),
    ),
    Metric(
        name="valid_pixels",
        unit="share of pixels",
        family=None,
        model="motion",
        undefined=ONE_FRAME,
        of_chunk=lambda c: c.valid.double().mean((1, 2)),
    ),
    Metric(
        name="temporal_flickering",
        unit="1 - mean difference",
        family=flickering.TemporalFlickering,
        undefined=ONE_FRAME,
        of_chunk=lambda c: flickering.flickering_of_pairs(c.every("edited")),
    ),
    Metric(
        name="motion_fidelity",
        unit="pixels",
        family=motion.MotionFidelity,
        model="flow",
        undefined=ONE_FRAME,
        of_chunk=lambda c: motion.endpoint_error_of_pairs(c.forward("source"), c.forward("edited")),
    ),
)


def _structure(chunk: Chunk) -> Tensor:
    dino = chunk.models.dino
    assert dino is not None
    keys = [dino.keys(chunk.frames[version][chunk.overlap :]) for version in ("source", "edited")]
    return structure.structure_distance_of_frames(*keys)


STRUCTURE_METRICS = (
    Metric(
        name="structure_distance",
        unit="squared cos",
        family=structure.StructureDistance,
        model="dino",
        display=1000,
        undefined=NEVER,
        of_chunk=_structure,
    ),
)

Place = Literal["outside", "inside", "truth"]
Comparison = Callable[..., Tensor]  # two clips F,3,H,W and a mask F,H,W to F values; LPIPS takes its network too


def _compare(chunk: Chunk, function: Comparison, place: Place, model: Model | None) -> Tensor:
    if model is not None:
        function = partial(function, network=getattr(chunk.models, model))
    edited = chunk.fresh("edited")
    if place == "truth":
        return function(edited, chunk.fresh("true_edit"), fidelity.everywhere(edited))
    mask = chunk.mask("mask")
    return function(edited, chunk.fresh("source"), mask if place == "inside" else ~mask)


def _fidelity(
    place: Place,
    family: type[ClipMean],
    unit: str,
    function: Comparison,
    *,
    model: Model | None = None,
    mode: str = "",
) -> Metric:
    return Metric(
        name=f"{family.__name__.lower()}/{place}{mode}",
        unit=unit,
        family=family,
        model=model,
        needs=("true_edit",) if place == "truth" else ("mask",),
        undefined=NEVER if place == "truth" else EMPTY,
        of_chunk=partial(_compare, function=function, place=place, model=model),
    )


_EVERYWHERE: tuple[Place, ...] = ("outside", "inside", "truth")
_MASKED = _EVERYWHERE[:2]
_PIE = "/pie_compat"
_SQUARED = "squared difference"

FIDELITY_METRICS = (
    *(_fidelity(place, fidelity.PSNR, "dB", fidelity.psnr) for place in _EVERYWHERE),
    *(_fidelity(place, fidelity.SSIM, "SSIM", fidelity.ssim) for place in _EVERYWHERE),
    *(_fidelity(place, fidelity.MSE, _SQUARED, fidelity.mse) for place in _EVERYWHERE),
    *(_fidelity(place, fidelity.LPIPS, "LPIPS", fidelity.lpips, model="lpips") for place in _EVERYWHERE),
    *(_fidelity(place, fidelity.PSNR, "dB", fidelity.psnr_pie, mode=_PIE) for place in _MASKED),
    *(_fidelity(place, fidelity.SSIM, "SSIM", fidelity.ssim_pie, mode=_PIE) for place in _MASKED),
    *(_fidelity(place, fidelity.MSE, _SQUARED, fidelity.mse_pie, mode=_PIE) for place in _MASKED),
    *(
        _fidelity(place, fidelity.LPIPS, "LPIPS", fidelity.lpips_pie, model="lpips_squeeze", mode=_PIE)
        for place in _MASKED
    ),
    Metric(
        name="mask_iou",
        unit="IoU",
        family=fidelity.MaskIoU,
        needs=("mask", "own_mask"),
        undefined="both masks are empty in every frame",
        of_chunk=lambda c: fidelity.mask_iou(c.mask("own_mask"), c.mask("mask")),
    ),
)

METRICS = (*CLIP_METRICS, *MOTION_METRICS, *STRUCTURE_METRICS, *FIDELITY_METRICS)

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
    for metric in METRICS:
        if metric.id == metric_id:
            return metric
    raise UserError(
        f"these rows hold the metric {metric_id!r}, which this version does not know; score the clips again."
    )
