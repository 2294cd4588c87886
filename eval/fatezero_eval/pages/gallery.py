"""The edits of a run: for each, its videos, masks, attention and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fatezero.errors import UserError
from fatezero.types import ClipSpec
from fatezero_eval.pages.curves import EditCurves
from fatezero_eval.pages.media import Media, TiledVideo, attention_strip, tiled_video_of
from fatezero_eval.pages.shown_run import ShownRun, result_folder
from fatezero_eval.scoring.rows import BASELINES
from fatezero_eval.scoring.scoring_jobs import ScoringJob, clip_name


def edits(run: ShownRun, media: Media) -> list[dict[str, Any]]:
    """One entry for each edit with a result; what cannot be read has a `problem` in place of a video."""
    by_edit: dict[str, list[ScoringJob]] = {}
    for job in run.jobs:
        by_edit.setdefault(job.request.id, []).append(job)
    return [_edit(by_edit[name], media) for name in run.edits if name in by_edit]


def _edit(jobs: Sequence[ScoringJob], media: Media) -> dict[str, Any]:
    request = jobs[0].request
    entry: dict[str, Any] = {
        "id": request.id,
        "category": request.category,
        "clip": clip_name(request.clip),
        "source_prompt": request.source_prompt,
        "target_prompt": request.target_prompt,
        "edited_words": list(request.edited_words),
        "attention": _attention(jobs, media),
    }
    try:
        tiles, fps = tiled_video_of(request.clip)
    except UserError as error:
        return entry | {"problem": str(error), "panels": []}
    panels = _panels(jobs, tiles)
    if not tiles.clips:
        return entry | {"problem": "none of its videos can be read.", "panels": panels}
    return entry | {"fps": fps, "media": media.add(tiles.encode(fps)), "panels": panels} | tiles.layout()


def _panels(jobs: Sequence[ScoringJob], tiles: TiledVideo) -> list[dict[str, Any]]:
    first, curves = jobs[0], EditCurves()
    unedited = replace(first, variant=BASELINES[1], edited=first.request.clip, own_mask=None)
    source = _video(tiles, first.request.clip, first.mask) | _scored(curves, unedited)
    panels = [{"kind": "source", **source}]
    if first.true_edit is not None:
        panels.append({"kind": "truth", **_video(tiles, first.true_edit, first.mask)})
    variants = ({**_scored(curves, job), **_video(tiles, job.edited, job.own_mask)} for job in jobs)
    return [*panels, *({"kind": "variant", **variant} for variant in variants)]


def _video(tiles: TiledVideo, clip: ClipSpec, mask: ClipSpec | None) -> dict[str, Any]:
    try:
        tile, frames = tiles.add(clip)
        return {"tile": tile, "frames": frames} | ({"mask": tiles.add(mask)[0]} if mask else {})
    except UserError as error:
        return {"problem": str(error)}


def _scored(curves: EditCurves, job: ScoringJob) -> dict[str, Any]:
    """Whose scores a video has, and the curves that go with them."""
    names = {"variant": job.variant, "seed": job.request.seed}
    try:
        return {**names, "curves": curves.of(job)}
    except UserError as error:
        return {**names, "problem": str(error)}


def _attention(jobs: Sequence[ScoringJob], media: Media) -> list[dict[str, Any]]:
    """Where each edited word looks; variants with the same inversion share a picture."""
    found: dict[tuple[str, int], list[str]] = {}
    for job in jobs:
        for path in sorted(result_folder(job).glob("attention_*.png")):
            word = path.stem.split("_", 2)[-1].replace("_", " ")
            seen = found.setdefault((word, media.add(attention_strip(path))), [])
            if job.variant not in seen:
                seen.append(job.variant)
    return [{"word": word, "media": number, "variants": variants} for (word, number), variants in found.items()]
