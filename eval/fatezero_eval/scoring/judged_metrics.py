"""Metrics that look at frames through what was learnt of others: CLIP, video-text, PickScore, NIQE, DINO."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from fatezero_eval.metrics import aesthetic, consistency, niqe, structure, text
from fatezero_eval.scoring.judged_pictures import bottom_squares, inside_mask, squashed, whole_frames
from fatezero_eval.scoring.metric import ONE_FRAME, Embeddings, Metric
from fatezero_eval.scoring.windows import Window


def _unprojected(clip: Embeddings) -> Tensor:
    return consistency.adjacent(clip.edited[:0] if clip.pooled is None else clip.pooled)


_judged = partial(Metric, network="clip")
_recognised = partial(Metric, network="dino", unit="cos", undefined=ONE_FRAME)


def _logit(clip: Embeddings) -> Tensor:
    return text.pick_score(clip.edited, clip.target_prompt, clip.logit_scale)


def _directional(clip: Embeddings) -> Tensor:
    assert clip.source is not None
    return text.direction_of_frames(clip.edited, clip.source, clip.source_prompt, clip.target_prompt)


def _aesthetic(window: Window) -> Tensor:
    head = window.networks.aesthetic
    assert head is not None
    frames = window.embeddings(head.judge, "edited", whole_frames(window, "edited"))["projected"]
    head.check(frames.shape[1])
    return aesthetic.aesthetic_of_frames(frames, head.weight, head.bias)


def _niqe(window: Window) -> Tensor:
    photos = window.networks.niqe
    assert photos is not None
    return niqe.niqe_of_frames(window.fresh("edited"), photos.mean, photos.covariance)


def _of_video(look: Callable[[], tuple[Tensor, Tensor]]) -> Tensor:
    video, prompt = look()
    return text.text_alignment(video[None], prompt)


CLIP_METRICS = (
    _judged(
        name="text_alignment",
        needs=("target_prompt",),
        unit="100 cos",
        family=text.TEXT_ALIGNMENT,
        of_clip=lambda c: text.text_alignment(c.edited, c.target_prompt),
    ),
    _judged(
        name="text_alignment/tgve",
        needs=("target_prompt",),
        unit="logit",
        family=text.TEXT_ALIGNMENT,
        shown=squashed,
        of_clip=_logit,
    ),
    _judged(
        name="text_alignment/inside/pie_compat",
        needs=("mask", "target_prompt"),
        unit="100 cos",
        family=text.TEXT_ALIGNMENT,
        shown=inside_mask,
        of_clip=lambda c: text.inside_alignment(c.edited, c.target_prompt),
    ),
    _judged(
        name="frame_accuracy",
        needs=("source_prompt", "target_prompt"),
        unit="share of frames",
        family=text.FRAME_ACCURACY,
        of_clip=lambda c: text.frame_accuracy(c.edited, c.source_prompt, c.target_prompt),
    ),
    _judged(
        name="frame_accuracy/fatezero",
        needs=("source_prompt", "target_prompt"),
        unit="share of frames",
        family=text.FRAME_ACCURACY,
        shown=bottom_squares,
        of_clip=lambda c: text.frame_accuracy(c.edited, c.source_prompt, c.target_prompt),
    ),
    _judged(
        name="directional_similarity",
        needs=("source", "source_prompt", "target_prompt"),
        unit="cos",
        family=text.DIRECTIONAL_SIMILARITY,
        undefined="the frames or the prompts did not change",
        of_clip=_directional,
    ),
    Metric(
        name="pick_score",
        needs=("target_prompt",),
        unit="logit",
        family=text.PICK_SCORE,
        network="pick",
        of_clip=_logit,
    ),
    Metric(
        name="pick_score/tgve",
        needs=("target_prompt",),
        unit="logit",
        family=text.PICK_SCORE,
        network="pick",
        shown=squashed,
        of_clip=_logit,
    ),
    Metric(
        name="video_text_alignment",
        needs=("target_prompt",),
        unit="100 cos",
        family=text.TEXT_ALIGNMENT,
        network="video_text",
        of_clip=_of_video,
    ),
    Metric(
        name="aesthetic_quality",
        unit="rating / 10",
        family=aesthetic.AESTHETIC_QUALITY,
        network="aesthetic",
        of_window=_aesthetic,
    ),
    Metric(
        name="niqe",
        unit="distance",
        family=niqe.NIQE_FAMILY,
        network="niqe",
        undefined="no frame has two textured blocks of 96 x 96 pixels",
        of_window=_niqe,
    ),
    _judged(
        name="frame_consistency",
        unit="cos",
        family=consistency.FRAME_CONSISTENCY,
        undefined=ONE_FRAME,
        of_clip=lambda c: consistency.adjacent(c.edited),
    ),
    _judged(
        name="frame_consistency/fatezero",
        unit="cos",
        family=consistency.FRAME_CONSISTENCY,
        undefined=ONE_FRAME,
        shown=bottom_squares,
        of_clip=lambda c: consistency.adjacent(c.edited),
    ),
    _judged(
        name="frame_consistency/all_pairs",
        unit="cos",
        family=consistency.ALL_PAIRS_CONSISTENCY,
        undefined=ONE_FRAME,
        of_clip=lambda c: consistency.all_pairs(c.edited),
    ),
    _judged(
        name="frame_consistency/tgve",
        unit="cos",
        family=consistency.ALL_PAIRS_CONSISTENCY,
        undefined=ONE_FRAME,
        shown=squashed,
        of_clip=lambda c: consistency.all_pairs(c.edited),
    ),
    _judged(
        name="frame_consistency/vbench",
        unit="cos",
        family=consistency.VBENCH_CONSISTENCY,
        undefined=ONE_FRAME,
        of_clip=lambda c: consistency.vbench(c.edited),
    ),
    _judged(
        name="frame_consistency/unprojected",
        unit="cos",
        family=consistency.FRAME_CONSISTENCY,
        undefined="the clip has one frame, or the judge's vision tower has no projection",
        of_clip=_unprojected,
    ),
)

SUBJECT_METRICS = (
    _recognised(name="subject_consistency", family=consistency.VBENCH_CONSISTENCY, of_clip=consistency.vbench),
    _recognised(
        name="subject_consistency/adjacent", family=consistency.FRAME_CONSISTENCY, of_clip=consistency.adjacent
    ),
)


def _structure(window: Window) -> Tensor:
    dino = window.networks.dino
    assert dino is not None
    keys = [dino.keys(window.fresh_frames(version)) for version in ("source", "edited")]
    return structure.structure_distance_of_frames(*keys)


STRUCTURE_METRICS = (
    Metric(
        name="structure_distance",
        needs=("source",),
        unit="squared cos",
        family=structure.STRUCTURE_DISTANCE,
        network="dino",
        display=1000,
        of_window=_structure,
    ),
)
