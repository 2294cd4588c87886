"""A clip longer than a video transformer was trained on, cut into overlapping windows over time.

What is predicted in each is averaged where they overlap, weighing a latent less the nearer it stands to its window's
end (MultiDiffusion over time: Bar-Tal et al. 2023; as triangles, so that windows fade into each other).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from fatezero.attention.key_frames import Chunk


def temporal_windows(length: int, longest: int, overlap: float) -> tuple[Chunk, ...]:
    """Windows over a clip's latents, each of which is decided by the window in which it stands furthest from an end.

    Args:
        length: latents of the clip.
        longest: latents of a window; a clip that is no longer is one window.
        overlap: least share of a window that it has in common with the next one.
    """
    if length <= longest:
        return (Chunk(tuple(range(length)), tuple(range(length))),)
    common = ceil(round(longest * overlap, 6))  # 0.55 of 20 are 11, and no more for being a floating-point number
    farthest = max(1, longest - common)
    count = 1 + ceil((length - longest) / farthest)
    starts = [round(i * (length - longest) / (count - 1)) for i in range(count)]
    depths = [[_depth(latent - start, longest) for latent in range(length)] for start in starts]
    owner = [max(range(count), key=lambda window: (depths[window][latent], -window)) for latent in range(length)]
    return tuple(
        Chunk(
            tuple(range(start, start + longest)),
            tuple(place for place in range(longest) if owner[start + place] == window),
        )
        for window, start in enumerate(starts)
    )


def window_weights(chunks: Sequence[Chunk]) -> list[list[float]]:
    """What each latent of each window counts for; 1 in all for each latent of the clip."""
    depths = [[_depth(place, len(chunk.frames)) for place in range(len(chunk.frames))] for chunk in chunks]
    total: dict[int, int] = {}
    for chunk, depth in zip(chunks, depths, strict=True):
        for frame, one in zip(chunk.frames, depth, strict=True):
            total[frame] = total.get(frame, 0) + one
    return [
        [one / total[frame] for frame, one in zip(chunk.frames, depth, strict=True)]
        for chunk, depth in zip(chunks, depths, strict=True)
    ]


def _depth(place: int, longest: int) -> int:
    """How far a place stands within a window, 1 at its ends; 0 outside."""
    return max(0, min(place + 1, longest - place))
