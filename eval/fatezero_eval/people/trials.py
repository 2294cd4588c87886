"""Pairs of videos: who meets whom, sides and checks by chance; and the video whose tiles they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import combinations
from typing import Any

import numpy as np

from fatezero.errors import UserError, attempt
from fatezero.types import Frames
from fatezero_eval.pages.media import Media, TiledVideo, tiled_video_of
from fatezero_eval.people.study_key import Side, Trial
from fatezero_eval.scoring.clip_names import unit_name
from fatezero_eval.scoring.scoring_jobs import ScoringJob

PIECES = 6  # along each side of a frame that is cut up for a check
CRF = 16  # of H.264: hard to tell from the frames

Tiles = tuple[int, int]


@dataclass(frozen=True)
class ShownEdit:
    """One edit as the page shows it.

    Attributes:
        entry: what the page is told: prompts, video, tiles; no method's name.
        trials: pairs, each with the tiles of its first and second video.
        problems: a sentence for each thing that is left out.
        chance: a number that only who has the frames can know.
    """

    entry: Mapping[str, Any]
    trials: Sequence[tuple[Trial, Tiles]]
    problems: Sequence[str]
    chance: int


def show_edit(results: Mapping[str, ScoringJob], checks: int, height: int, media: Media, seed: int) -> ShownEdit:
    """Pair all methods' videos of an edit, and some with themselves in pieces.

    All videos of the edit, the source's too, are tiles of one, in an order by chance. They have the source's size, rate
    and length, or the first method's where there is no source.

    Args:
        results: the edit's results by method.
        checks: how many pairs have a known answer.
        height: rows of a video, at most.
        media: takes the video.
        seed: with the videos it decides order, sides, and which are cut to pieces.

    Raises:
        UserError: the source, or what else gives the size, or all but one of the results cannot be read.
    """
    first = next(iter(results.values()))
    request = first.request
    tiles, timing = tiled_video_of(request.clip if request.has_source else first.edited, height)
    sources = [tiles.read(request.clip)] if request.has_source else []
    frames, problems = _readable(results, tiles)
    rng = _chance(seed, frames.values())
    cut = [str(method) for method in rng.choice(list(frames), checks)]
    place = _tiled(tiles, [*frames.values(), *(in_pieces(frames[method], rng) for method in cut), *sources], rng)
    tile_of = dict(zip(frames, place, strict=False))
    pairs = list(combinations(frames, 2))
    same = [pair for pair in pairs if tile_of[pair[0]] == tile_of[pair[1]]]
    problems += [f"{request.id}: {one} and {other} made the same frames, so nobody is asked." for one, other in same]
    trials = [
        _by_chance(_trial(results, *pair), (tile_of[pair[0]], tile_of[pair[1]]), rng)
        for pair in pairs
        if pair not in same
    ]
    for method, tile in zip(cut, place[len(frames) :], strict=False):
        trials.append(_by_chance(_trial(results, method, method, right=0), (tile_of[method], tile), rng))
    entry = {
        "source_prompt": request.source_prompt,
        "target_prompt": request.target_prompt,
        "times": [round(time, 6) for time in tiles.times(timing)],
        "source": place[-1] if request.has_source else None,
        "media": media.add(tiles.encode(timing, CRF)),
    }
    return ShownEdit(entry | tiles.layout(), trials, problems, int(rng.integers(2**32)))


def in_pieces(frames: Frames, rng: np.random.Generator) -> Frames:
    """The same frames F,H,W,3, each cut into `PIECES` by `PIECES` parts that change places anew in every frame."""
    height, width = frames.shape[1] // PIECES, frames.shape[2] // PIECES
    corners = [(row * height, column * width) for row in range(PIECES) for column in range(PIECES)]
    pieces = frames.copy()
    for before, after in zip(frames, pieces, strict=True):
        for (top, left), number in zip(corners, rng.permutation(len(corners)), strict=True):
            y, x = corners[number]
            after[top : top + height, left : left + width] = before[y : y + height, x : x + width]
    return pieces


def _readable(results: Mapping[str, ScoringJob], tiles: TiledVideo) -> tuple[dict[str, Frames], list[str]]:
    """Frames by method, and why some have none."""
    read = {method: attempt(partial(tiles.read, job.edited)) for method, job in results.items()}
    frames = {method: found for method, found in read.items() if not isinstance(found, UserError)}
    failures = {method: found for method, found in read.items() if isinstance(found, UserError)}
    problems = [f"{method}/{results[method].request.id}: {why}" for method, why in failures.items()]
    if len(frames) < 2:
        raise UserError("\n".join(problems))
    return frames, problems


def _chance(seed: int, videos: Iterable[Frames]) -> np.random.Generator:
    """Equal for equal seeds and pixels; nobody can work it out from a page, whose videos are lossy."""
    content = blake2b(digest_size=8)
    for frames in videos:
        content.update(frames.tobytes())
    return np.random.default_rng([seed, int.from_bytes(content.digest())])


def _tiled(tiles: TiledVideo, videos: Sequence[Frames], rng: np.random.Generator) -> list[int]:
    """The tile of each video: they are laid in an order by chance, which tells nothing of who made them."""
    order = rng.permutation(len(videos)).tolist()
    place = {number: tiles.put(videos[number]) for number in order}
    return [place[number] for number in range(len(videos))]


def _trial(results: Mapping[str, ScoringJob], one: str, other: str, right: int | None = None) -> Trial:
    request = results[one].request
    first, second = (Side(method=method, seed=results[method].request.seed) for method in (one, other))
    named = {"edit": request.id, "clip": unit_name(request), "category": request.category}
    return Trial(**named, first=first, second=second, right=right)


def _by_chance(trial: Trial, tiles: Tiles, rng: np.random.Generator) -> tuple[Trial, Tiles]:
    """The pair, in this order or the other."""
    if rng.random() < 0.5:
        return trial, tiles
    right = None if trial.right is None else 1 - trial.right
    return replace(trial, first=trial.second, second=trial.first, right=right), (tiles[1], tiles[0])
