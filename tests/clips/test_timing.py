"""When written frames are shown: read back by PyAV and Pillow, which know nothing of the writer."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from fatezero.clips.video import probe, read_clip, write_video
from fatezero.errors import UserError
from fatezero.types import ClipSpec

PHONE = (*(i / 15 for i in range(8)), *(8 / 15 + i / 60 for i in range(33)))  # 8 frames at 15 a second, then 32 at 60
SLOWING = (0.0, 0.021, 0.0625, 0.1, 0.5, 1.0337, 3.0)
MILLISECOND = 0.001 + 1e-9


def shaded(count):
    """Frames of which each is lighter than the one before."""
    return np.stack([np.full((48, 64, 3), 20 + 5 * index, np.uint8) for index in range(count)])


def times_of_video(path):
    """When each frame is shown, and when the container says that the last ends."""
    with av.open(str(path)) as container:
        shown = [
            (float(frame.pts * frame.time_base), frame.to_ndarray(format="gray").mean())
            for frame in container.decode(video=0)
        ]
        assert [grey for _, grey in shown] == sorted(grey for _, grey in shown), "in order"
        return [time for time, _ in shown] + [container.duration / 1e6]


def times_of_animation(path):
    edges = [0.0]
    with Image.open(path) as image:
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            edges.append(edges[-1] + image.info["duration"] / 1000)
    return edges


@pytest.mark.parametrize("times", [PHONE, SLOWING], ids=["phone", "slowing"])
@pytest.mark.parametrize(
    ("name", "read"), [("a.mp4", times_of_video), ("a.webm", times_of_video), ("a.webp", times_of_animation)]
)
def test_each_frame_keeps_its_time_and_its_duration(tmp_path, name, read, times):
    assert write_video(tmp_path / name, shaded(len(times) - 1), times) == ()
    np.testing.assert_allclose(read(tmp_path / name), times, atol=MILLISECOND)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.webp"])
def test_uneven_clips_come_back_as_they_were_written(tmp_path, name):
    write_video(tmp_path / name, shaded(40), PHONE)
    clip = read_clip(ClipSpec(path=str(tmp_path / name)))
    np.testing.assert_allclose(clip.timing, PHONE, atol=MILLISECOND)
    assert clip.fps == pytest.approx(37.5, abs=0.02)
    np.testing.assert_allclose(clip.frames.mean(axis=(1, 2, 3)), shaded(40).mean(axis=(1, 2, 3)), atol=3)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
@pytest.mark.parametrize("times", [PHONE, SLOWING], ids=["phone", "slowing"])
def test_the_stated_rate_is_the_mean(tmp_path, name, times):
    write_video(tmp_path / name, shaded(len(times) - 1), times)
    with av.open(str(tmp_path / name)) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx((len(times) - 1) / times[-1], rel=1e-3)


def test_uneven_mp4_is_what_browsers_play(tmp_path):
    write_video(tmp_path / "a.mp4", shaded(40), PHONE)
    content = (tmp_path / "a.mp4").read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat"), "the index stands in front, for streaming"
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.profile, stream.pix_fmt) == ("h264", "High", "yuv420p")
        assert (stream.start_time, stream.duration * stream.time_base) == (0, Fraction(16, 15))
        first = next(container.decode(stream))
        assert (first.colorspace, first.color_range) == (1, 1), "BT.709, limited range, stated in the file"


def test_a_gif_says_how_far_its_frames_are_off(tmp_path):
    times = (0.0, 0.021, 0.0663, 0.1, 0.5)
    (note,) = write_video(tmp_path / "a.gif", shaded(4), times)
    assert note == "Frames are up to 3.7 ms off their times, since gif files count in hundredths of a second."
    np.testing.assert_allclose(times_of_animation(tmp_path / "a.gif"), (0.0, 0.02, 0.07, 0.1, 0.5), atol=1e-9)
    assert write_video(tmp_path / "b.gif", shaded(3), (0.0, 0.05, 0.12, 1.0)) == ()


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.webp", "a.gif"])
def test_same_times_same_bytes(tmp_path, name):
    times = tuple(2 * time for time in PHONE)
    write_video(tmp_path / name, shaded(40), times)
    (tmp_path / "second").mkdir()
    write_video(tmp_path / "second" / name, iter(shaded(40)), times)
    assert (tmp_path / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.webp"])
@pytest.mark.parametrize(
    ("times", "says"),
    [
        ((0.0, 1.0, 2.0), "there are 3 frames, but times for 2"),
        ((0.0, 1.0, 2.0, 3.0, 4.0), "there are 3 frames, but times for 4"),
        ((0.0, 2.0, 1.0, 3.0), "do not rise from 0"),
        ((0.0, 1.0, 1.0, 3.0), "do not rise from 0"),
        ((0.5, 1.0, 2.0, 3.0), "do not rise from 0"),
        ((0.0, 1.0, float("nan"), 3.0), "do not rise from 0"),
        ((), "do not rise from 0"),
        ((0.0,), "do not rise from 0"),
        ((0.0, 1.0, 2.0, float("inf")), "1 to inf s cannot be written"),
        ((0.0, 0.0005, 2.0, 3.0), "0.0005 to 1.9995 s cannot be written"),
        ((0.0, 1.0, 2.0, 200.0), "1 to 198 s cannot be written"),
    ],
)
def test_impossible_times_are_said_and_leave_nothing(tmp_path, name, times, says):
    with pytest.raises(UserError, match=says):
        write_video(tmp_path / name, shaded(3), times)
    assert list(tmp_path.iterdir()) == []


def test_what_browsers_would_show_slowly_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"0\.0166667 to 0\.0666667 s cannot be written \(0\.02 to 100 s can\)"):
        write_video(tmp_path / "a.gif", shaded(40), PHONE)
    with pytest.raises(UserError, match=r"choose between 0\.01 and 90"):
        write_video(tmp_path / "a.webp", shaded(4), 100)
    write_video(tmp_path / "a.gif", shaded(4), tuple(index / 50 for index in range(5)))  # the fastest, uneven or not
    assert probe(tmp_path / "a.gif").fps == 50
