"""How far each method's edited clips lie, as a set, from the source clips and from the true edits."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path

import numpy as np

from fatezero.clips.video import iter_frames, probe
from fatezero.errors import UserError, attempt
from fatezero.system.publishing import replacing
from fatezero.types import ClipSpec, CompanionSpec
from fatezero_eval.file_names import SET_DISTANCES
from fatezero_eval.metrics.set_distance import Features, biased_mmd, frechet_distance, unbiased_mmd
from fatezero_eval.networks.array_cache import ArrayCache, digest
from fatezero_eval.networks.video_features import VideoNetwork
from fatezero_eval.networks.video_folders import evenly_spaced
from fatezero_eval.scoring.clip_names import unit_name
from fatezero_eval.scoring.rows import as_cell
from fatezero_eval.scoring.scoring_jobs import ScoringJob
from fatezero_eval.scoring.windows import frames_at

FEWEST_CLIPS = 6
"""For a jackknife of the discrepancy: with fewer clips no mean has an interval here either."""

TRUE_EDITS = "truth"
"""What the true edits are called where they stand as a method or as a reference."""

Clip = ClipSpec | CompanionSpec
VideosOfClips = dict[str, dict[Clip, Features]]  # by clip, its videos
OfClips = Sequence[Features]  # by clip, N,D


def _jedi(ours: OfClips, theirs: OfClips) -> tuple[float, None]:
    return biased_mmd(np.concatenate(ours), np.concatenate(theirs)), None


def _frechet(ours: OfClips, theirs: OfClips) -> tuple[float, None]:
    one, other = np.concatenate(ours), np.concatenate(theirs)
    fewest, width = min(len(one), len(other)), one.shape[1]
    if fewest <= width:
        raise UserError(f"{fewest} videos span no covariance of {width} features: at least {width + 1} are needed")
    return frechet_distance(one, other), None


_MEASURES: Mapping[str, Callable[[OfClips, OfClips], tuple[float, float | None]]] = {
    "polynomial_mmd@1": unbiased_mmd,
    "polynomial_mmd/jedi@1": _jedi,
    "frechet_distance@1": _frechet,
}
DISTANCES_OF_SETS = tuple(_MEASURES)


@dataclass(frozen=True, kw_only=True)
class SetDistance:
    """One distance between two sets of videos.

    Attributes:
        metric: id with version.
        variant: the method, or `truth` for the true edits themselves.
        reference: the other set, `source` or `truth`.
        value: None where undefined.
        standard_error: over clips; None where it is not known.
        clips: how many clips both sets have.
        videos: how many videos of them the variant has.
        references: how many the reference has.
        reason: why the value is None.
        model: the network that sees the videos.
    """

    metric: str
    variant: str
    reference: str
    value: float | None
    standard_error: float | None
    clips: int
    videos: int
    references: int
    reason: str
    model: str


@dataclass(frozen=True)
class SetDistances:
    """All distances between sets, and what they lack.

    Attributes:
        values: by variant, reference and metric.
        failures: by video, why it is in no set.
    """

    values: tuple[SetDistance, ...] = ()
    failures: Mapping[str, str] = field(default_factory=dict)


def set_distances(jobs: Sequence[ScoringJob], network: VideoNetwork, kept: ArrayCache) -> SetDistances:
    """Distances between each variant's videos and their sources, and between them and the true edits.

    The true edits stand as a variant of their own, `truth`: how far from the sources a perfect method would lie.

    Args:
        jobs: the edits, without baselines.
        network: sees a video as a vector.
        kept: keeps these.
    """
    edits: dict[str, list[tuple[Clip, ScoringJob]]] = {}
    for job in jobs:
        edits.setdefault(job.variant, []).append((job.edited, job))
    edits[TRUE_EDITS] = [(job.true_edit, job) for job in jobs if job.true_edit]
    seen: dict[Clip, Features | UserError] = {}
    values = []
    for variant, videos in edits.items():
        for reference in ("source", TRUE_EDITS):
            if variant != reference and videos:
                sets = _sets(videos, reference, partial(_look, network, kept, seen))
                values += [_distance(metric, variant, reference, *sets, network.id) for metric in DISTANCES_OF_SETS]
    failures: dict[str, str] = {}
    for video, found in seen.items():
        if isinstance(found, UserError) and str(found) not in failures.values():
            failures[f"the video network on {_path(video)}"] = str(found)
    return SetDistances(tuple(values), failures)


def write_set_distances(folder: Path, distances: Sequence[SetDistance]) -> None:
    """Write `set_distances.csv`, whole or not at all; without any it goes."""
    path = folder / SET_DISTANCES
    if not distances:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as partly, partly.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(SetDistance)])
        writer.writeheader()
        writer.writerows({name: as_cell(value) for name, value in asdict(found).items()} for found in distances)


def _look(
    network: VideoNetwork, kept: ArrayCache, seen: dict[Clip, Features | UserError], video: Clip
) -> Features | UserError:
    """The features of a video, D, or why there are none; each video is looked at once."""
    if video not in seen:
        seen[video] = attempt(partial(_features, network, kept, video))
    return seen[video]


def _features(network: VideoNetwork, kept: ArrayCache, video: Clip) -> Features:
    frames = frames_at(partial(iter_frames, video), evenly_spaced(probe(video).frames, network.shown))
    key = digest("video features", network.id, frames)
    return kept.get(key, lambda: {"features": network.features(frames)})["features"].astype(np.float64)


def _path(video: Clip) -> str:
    return video.path if isinstance(video, ClipSpec) else str(video.content)


def _sets(
    edits: Iterable[tuple[Clip, ScoringJob]], reference: str, look: Callable[[Clip], Features | UserError]
) -> tuple[VideosOfClips, VideosOfClips]:
    """The edits and what they are compared with, where both are known."""
    one: VideosOfClips = {}
    other: VideosOfClips = {}
    for video, job in edits:
        source = job.request.clip if job.request.has_source else None
        beside = source if reference == "source" else job.true_edit
        if beside is None:
            continue
        found, theirs = look(video), look(beside)
        if not isinstance(found, UserError) and not isinstance(theirs, UserError):
            clip = unit_name(job.request)
            one.setdefault(clip, {})[video] = found
            other.setdefault(clip, {})[beside] = theirs
    return one, other


def _distance(
    metric: str, variant: str, reference: str, one: VideosOfClips, other: VideosOfClips, model: str
) -> SetDistance:
    ours, theirs = ([np.stack([*videos.values()]) for videos in clips.values()] for clips in (one, other))
    outcome = attempt(partial(_value, metric, ours, theirs))
    value, error = (None, None) if isinstance(outcome, UserError) else outcome
    return SetDistance(
        metric=metric,
        variant=variant,
        reference=reference,
        value=value,
        standard_error=error,
        clips=len(ours),
        videos=sum(map(len, ours)),
        references=sum(map(len, theirs)),
        reason=str(outcome) if isinstance(outcome, UserError) else "",
        model=model,
    )


def _value(metric: str, ours: OfClips, theirs: OfClips) -> tuple[float, float | None]:
    """A distance, and its standard error if that is known; a UserError where it is not defined."""
    if len(ours) < FEWEST_CLIPS:
        raise UserError(f"both sets know {len(ours)} clips, and at least {FEWEST_CLIPS} are needed")
    return _MEASURES[metric](ours, theirs)
