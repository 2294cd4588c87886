"""Windows over a clip that is longer than a model was trained on."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fatezero.attention.key_frames import Chunk
from fatezero.diffusion.temporal_windows import temporal_windows, window_weights


def test_a_clip_that_is_no_longer_is_one_window() -> None:
    assert temporal_windows(5, 5, 0.5) == (Chunk((0, 1, 2, 3, 4), (0, 1, 2, 3, 4)),)
    assert window_weights(temporal_windows(3, 5, 0.5)) == [[1, 1, 1]]


def test_windows_overlap_by_half() -> None:
    """The middle latent of the overlap is as far from both ends: the first window decides it."""
    first, second = temporal_windows(7, 5, 0.5)
    assert (first.frames, second.frames) == ((0, 1, 2, 3, 4), (2, 3, 4, 5, 6))
    assert (first.own, second.own) == ((0, 1, 2, 3), (2, 3, 4))
    early, late = window_weights((first, second))
    assert early == [1, 1, 3 / 4, 2 / 4, 1 / 4]
    assert late == [1 / 4, 2 / 4, 3 / 4, 1, 1]


@pytest.mark.parametrize(("overlap", "count"), [(0.8, 3), (0.55, 2), (0.9, 5)])
def test_windows_overlap_by_no_more_than_asked(overlap: float, count: int) -> None:
    """Windows of 20 over 28 latents: at most 4, 9 or 2 apart."""
    assert len(temporal_windows(28, 20, overlap)) == count


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(("length", "longest"), [(6, 5), (21, 21), (22, 21), (60, 21), (7, 1), (9, 2)])
def test_each_latent_is_decided_once_and_weighs_one(length: int, longest: int, overlap: float) -> None:
    windows = temporal_windows(length, longest, overlap)
    decided = [window.frames[place] for window in windows for place in window.own]
    assert decided == list(range(length))
    total = [0.0] * length
    for window, weights in zip(windows, window_weights(windows), strict=True):
        assert window.frames == tuple(range(window.frames[0], window.frames[0] + min(length, longest)))
        for frame, weight in zip(window.frames, weights, strict=True):
            assert weight > 0
            total[frame] += weight
    assert total == pytest.approx([1.0] * length)
    for one, other in pairwise(windows):
        shared = len({*one.frames} & {*other.frames})
        assert shared >= overlap * longest or shared == longest - 1
