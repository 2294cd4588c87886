"""The edits of a run: for each, its videos, masks, attention and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fatezero.data.layout import inside, visible
from fatezero.errors import UserError, attempt
from fatezero.types import ClipSpec, CompanionSpec
from fatezero_eval.pages.curves import EditCurves
from fatezero_eval.pages.media import FEW, HEIGHT, TALL, Media, TiledVideo, attention_strip, tiled_video_of
from fatezero_eval.pages.shown_run import ShownRun, result_folder
from fatezero_eval.scoring.clip_names import clip_name
from fatezero_eval.scoring.rows import BASELINES
from fatezero_eval.scoring.scoring_jobs import ScoringJob


def edits(run: ShownRun, media: Media) -> tuple[list[dict[str, Any]], list[str]]:
    """One entry for each edit with a result, and a sentence for each picture that cannot be read.

    What else cannot be read has a `problem` in place of a video.
    """
    by_edit: dict[str, list[ScoringJob]] = {}
    for job in run.jobs:
        by_edit.setdefault(job.request.id, []).append(job)
    problems: list[str] = []
    return [_edit(run, by_edit[name], media, problems) for name in run.edits if name in by_edit], problems


def _edit(run: ShownRun, jobs: Sequence[ScoringJob], media: Media, problems: list[str]) -> dict[str, Any]:
    request = jobs[0].request
    entry: dict[str, Any] = {
        "id": request.id,
        "category": request.category,
        "clip": clip_name(request.clip),
        "source_prompt": request.source_prompt,
        "target_prompt": request.target_prompt,
        "edited_words": list(request.edited_words),
        "attention": _attention(run, jobs, media, problems),
    }
    videos = attempt(partial(_videos, run, jobs, media))
    return entry | ({"problem": str(videos), "panels": []} if isinstance(videos, UserError) else videos)


def _videos(run: ShownRun, jobs: Sequence[ScoringJob], media: Media) -> dict[str, Any]:
    """The panels of an edit, and the video whose tiles they show."""
    first = next((job for job in jobs if job.name not in run.withheld), None)
    height = TALL if len(run.jobs) <= FEW else HEIGHT
    tiles, timing = tiled_video_of(jobs[0].edited if first is None else first.request.clip, height)
    curves = EditCurves()
    known = _known_panels(run, first or jobs[0], tiles, curves)
    panels = [*known, *(_panel(run, job, tiles, curves) for job in jobs)]
    if not tiles.clips:
        return {"problem": "none of its videos can be read.", "panels": panels}
    times = [round(time, 6) for time in tiles.times(timing)]
    return {"times": times, "media": media.add(tiles.encode(timing)), "panels": panels} | tiles.layout()


def _known_panels(run: ShownRun, first: ScoringJob, tiles: TiledVideo, curves: EditCurves) -> list[dict[str, Any]]:
    """The source, and the true edit where it is known."""
    unedited = replace(first, variant=BASELINES[1], edited=first.request.clip, own_mask=None)
    if first.name in run.withheld:
        source = _named(unedited) | {"problem": run.withheld[first.name]}
    else:
        source = _together(_video(tiles, first.request.clip, first.mask), _scored(curves, unedited))
    panels = [{"kind": "source", **source}]
    if first.true_edit is not None and first.name not in run.withheld:  # it is read beside its source
        panels.append({"kind": "truth", **_video(tiles, first.true_edit, first.mask)})
    return panels


def _panel(run: ShownRun, job: ScoringJob, tiles: TiledVideo, curves: EditCurves) -> dict[str, Any]:
    scored = _named(job) if job.name in run.withheld else _scored(curves, job)
    return {"kind": "variant"} | _together(scored, _video(tiles, job.edited, job.own_mask))


def _video(tiles: TiledVideo, clip: ClipSpec | CompanionSpec, mask: CompanionSpec | None) -> dict[str, Any]:
    found = attempt(partial(_tiles_of, tiles, clip, mask))
    return {"problem": str(found)} if isinstance(found, UserError) else found


def _tiles_of(tiles: TiledVideo, clip: ClipSpec | CompanionSpec, mask: CompanionSpec | None) -> dict[str, Any]:
    tile, frames = tiles.add(clip)
    shown = {"tile": tile, "frames": frames}
    if mask is None:
        return shown
    found = attempt(partial(tiles.add, mask))
    return shown | ({"problem": str(found)} if isinstance(found, UserError) else {"mask": found[0]})


def _together(*parts: dict[str, Any]) -> dict[str, Any]:
    """What parts of a panel say; their problems, each once, behind each other."""
    problems = dict.fromkeys(part["problem"] for part in parts if "problem" in part)
    merged = {name: value for part in parts for name, value in part.items()}
    return merged | ({"problem": " ".join(problems)} if problems else {})


def _named(job: ScoringJob) -> dict[str, Any]:
    """Whose scores a video has."""
    return {"variant": job.variant, "seed": job.request.seed}


def _scored(curves: EditCurves, job: ScoringJob) -> dict[str, Any]:
    """The same, with the curves that go with them."""
    drawn = attempt(partial(curves.of, job))
    return _named(job) | ({"problem": str(drawn)} if isinstance(drawn, UserError) else {"curves": drawn})


def _attention(run: ShownRun, jobs: Sequence[ScoringJob], media: Media, problems: list[str]) -> list[dict[str, Any]]:
    """Where each edited word looks; variants with the same inversion share a picture."""
    found: dict[tuple[str, int], list[str]] = {}
    for job in jobs:
        for path in visible(result_folder(job), "attention_*.png"):
            strip = attempt(partial(_strip, run, path))
            if isinstance(strip, UserError):
                problems.append(str(strip))
                continue
            word = path.stem.split("_", 2)[-1].replace("_", " ")
            seen = found.setdefault((word, media.add(strip)), [])
            if job.variant not in seen:
                seen.append(job.variant)
    return [{"word": word, "media": number, "variants": variants} for (word, number), variants in found.items()]


def _strip(run: ShownRun, path: Path) -> bytes:
    return attention_strip(inside(run.folder, path))
