"""The matrix: of every kind of clip, the project's frames, times and notes are those of a player."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from fatezero.clips import decode
from fatezero.clips.decode import open_video
from fatezero.clips.video import probe, read_clip
from fatezero.types import Clip, ClipSpec, Timing
from tests.clips.colour_patches import PATCHES, patch_frames, patches_of
from tests.clips.encoding import numbered_frames, numbers_of
from tests.clips.matrix import CLIPS, END_UNKNOWN, MatrixClip
from tests.clips.player import Playback, shown_by_ffmpeg

HAS_DECORD = importlib.util.find_spec("decord") is not None
MILLISECOND = 1e-3
IMAGES = (".gif", ".webp", ".apng")
NUMBERED = [name for name, clip in CLIPS.items() if clip.equals != "patches"]
VIDEOS = [name for name in CLIPS if not name.endswith(IMAGES)]
READERS = ["usual", "PyAV alone"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[MatrixClip], Path]:
    """Makes a clip of the matrix, once."""
    folder = tmp_path_factory.mktemp("matrix")

    def make(clip: MatrixClip) -> Path:
        path = folder / clip.name
        if not path.exists():
            clip.make(path)
        return path

    return make


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Reads as usual, and as on a machine without decord."""
    if request.param != "usual":
        monkeypatch.setattr(decode.importlib.util, "find_spec", lambda name: None)
    return str(request.param)


def read(path: Path, **choice: object) -> Clip:
    return read_clip(ClipSpec(path=str(path), **choice))


@cache
def read_whole(path: Path, reader: str) -> Clip:
    """A whole clip, read once by each reader."""
    return read(path)


@cache
def shown(path: Path) -> Playback:
    return shown_by_ffmpeg(path)


def starts(timing: Timing, count: int) -> list[float]:
    return [index / timing for index in range(count)] if isinstance(timing, float) else list(timing[:-1])


@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_those_that_a_player_shows(built, reader, name):
    clip = CLIPS[name]
    frames = read_whole(path := built(clip), reader).frames
    assert frames.shape == (len(clip.shows), *clip.size, 3)
    if clip.equals == "patches":
        assert np.abs(patches_of(frames).astype(int) - PATCHES).max() <= 3
    elif clip.equals == "pictures":
        channels = slice(1, 2) if name.endswith(".gif") else slice(None)
        np.testing.assert_array_equal(frames[..., channels], numbered_frames(len(frames))[..., channels])
    elif clip.equals == "scaled":
        scaled = [
            np.asarray(Image.fromarray(frame).resize(clip.size[::-1], Image.Resampling.BICUBIC))
            for frame in shown(path).frames
        ]
        assert np.abs(frames.astype(int) - np.stack(scaled)).mean() < 2
    else:
        np.testing.assert_array_equal(frames, shown(path).frames[clip.spoilt :])


@pytest.mark.parametrize("name", NUMBERED)
def test_frames_carry_the_numbers_that_are_to_be_shown(built, reader, name):
    """Known beforehand: that FFmpeg and the project agree would not show a mistake of both."""
    assert numbers_of(read_whole(built(CLIPS[name]), reader).frames) == list(CLIPS[name].shows)


@pytest.mark.parametrize("name", CLIPS)
def test_times_are_those_that_a_player_keeps(built, reader, name):
    clip = CLIPS[name]
    ours = starts(read_whole(path := built(clip), reader).timing, len(clip.shows))
    np.testing.assert_allclose(ours, clip.times, atol=MILLISECOND)
    seconds = None if name.endswith(".webp") else shown(path).seconds  # this FFmpeg decodes no animated WebP
    if seconds is not None and not clip.spoilt:
        np.testing.assert_allclose(seconds, clip.times, atol=MILLISECOND)


@pytest.mark.parametrize("name", CLIPS)
def test_notes_say_what_was_done_and_nothing_else(built, reader, name):
    clip = CLIPS[name]
    decoded, *said = read_whole(built(clip), reader).notes
    decord = clip.by_decord and HAS_DECORD and reader == "usual"
    readers = (
        r"decord\." if decord else r"PyAV, since .+\." if reader != "usual" else r"(decord|PyAV, since .+|Pillow)\."
    )
    assert re.fullmatch(rf"Decoded by {'Pillow.' if name.endswith(IMAGES) else readers}", decoded), decoded
    ends = [note for note in said if re.fullmatch(END_UNKNOWN, note)]
    assert len(ends) in {"stated": {0}, "unknown": {1}, "either": {0, 1}}[clip.end], said
    others = [note for note in said if note not in ends and not re.fullmatch(clip.may_say, note)]
    assert len(others) == len(clip.notes), others
    for pattern in clip.notes:
        assert any(re.fullmatch(pattern, note) for note in others), (pattern, others)


@pytest.mark.parametrize("name", CLIPS)
def test_probe_tells_what_reading_gives(built, reader, name):
    info, clip = probe(path := built(CLIPS[name])), read_whole(path, reader)
    assert (info.frames, info.height, info.width) == clip.frames.shape[:3]
    assert (info.timing, info.notes, info.sound) == (clip.timing, clip.notes, clip.sound)
    assert (clip.sound is not None) == ("sound" in name)


@pytest.mark.parametrize("name", VIDEOS)
def test_any_rising_choice_gives_the_same_frames(built, reader, name):
    source = open_video(path := built(CLIPS[name]))
    whole = read_whole(path, reader).frames
    random = Random(name)
    for size in (1, 3, len(whole), len(whole) + 4):
        chosen = sorted(random.choices(range(len(whole)), k=size))
        np.testing.assert_array_equal(np.stack(list(source.decode(chosen))), whole[chosen])


@pytest.mark.parametrize("name", CLIPS)
def test_any_range_gives_the_same_frames(built, reader, name):
    path, times = built(CLIPS[name]), CLIPS[name].times
    whole, random = read_whole(path, reader).frames, Random(name)
    start = random.randrange(len(whole))
    count = random.randrange(1, len(whole) - start + 1)
    np.testing.assert_array_equal(read(path, start=start, frames=count).frames, whole[start : start + count])
    np.testing.assert_array_equal(
        read(path, start=f"{times[start]:.4f}s", frames=count).frames, whole[start : start + count]
    )
    np.testing.assert_array_equal(read(path, start=start, stride=3).frames, whole[start::3])


def test_the_other_angle_is_there_for_the_asking(built, reader):
    for name in ("angles.mp4", "angles.mkv", "angles.ts"):
        path = built(CLIPS[name])
        clip = read(path, stream=1)
        assert numbers_of(clip.frames) == list(range(20))[::-1]
        np.testing.assert_array_equal(clip.frames, shown_by_ffmpeg(path, 1).frames)


def test_the_patches_are_what_they_are_said_to_be():
    np.testing.assert_array_equal(patches_of(patch_frames(1)), PATCHES)
