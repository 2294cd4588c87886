"""Video files: which frames come out, in which colours, and what is said about it."""

import importlib.util
import multiprocessing
import os
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from fatezero.clips import decode
from fatezero.clips.decode import open_video
from fatezero.clips.video import iter_frames, probe, read_clip
from fatezero.errors import UserError
from fatezero.types import ClipSpec

BT709, BT601 = 1, 5
HAS_DECORD = importlib.util.find_spec("decord") is not None
needs_decord = pytest.mark.skipif(not HAS_DECORD, reason="decord has no wheel for this platform")


def read(path, **choice):
    return read_clip(ClipSpec(path=str(path), **choice))


def by_both(path, indices, monkeypatch):
    """The frames of these indices as decord and as PyAV give them."""
    source = decode.open_video(path)
    assert source.reader(indices) == "Decoded by decord."
    by_decord = np.stack(list(source.decode(indices)))
    monkeypatch.setattr(decode.importlib.util, "find_spec", lambda _: None)
    source = decode.open_video(path)
    assert source.reader(indices) == "Decoded by PyAV, since decord is not installed on this machine."
    by_pyav = np.stack(list(source.decode(indices)))
    monkeypatch.undo()
    return by_decord, by_pyav


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "by_decord"),
    [
        ("a.mp4", "libx264", "yuv420p", True),
        ("a.mov", "libx264", "yuv422p", True),
        ("a.mkv", "libx264", "yuv444p", True),
        ("a.webm", "libvpx-vp9", "yuv420p", True),
        ("a.ts", "libx264", "yuv420p", False),
        ("a.avi", "mjpeg", "yuvj420p", False),
        ("ten_bit.mp4", "libx264", "yuv420p10le", False),
        ("av1.mp4", "libsvtav1", "yuv420p", False),
    ],
)
def test_every_container_gives_its_frames_in_order(numbered, encode, indices_of, name, codec, pixels, by_decord):
    frames = numbered(height=64)
    options = {"svtav1-params": "lp=1"} if codec == "libsvtav1" else {}
    clip = read(encode(name, frames, codec, pixels, full=pixels == "yuvj420p", **options))
    assert indices_of(clip.frames) == list(range(20))
    assert not hasattr(os, "sched_getscheduler") or os.sched_getscheduler(0) == os.SCHED_OTHER
    assert clip.frames.shape == frames.shape
    assert clip.fps == 25
    assert np.abs(clip.frames[:, 4:12, 4:28].astype(int) - frames[:, 4:12, 4:28]).mean() < 6
    assert clip.notes[0].startswith("Decoded by decord" if by_decord and HAS_DECORD else "Decoded by PyAV, since ")


@needs_decord
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize(("colours", "full"), [(None, False), (BT709, False), (BT601, False), (BT709, True)])
def test_both_readers_give_equal_bytes(encode, pixels, colours, full, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
    frames = np.stack(
        [np.asarray(Image.fromarray(frame).resize((66, 50), Image.Resampling.BICUBIC)) for frame in noise]
    )
    path = encode("a.mp4", frames, pixels=pixels, colours=colours, full=full)
    ours, theirs = by_both(path, range(6), monkeypatch)
    np.testing.assert_array_equal(ours, theirs)
    # Reading BT.709 as BT.601 would be off by 6.
    assert np.abs(ours.astype(int) - frames).mean() < 4


@needs_decord
def test_both_readers_agree_on_any_rising_choice_of_an_open_gop_file(numbered, encode, indices_of, monkeypatch):
    path = encode("a.mp4", numbered(), **{"x264-params": "open-gop=1:keyint=6:bframes=3:scenecut=0"})
    for chosen in ([0, 7, 8, 19], [11], [3, 3, 3, 5], list(range(2, 20, 3))):
        by_decord, by_pyav = by_both(path, chosen, monkeypatch)
        assert indices_of(by_decord) == chosen
        np.testing.assert_array_equal(by_decord, by_pyav)


def test_without_decord_the_frames_are_the_same_and_the_notes_say_so(numbered, encode, monkeypatch):
    path = encode("a.mp4", numbered(5))
    usual = read(path)
    monkeypatch.setattr(decode.importlib.util, "find_spec", lambda name: None)
    clip = read(path)
    assert clip.notes == ("Decoded by PyAV, since decord is not installed on this machine.",)
    np.testing.assert_array_equal(clip.frames, usual.frames)


def test_range_and_stride(numbered, encode, indices_of):
    path = encode("a.mp4", numbered())
    clip = read(path, start=3, frames=4, stride=5)
    assert indices_of(clip.frames) == [3, 8, 13, 18]
    assert clip.fps == 5
    assert clip.notes[1:] == ("Took frames 3 to 18 with stride 5 (4 of 20).",)
    assert indices_of(read(path, start=17).frames) == [17, 18, 19]


@pytest.mark.parametrize("choice", [{"frames": 21}, {"start": 3, "frames": 5, "stride": 5}, {"start": 20}])
def test_too_few_frames_is_an_error_never_fewer_frames(numbered, encode, choice):
    path = encode("a.mp4", numbered())
    for attempt in (read, lambda path, **choice: probe(ClipSpec(path=str(path), **choice))):
        with pytest.raises(UserError, match=r"a\.mp4 has 20 frames.*ask for fewer"):
            attempt(path, **choice)


@pytest.mark.parametrize(
    "choice", [{"frames": 0}, {"stride": 0}, {"fps": -1.0}, {"height": 0}, {"start": -1}, {"fit": "squash"}]
)
def test_impossible_choices_name_clip_and_field(numbered, encode, choice):
    with pytest.raises(UserError, match=rf"a\.mp4: {next(iter(choice))} is"):
        read(encode("a.mp4", numbered(2)), **choice)


def test_lower_rate_shows_the_frame_on_screen_at_each_tick(numbered, encode, indices_of):
    clip = read(encode("a.mp4", numbered()), fps=10)  # 20 frames of 40 ms; ticks at 0, 100, 200, … ms
    assert indices_of(clip.frames) == [0, 2, 5, 7, 10, 12, 15, 17]
    assert clip.fps == 10
    assert clip.notes[1] == "Resampled from 25 to 10 frames a second: 20 frames became 8."


def test_a_matroska_file_at_television_rate_loses_nothing_to_its_rounded_times(numbered, encode, indices_of):
    path = encode("a.mkv", numbered(), fps=30)
    assert indices_of(read(path, fps=15).frames) == list(range(0, 20, 2))
    assert indices_of(read(path, fps=60).frames) == sorted([*range(20), *range(20)])


def test_higher_rate_repeats_frames_and_says_so(numbered, encode, indices_of):
    clip = read(encode("a.mp4", numbered(4)), fps=50)
    assert indices_of(clip.frames) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert "4 of them repeats" in clip.notes[1]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_variable_rate_is_resampled_by_time(numbered, encode, indices_of, name):
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    times = [0, 80, 100, 180, 200, 280, 300, 380]
    path = encode(name, numbered(8), codec, times_ms=times)
    assert read(path).fps == pytest.approx(8 / 0.46, rel=0.01)
    clip = read(path, fps=25, frames=10)  # ticks every 40 ms
    assert indices_of(clip.frames) == [0, 0, 1, 2, 2, 4, 4, 5, 6, 6]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotation_of_the_file_is_applied(numbered, encode, quarters):
    path = encode("a.mp4", numbered(3))
    upright = read(path).frames
    cosine, sine = [(0, 1), (-1, 0), (0, -1)][quarters - 1]
    content = bytearray(path.read_bytes())
    matrix = content.find(b"tkhd") + 4 + 40  # ISO 14496-12: a 3x3 matrix of 16.16 fixed point
    turned = (cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    content[matrix : matrix + 36] = struct.pack(">9i", *turned)
    path.write_bytes(content)
    clip = read(path)
    np.testing.assert_array_equal(clip.frames, np.rot90(upright, -quarters, axes=(1, 2)))
    assert f"Turned by {90 * quarters} degrees clockwise, as the file says." in clip.notes
    assert (probe(path).height, probe(path).width) == clip.frames.shape[1:3]


def test_frames_hidden_by_an_edit_list_do_not_count(numbered, encode, indices_of):
    path = encode("a.mp4", numbered())
    content = bytearray(path.read_bytes())
    entry = content.find(b"elst") + 4 + 8  # ISO 14496-12: duration in ms, start in the 1/12800 s of the track
    duration, start = struct.unpack_from(">Ii", content, entry)
    struct.pack_into(">Ii", content, entry, duration - 5 * 40, start + 5 * 512)
    path.write_bytes(content)
    clip = read(path)
    assert indices_of(clip.frames) == list(range(5, 20))
    if HAS_DECORD:
        assert clip.notes == (
            "Decoded by PyAV, since the file's edit list hides frames.",
            "The file's edit list leaves out 5 of 20 frames.",
        )


def test_transparent_video_is_shown_on_white(encode):
    frames = np.zeros((2, 16, 16, 4), np.uint8)
    frames[..., 0] = 200
    frames[:, :, 8:, 3] = 255
    clip = read(encode("a.mov", frames, codec="qtrle", pixels="argb"))
    assert clip.frames[0, 0, 0].tolist() == [255, 255, 255]
    assert clip.frames[0, 0, 8].tolist() == [200, 0, 0]
    assert "Transparent pixels are shown on white." in clip.notes


def test_crop_without_scaling_takes_the_very_pixels(numbered, encode):
    path = encode("a.mp4", numbered(2))
    clip = read(path, height=48, width=31)
    np.testing.assert_array_equal(clip.frames, read(path).frames[:, :, 16:47])
    assert clip.notes[-1] == "Cropped the centre 31x48 of 64x48."


def ramp(folder, height, width):
    """An image that is brighter the further right, and redder the further down."""
    folder.mkdir()
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 1] = np.linspace(0, 255, width).round()
    image[..., 0] = np.linspace(0, 255, height).round()[:, None]
    Image.fromarray(image).save(folder / "0.png")
    return image


def test_scaling_covers_the_size_and_crops_the_centre(tmp_path):
    ramp(tmp_path / "ramp", 100, 301)
    clip = read(tmp_path / "ramp", height=50, width=60)
    # Of the source, a centred strip of 120 columns shows: column x shows 90.5 + 2 (x + ½).
    columns = (90.5 + 2 * (np.arange(60) + 0.5) - 0.5) / 300 * 255
    np.testing.assert_allclose(clip.frames[0, 25, :, 1], columns, atol=1)
    rows = (2 * (np.arange(50) + 0.5) - 0.5) / 99 * 255
    np.testing.assert_allclose(clip.frames[0, 2:-2, 30, 0], rows[2:-2], atol=1)
    assert clip.notes[-1] == "Scaled the centre 120x100 of 301x100 to 60x50."


def test_stretching_keeps_the_whole_picture(tmp_path):
    ramp(tmp_path / "ramp", 90, 200)
    clip = read(tmp_path / "ramp", height=30, width=20, fit="stretch")
    columns = (10 * (np.arange(20) + 0.5) - 0.5) / 199 * 255
    np.testing.assert_allclose(clip.frames[0, 15, 1:-1, 1], columns[1:-1], atol=1)
    assert clip.notes[-1] == "Stretched from 200x90 to 20x30."


@pytest.mark.parametrize(
    ("height", "width", "says"), [(40, 40, "Cropped the right 40x40"), (20, 20, "Scaled the right")]
)
def test_the_right_end_is_the_last_of_pictures_side_by_side(tmp_path, height, width, says):
    (tmp_path / "row").mkdir()
    row = np.repeat(np.arange(4, dtype=np.uint8) * 60, 40)[None, :, None].repeat(40, 0).repeat(3, 2)
    Image.fromarray(row).save(tmp_path / "row" / "0.png")
    clip = read(tmp_path / "row", height=height, width=width, fit="right")
    assert (clip.frames[:, :, 2:] == 180).all()
    assert clip.notes[-1].startswith(says)


def test_scaling_down_averages_instead_of_aliasing(tmp_path):
    (tmp_path / "stripes").mkdir()
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 254
    Image.fromarray(stripes).save(tmp_path / "stripes" / "0.png")
    clip = read(tmp_path / "stripes", height=16, width=16)
    np.testing.assert_allclose(clip.frames[0, 4:-4, 4:-4], 127, atol=2)


def test_chunks_join_to_the_whole_clip(numbered, encode):
    path = encode("a.mp4", numbered())
    chunks = list(iter_frames(path, 8))
    assert [len(chunk) for chunk in chunks] == [8, 8, 4]
    np.testing.assert_array_equal(np.concatenate(chunks), read(path).frames)
    spec = ClipSpec(path=str(path), start=2, frames=5, height=24, width=24)
    np.testing.assert_array_equal(np.concatenate(list(iter_frames(spec, 2))), read_clip(spec).frames)


def test_streaming_memory_does_not_grow_with_the_clip(numbered, encode):
    def peak(count):
        path = encode(f"{count}.mp4", np.resize(numbered(20, 128, 128), (count, 128, 128, 3)))
        tracemalloc.start()
        for _ in iter_frames(path, 4):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(4)  # imports
    whole_clip = 160 * 128 * 128 * 3
    assert peak(160) < peak(16) + 0.05 * whole_clip


def test_probe_tells_what_reading_gives(numbered, encode):
    spec = ClipSpec(path=str(encode("a.mp4", numbered())), start=1, stride=2, fps=12.5, height=32, width=32)
    info, clip = probe(spec), read_clip(spec)
    assert (info.frames, info.height, info.width) == clip.frames.shape[:3]
    assert (info.fps, info.notes) == (clip.fps, clip.notes)


def _read_and_report(path, queue):
    queue.put(read(path).frames.tobytes())


def test_reading_works_in_a_worker_forked_after_reading(numbered, encode):
    path = encode("a.mp4", numbered(4))
    here = read(path).frames.tobytes()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=_read_and_report, args=(path, queue), daemon=True)
    worker.start()
    assert queue.get(timeout=30) == here
    worker.join(timeout=30)
    assert worker.exitcode == 0


def test_times_start_at_zero_whatever_the_file_starts_at(numbered, encode):
    source = open_video(encode("a.mp4", numbered(4), times_ms=[500, 540, 580, 620]))
    np.testing.assert_allclose(source.times, [0, 0.04, 0.08, 0.12], atol=1e-6)


DEEP = {  # kinds of key frames, and of containers that are sought in
    "closed.mp4": ("libx264", {"g": "16"}),
    "open.mp4": ("libx264", {"x264-params": "open-gop=1:keyint=16:bframes=3:scenecut=0"}),
    "refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=16:scenecut=0"}),
    "open.mkv": ("libx265", {"x265-params": "log-level=0:open-gop=1:keyint=16:bframes=3:scenecut=0"}),
    "open.ts": ("libx264", {"x264-params": "open-gop=1:keyint=16:bframes=3:scenecut=0"}),
    "fields.ts": ("libx264", {"x264-params": "tff=1:keyint=16"}),
    "single.mp4": ("libx264", {"g": "9999", "x264-params": "scenecut=0"}),
    "alt.webm": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "16", "deadline": "good"}),
    "a.avi": ("mjpeg", {}),
}


@pytest.mark.parametrize("name", DEEP)
def test_what_begins_deep_in_a_file_is_the_same_as_read_from_its_begin(encode, name, monkeypatch):
    codec, options = DEEP[name]
    frames = np.random.default_rng(0).integers(0, 256, (120, 48, 64, 3), np.uint8) // 3
    frames += np.arange(120, dtype=np.uint8)[:, None, None, None]
    monkeypatch.setattr(decode, "_DEEP", 50)
    path = encode(name, frames, codec, "yuvj420p" if codec == "mjpeg" else "yuv420p", **options)
    source = decode.open_video(path)
    assert len(source.times) == 120
    whole = np.stack(list(source.decode(range(120))))
    for chosen in ([60], [119], [87, 88, 110], list(range(70, 120, 7))):
        if codec in ("libx264", "libx265") and "single" not in name:
            assert "since" in source.reader(chosen)
        np.testing.assert_array_equal(np.stack(list(source.decode(chosen))), whole[chosen])


@pytest.mark.slow
def test_a_range_deep_in_a_file_decodes_no_more_than_it_needs(encode, monkeypatch):
    frames = np.zeros((2000, 32, 64, 3), np.uint8)
    path = encode("a.mp4", frames, g="50", preset="ultrafast")
    decoded = []
    shown_frames = decode.shown_frames
    monkeypatch.setattr(
        decode, "shown_frames", lambda *a, **k: (decoded.append(frame) or frame for frame in shown_frames(*a, **k))
    )
    clip = read(path, start="01:16.0", frames=8)
    assert len(clip.frames) == 8
    assert clip.notes == (
        "Decoded by PyAV, since it begins deep in the file." if HAS_DECORD else clip.notes[0],
        "Took frames 1900 to 1907 (8 of 2000).",
    )
    assert len(decoded) < 100
