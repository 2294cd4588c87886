"""Video files, PNG frames and panels: what is in them, whether they are whole and always the same."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fatezero.clips.video import iter_frames, probe, read_clip, side_by_side, write_frames, write_video
from fatezero.errors import UserError
from fatezero.system.publishing import replacing
from fatezero.types import ClipSpec

COLOURS = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (255, 255, 255),
    (0, 0, 0),
    (128, 128, 128),
    (200, 80, 40),
]


WIDE = np.zeros((2, 2, 16_384, 3), np.uint8)


def bars(count=5, height=32):
    frames = np.zeros((count, height, 16 * len(COLOURS), 3), np.uint8)
    for index, colour in enumerate(COLOURS):
        frames[:, :, 16 * index : 16 * (index + 1)] = colour
    frames[:, : height // 4, :16] = (np.arange(count) * 40)[:, None, None, None]
    return frames


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_mp4_is_what_browsers_play(tmp_path):
    path = tmp_path / "a.mp4"
    assert write_video(path, bars(), 12.5) == ()
    content = path.read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat"), "the index stands in front, for streaming"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.profile) == ("h264", "High")
        assert (stream.pix_fmt, float(stream.average_rate), stream.frames) == ("yuv420p", 12.5, 5)
        first = next(container.decode(stream))
        assert (first.colorspace, first.color_range) == (1, 1), "BT.709, limited range, stated in the file"


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_colours_survive(tmp_path, name):
    write_video(tmp_path / name, bars(), 25)
    clip = read_clip(ClipSpec(path=str(tmp_path / name)))
    assert clip.fps == 25
    np.testing.assert_allclose(clip.frames[:, 20, 8::16].astype(int), [COLOURS] * 5, atol=3)
    assert np.diff(clip.frames[:, 2, 4, 0].astype(int)).min() > 30, "frames keep their order"


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.webp"])
def test_same_frames_same_bytes(tmp_path, name):
    (tmp_path / "second").mkdir()
    write_video(tmp_path / name, bars(), 10)
    write_video(tmp_path / "second" / name, iter(bars()), 10)
    assert (tmp_path / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert not hidden(tmp_path)


OTHER_HEAP = """
import hashlib, sys
from pathlib import Path
import numpy as np
from PIL import Image
from fatezero.clips.video import write_video
blurred = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8))
for count, height, width in ((8, 64, 96), (40, 64, 64)):
    wide = np.asarray(blurred.resize((2 * width, 2 * height)))
    frames = np.stack([wide[index : index + height, index : index + width] for index in range(count)])
    for path in map(Path, sys.argv[1:]):
        for _ in range(2):
            write_video(path, frames, 8)
            print(count, path.name, hashlib.blake2b(path.read_bytes()).hexdigest())
"""


@pytest.mark.slow
def test_same_bytes_whatever_lies_in_fresh_memory(tmp_path):
    """The C library fills memory that it hands out with a byte of our choice: no encoder may read it unwritten."""
    names = ("a.mp4", "a.webm", "a.gif", "a.webp")
    said = set()
    for filling in ("0", "85", "255"):
        done = subprocess.run(
            [sys.executable, "-c", OTHER_HEAP, *(str(tmp_path / name) for name in names)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "MALLOC_PERTURB_": filling},
        )
        said |= set(done.stdout.splitlines())
    assert len(said) == 2 * len(names)


def test_odd_sizes_get_their_edge_twice_and_say_so(tmp_path):
    frames = np.full((2, 31, 33, 3), 128, np.uint8)
    frames[:, -1] = 255
    notes = write_video(tmp_path / "a.mp4", frames, 25)
    assert notes == ("Padded from 33x31 to 34x32 by repeating the edge, since video files need even sizes.",)
    clip = read_clip(ClipSpec(path=str(tmp_path / "a.mp4")))
    assert clip.frames.shape == (2, 32, 34, 3)
    assert clip.frames[:, 30:].min() > 245


def test_rates_of_television_are_exact(tmp_path):
    write_video(tmp_path / "a.mp4", bars(), 30000 / 1001)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate.as_integer_ratio() == (30000, 1001)


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        ("a.gif", ("Frames are up to 5.0 ms off their times, since gif files count in hundredths of a second.",)),
        ("a.webp", ()),
    ],
)
def test_animations_last_as_long_as_the_clip(tmp_path, name, notes):
    count = 12
    frames = np.stack([np.full((8, 8, 3), 20 * index, np.uint8) for index in range(count)])
    assert write_video(tmp_path / name, frames, 24) == notes
    with Image.open(tmp_path / name) as image:
        durations = []
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            durations.append(image.info["duration"])
    assert len(durations) == count
    assert sum(durations) == 500
    assert read_clip(ClipSpec(path=str(tmp_path / name))).fps == pytest.approx(24)


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_frames_merged_by_the_format_are_told_and_come_back_by_time(tmp_path, name):
    frames = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (0, 0, 0, 200)])
    notes = write_video(tmp_path / name, frames, 10)
    assert notes == ("Frames equal to the one before (2) are stored as a longer duration of it.",)
    clip = read_clip(ClipSpec(path=str(tmp_path / name), fps=10))
    np.testing.assert_allclose(clip.frames[:, 4, 4, 0], [0, 0, 0, 200], atol=2)


def test_frames_may_come_one_at_a_time(tmp_path):
    write_video(tmp_path / "a.mp4", bars(), 25)
    chunks = iter_frames(tmp_path / "a.mp4", 2)
    write_video(tmp_path / "b.mp4", (frame for chunk in chunks for frame in chunk), 25)
    assert probe(tmp_path / "b.mp4").frames == 5


@pytest.mark.parametrize(
    ("name", "frames", "fps", "says"),
    [
        ("a.avi", bars(), 25, "choose .mp4, .webm, .gif or .webp"),
        ("a", bars(), 25, "choose .mp4"),
        ("a.mp4", bars()[:0], 25, "no frames to write"),
        ("a.mp4", bars(), 0, "0 frames a second cannot be written"),
        ("a.gif", bars(), 60, "choose between 0.01 and 50"),
        *((f"a.{kind}", WIDE, 25, "16384x2 pixels cannot be written") for kind in ("mp4", "webm", "gif", "webp")),
        ("a.mp4", np.zeros((2, 0, 8, 3), np.uint8), 25, "has no pixels"),
        ("a.mp4", bars(), float("nan"), "nan frames a second cannot be written"),
        ("a.mp4", [bars()[0], bars()[0][:8]], 25, r"a frame is \(8, 128, 3\) uint8, not \(32, 128, 3\)"),
    ],
)
def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path, name, frames, fps, says):
    with pytest.raises(UserError, match=says):
        write_video(tmp_path / name, frames, fps)
    assert list(tmp_path.iterdir()) == []


def interrupted(frames):
    yield from frames[:3]
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_an_interruption_leaves_the_earlier_file_whole(tmp_path, name):
    write_video(tmp_path / name, bars(), 25)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / name, interrupted(bars(height=64)), 25)
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for write in (
        lambda path: write_video(path / "a.mp4", bars(), 25),
        lambda path: write_frames(path / "f", bars(1)),
    ):
        with pytest.raises(UserError, match=r"file.* cannot be written \((Not a directory|File exists)\)"):
            write(tmp_path / "file")


def test_a_read_only_folder_is_named(anybody, unprivileged):
    anybody.chmod(0o555)
    with unprivileged(), pytest.raises(UserError, match=r"a\.mp4 cannot be written \(Permission denied\)"):
        write_video(anybody / "a.mp4", bars(), 25)


FULL_DISK = """
import resource, signal, sys
import numpy as np
from fatezero.clips.video import write_frames, write_video
from fatezero.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
noise = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), np.uint8)
try:
    if sys.argv[1].endswith("frames"):
        write_frames(sys.argv[1], noise)
    else:
        write_video(sys.argv[1], noise, 25)
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.webp", "frames"])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, name):
    """A limit on the size of files stands for the full disk: writing fails in the middle."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith(f"{tmp_path / name} cannot be written (")
    assert done.stdout.endswith("free some space or choose another folder.\n")
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_png_frames_keep_every_value(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 3), np.uint8)
    write_frames(tmp_path / "frames", frames)
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == [
        "00000.png",
        "00001.png",
        "00002.png",
    ]
    np.testing.assert_array_equal(read_clip(ClipSpec(path=str(tmp_path / "frames"))).frames, frames)


def test_grey_frames_stay_grey(tmp_path):
    masks = np.random.default_rng(0).integers(0, 256, (2, 9, 7), np.uint8)
    write_frames(tmp_path / "masks", masks)
    with Image.open(tmp_path / "masks" / "00001.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), masks[1])


def test_new_frames_replace_all_old_ones(tmp_path):
    write_frames(tmp_path / "frames", bars(5))
    write_frames(tmp_path / "frames", bars(2))
    assert len(list((tmp_path / "frames").iterdir())) == 2
    with pytest.raises(KeyboardInterrupt):
        write_frames(tmp_path / "frames", interrupted(bars()))
    assert len(list((tmp_path / "frames").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


def test_folders_of_other_things_are_left_alone(tmp_path):
    (tmp_path / "a.mp4").mkdir()
    (tmp_path / "a.mp4" / "photo.png").touch()
    with pytest.raises(UserError, match=r"photo\.png is no frame and would be lost"):
        write_frames(tmp_path / "a.mp4", bars())
    with pytest.raises(UserError, match=r"a\.mp4 cannot be written \(Is a directory\)"):
        write_video(tmp_path / "a.mp4", bars(), 25)
    assert [path.name for path in tmp_path.rglob("*")] == ["a.mp4", "photo.png"]


def test_replacing_shows_nothing_until_it_is_done(tmp_path):
    target = tmp_path / "deep" / "er" / "a.txt"
    with replacing(target) as partial:
        partial.write_text("half")
        assert not target.exists()
        assert partial.parent.parent == target.parent
    assert target.read_text() == "half"


def test_panels_stand_side_by_side_below_their_labels():
    left, right = bars(3, 40), np.full((3, 20, 31, 3), 99, np.uint8)
    joined = side_by_side([("source", left), ("edited", right)])
    assert joined.shape == (3, 40 + 16, 128 + 4 + 62, 3)
    np.testing.assert_array_equal(joined[:, 16:, :128], left)
    np.testing.assert_array_equal(joined[:, 16:, 132:], 99)
    for columns in (slice(0, 128), slice(132, 194)):
        assert joined[0, :16, columns].min() < 80, "there is writing above the panel"
        np.testing.assert_array_equal(joined[0, :16, columns], joined[2, :16, columns])


def test_panels_come_out_with_even_sizes_and_any_label():
    joined = side_by_side([("a label far longer\nthan its panel is wide", bars(1, 33)[:, :, :21]), ("", bars(1, 33))])
    assert joined.shape[1] % 2 == joined.shape[2] % 2 == 0
    assert (joined[0, :16, 21:25] == 255).all(), "the label ends before the next panel"


@pytest.mark.parametrize("panels", [[], [("a", bars(2)), ("b", bars(3))]])
def test_panels_of_different_length_are_refused(panels):
    with pytest.raises(UserError, match=r"these have: (none|a 2, b 3)\."):
        side_by_side(panels)


def test_the_data_package_needs_no_torch():
    code = "import sys, fatezero.data.manifest; print('torch' in sys.modules, 'decord' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.home())
    assert done.stdout == "False False\n"
