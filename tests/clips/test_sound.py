"""The sound beside written frames, read back by PyAV: clicks are heard when they should be, copies are equal."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from fatezero.clips.video import write_video
from fatezero.types import Sound

FPS, FRAMES, CLICK = 25, 50, 1.0  # two seconds; when a click is heard, in seconds from the source's first frame
FORMATS = {"mp4": "libx264", "mkv": "libx264", "mov": "libx264", "ts": "libx264", "flv": "libx264"}
FORMATS |= {"avi": "mpeg4", "wmv": "wmv2", "webm": "libvpx", "ogg": "libvpx"}


def wave(seconds, rate, layout, late=0.0, click=CLICK):
    """Silence with a click of 10 ms, in frames of 1024 samples as (when, stream, frame)."""
    samples = np.zeros((av.AudioLayout(layout).nb_channels, round(seconds * rate)), np.float32)
    begins, lasts = round((click - late) * rate), rate // 100
    samples[:, begins : begins + lasts] = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(lasts) / rate)
    for start in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[:, start : start + 1024]), format="fltp", layout=layout
        )
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), start + round(late * rate)
        yield frame


@pytest.fixture
def film(tmp_path):
    """Builds a clip with sound: film(name, codec, seconds=…, rate=…, layout=…, late=…, clicks=…, first=…)."""

    def build(name, codec, seconds=2.0, rate=48_000, layout="stereo", late=0.0, clicks=(CLICK,), first=0.0):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            video = container.add_stream(FORMATS[path.suffix[1:]], rate=FPS)
            video.width, video.height, video.pix_fmt, video.codec_context.thread_count = 64, 48, "yuv420p", 1
            parts = []
            for index in range(FRAMES):
                picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * index, np.uint8))
                picture.pts, picture.time_base = index + round(first * FPS), Fraction(1, FPS)
                parts.append((picture, video))
            for click in clicks:
                sound = container.add_stream(codec, rate=rate, options={"strict": "-2"})
                sound.codec_context.layout = layout
                sound.codec_context.bit_rate = 64_000 * sound.codec_context.layout.nb_channels
                parts += [(frame, sound) for frame in wave(seconds, rate, layout, late, click)]
            for frame, stream in sorted(parts, key=lambda part: part[0].pts * part[0].time_base):
                container.mux(stream.encode(frame))
            for stream in container.streams:
                container.mux(stream.encode())
        return path

    return build


def first_frame(path):
    with av.open(str(path)) as container:
        return float(next(container.decode(video=0)).time)


def heard(path):
    """Loudness of each sample and its time, in seconds from the first frame."""
    start, loudness, times = first_frame(path), [], []
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.best("audio")):
            scale = {"s16": 2**15, "s32": 2**31}.get(frame.format.name.removesuffix("p"), 1)
            samples = np.abs(frame.to_ndarray().astype(float)) / scale
            if not frame.format.is_planar:
                samples = samples.reshape(-1, frame.layout.nb_channels).T
            loudness.append(samples.max(axis=0))
            times.append(frame.time - start + np.arange(frame.samples) / frame.sample_rate)
    return np.concatenate(loudness), np.concatenate(times)


def click_of(path):
    loudness, times = heard(path)
    return times[np.argmax(loudness > 0.2)] if loudness.max() > 0.2 else None


def packets_of(path):
    """Codec, and each packet of the sound: its bytes and its time from the first frame."""
    start = first_frame(path)
    with av.open(str(path)) as container:
        stream = container.streams.best("audio")
        found = [(bytes(p), float(p.pts * p.time_base) - start) for p in container.demux(stream) if p.size]
        return stream.codec.canonical_name, found


def has_sound(path):
    with av.open(str(path)) as container:
        return bool(container.streams.audio)


def written(path, sound, frames=FRAMES):
    """Write frames beside a sound; what is said of it."""
    (note,) = write_video(path, np.full((frames, 32, 32, 3), 90, np.uint8), float(FPS), sound=sound)
    return note


@pytest.mark.parametrize(
    ("name", "codec", "target"),
    [
        ("a.mp4", "aac", "b.mp4"),
        ("a.mkv", "libmp3lame", "b.mp4"),
        ("a.ts", "ac3", "b.mp4"),
        ("a.mkv", "eac3", "b.mp4"),
        ("a.mkv", "flac", "b.mp4"),
        ("a.mkv", "alac", "b.mp4"),
        ("a.ts", "libopus", "b.mp4"),
        ("a.avi", "libmp3lame", "b.mp4"),
        ("a.flv", "aac", "b.mp4"),
        ("a.webm", "libopus", "b.webm"),
        ("a.webm", "vorbis", "b.webm"),
    ],
)
def test_the_sound_of_a_whole_clip_is_copied(film, tmp_path, name, codec, target):
    source = film(name, codec, rate=44_100 if codec in ("aac", "flac") else 48_000)
    note = written(tmp_path / target, Sound(source, first_frame(source)))
    kept, copies = packets_of(tmp_path / target)
    original, packets = packets_of(source)
    assert note == f"The sound is kept as it is ({kept})."
    assert kept == original
    assert [content for content, _ in copies] == [content for content, _ in packets]
    np.testing.assert_allclose([time for _, time in copies], [time for _, time in packets], atol=0.0015)
    assert click_of(tmp_path / target) == pytest.approx(click_of(source), abs=0.0015)


def test_what_the_container_wraps_differently_is_the_same_sound(film, tmp_path):
    """A transport stream has AAC with a header before each packet, which an mp4 does without."""
    source = film("a.ts", "aac")
    assert written(tmp_path / "b.mp4", Sound(source, first_frame(source))) == "The sound is kept as it is (aac)."
    (before, when), (after, then) = heard(source), heard(tmp_path / "b.mp4")
    after_first = when > -1e-6  # the decoder's delay, which an mp4 hides
    np.testing.assert_array_equal(after, before[after_first][: len(after)])
    np.testing.assert_allclose(then, when[after_first][: len(then)], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "codec", "target", "becomes"),
    [
        ("a.mov", "pcm_s16le", "b.mp4", "pcm_s16le to aac"),
        ("a.avi", "pcm_s16le", "b.webm", "pcm_s16le to opus"),
        ("a.webm", "vorbis", "b.mp4", "vorbis to aac"),
        ("a.wmv", "wmav2", "b.mp4", "wmav2 to aac"),
        ("a.ts", "mp2", "b.mp4", "mp2 to aac"),
        ("a.mp4", "aac", "b.webm", "aac to opus"),
        ("a.ogg", "vorbis", "b.webm", "vorbis to opus"),  # its first packet comes before the first frame
    ],
)
def test_other_sound_is_encoded_anew(film, tmp_path, name, codec, target, becomes):
    source = film(name, codec)
    note = written(tmp_path / target, Sound(source, first_frame(source)))
    assert note == f"The sound is kept, encoded anew ({becomes})."
    assert click_of(tmp_path / target) == pytest.approx(CLICK, abs=0.002)


def test_sound_that_an_mp4_refuses_is_encoded_anew(film, tmp_path):
    source = film("a.mkv", "libmp3lame", rate=8000, layout="mono")
    assert written(tmp_path / "b.mp4", Sound(source, 0.0)) == "The sound is kept, encoded anew (mp3 to aac)."
    assert click_of(tmp_path / "b.mp4") == pytest.approx(click_of(source), abs=0.002)


@pytest.mark.parametrize("target", ["b.mp4", "b.webm"])
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.ts", "libmp3lame"), ("a.mkv", "pcm_s16le")])
def test_a_range_has_the_sound_of_its_frames(film, tmp_path, target, name, codec):
    source = film(name, codec)
    start = first_frame(source)
    note = written(tmp_path / target, Sound(source, start + 0.6, start + 1.6), frames=25)
    assert note.startswith("The sound of these frames is kept, encoded anew (")
    loudness, times = heard(tmp_path / target)
    assert times[np.argmax(loudness > 0.2)] == pytest.approx(0.4, abs=0.002)
    assert times[0] == pytest.approx(0, abs=0.001)
    assert times[-1] == pytest.approx(1.0, abs=0.03), "but for the encoder's last frame"


@pytest.mark.parametrize(("target", "kept"), [("b.mp4", "as it is (aac)"), ("b.webm", "encoded anew (aac to opus)")])
def test_a_range_to_the_end_has_the_rest_of_the_sound(film, tmp_path, target, kept):
    """An mp4 says by its edit list that what comes before the first frame is not heard."""
    source = film("a.mp4", "aac", seconds=2.5)
    assert kept in written(tmp_path / target, Sound(source, 0.6), frames=35)
    loudness, times = heard(tmp_path / target)
    assert times[np.argmax(loudness > 0.2)] == pytest.approx(0.4, abs=0.002)
    assert times[0] == pytest.approx(0, abs=0.001)
    assert times[-1] == pytest.approx(1.9, abs=0.03), "but for an encoder's last frame"


def test_a_click_is_heard_with_its_frame_where_times_are_uneven(film, tmp_path):
    source = film("a.mov", "pcm_s16le")
    times = (0.0, 0.3, 0.35, 1.0, 1.1, 2.0)
    write_video(tmp_path / "b.mp4", np.full((5, 32, 32, 3), 90, np.uint8), times, sound=Sound(source, 0.0))
    assert click_of(tmp_path / "b.mp4") == pytest.approx(times[3], abs=0.001)


@pytest.mark.parametrize("seconds", [0.5, 5.0])
def test_sound_may_be_shorter_or_longer_than_the_frames(film, tmp_path, seconds):
    source = film("a.mp4", "aac", seconds=seconds, clicks=(0.3,))
    written(tmp_path / "b.mp4", Sound(source, 0.0))
    _, times = heard(tmp_path / "b.mp4")
    assert times[-1] == pytest.approx(seconds, abs=0.03)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_that_starts_late_starts_late(film, tmp_path, codec):
    source = film("a.mov", codec, late=0.5)
    written(tmp_path / "b.mp4", Sound(source, 0.0))
    _, times = heard(tmp_path / "b.mp4")
    assert times[0] == pytest.approx(0.5, abs=0.03), "but for the encoder's delay"
    assert click_of(tmp_path / "b.mp4") == pytest.approx(CLICK, abs=0.002)


@pytest.mark.parametrize("target", ["b.mp4", "b.webm"])
@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "aac"), ("a.webm", "libopus")])
def test_sound_before_the_first_frame_is_not_heard(film, tmp_path, target, name, codec):
    source = film(name, codec, first=0.4)
    written(tmp_path / target, Sound(source, first_frame(source)))
    _, times = heard(tmp_path / target)
    assert times[0] == pytest.approx(0, abs=0.001)
    assert first_frame(tmp_path / target) == 0
    assert click_of(tmp_path / target) == pytest.approx(CLICK - 0.4, abs=0.002)


def test_of_two_sounds_the_default_is_taken(film, tmp_path):
    source = film("a.mkv", "aac", clicks=(0.5, 1.5))
    assert written(tmp_path / "b.mp4", Sound(source, 0.0)) == "The sound (stream 1 of the file) is kept as it is (aac)."
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert len(container.streams.audio) == 1
    assert click_of(tmp_path / "b.mp4") == pytest.approx(0.5, abs=0.002)


def test_six_channels_stay_six(film, tmp_path):
    source = film("a.mkv", "pcm_s16le", layout="5.1")
    written(tmp_path / "b.mp4", Sound(source, 0.0))
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.audio[0].layout.name == "5.1"


@pytest.mark.parametrize("codec", ["aac", "flac"])
def test_damaged_sound_is_left_out_and_the_frames_are_kept(film, tmp_path, codec):
    source = film("a.mp4", codec)
    with av.open(str(source)) as container:
        pos, size = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size][10]
    content = bytearray(source.read_bytes())
    content[pos : pos + size] = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
    source.write_bytes(content)
    note = written(tmp_path / "b.mp4", Sound(source, 0.0))
    assert note.startswith("The sound is left out: ")
    assert "is damaged (Invalid data found" in note
    assert not has_sound(tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].frames == FRAMES


@pytest.mark.parametrize(
    ("name", "sound", "says"),
    [
        ("b.mp4", (5.0, 6.0), "a.mp4 has none while these frames are shown."),
        ("b.gif", (0.0, None), "The sound is left out: .gif files hold none."),
        ("b.webp", (0.0, None), "The sound is left out: .webp files hold none."),
    ],
)
def test_where_there_is_none_it_is_said(film, tmp_path, name, sound, says):
    source = film("a.mp4", "aac")
    frames = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.full((1, 32, 32, 3), 80, np.uint8)
    *_, note = write_video(tmp_path / name, frames, 25.0, sound=Sound(source, *sound))
    assert note.endswith(says)


def test_a_file_that_is_gone_costs_the_sound_alone(film, tmp_path):
    assert "No such file" in written(tmp_path / "b.mp4", Sound(tmp_path / "gone.mp4", 0.0))
    assert not has_sound(tmp_path / "b.mp4")


@pytest.mark.parametrize("sound", [(0.0, None), (0.5, 1.5)], ids=["whole", "range"])
@pytest.mark.parametrize("target", ["b.mp4", "b.webm"])
def test_same_sound_same_bytes(film, tmp_path, target, sound):
    source = film("a.mp4", "aac")
    (tmp_path / "second").mkdir()
    for path in (tmp_path / target, tmp_path / "second" / target):
        written(path, Sound(source, *sound))
    assert (tmp_path / target).read_bytes() == (tmp_path / "second" / target).read_bytes()


def test_the_frames_are_the_same_with_sound_and_without(film, tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, 32, 32, 3), np.uint8)
    write_video(tmp_path / "b.mp4", frames, float(FPS), sound=Sound(film("a.mp4", "aac"), 0.0))
    write_video(tmp_path / "c.mp4", frames, float(FPS))
    shown = []
    for name in ("b.mp4", "c.mp4"):
        with av.open(str(tmp_path / name)) as container:
            shown.append([(bytes(packet), packet.pts) for packet in container.demux(video=0) if packet.size])
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("gap", "note"), [(0.3, "encoded anew (pcm_s16le to aac)."), (90.0, "times jump from 0.661 to 90.683 s")]
)
def test_a_gap_in_the_sound_is_silence_unless_it_is_endless(tmp_path, gap, note):
    """The recorder paused for a while: what follows keeps its time."""
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as container:
        video, sound = container.add_stream("libx264", rate=FPS), container.add_stream("pcm_s16le", rate=48_000)
        picture = av.VideoFrame.from_ndarray(np.zeros((480, 640, 3), np.uint8))
        picture.pts, picture.time_base = 0, Fraction(1, FPS)
        container.mux(video.encode(picture))
        for frame in wave(1.5, 48_000, "stereo"):
            frame.pts += round(48_000 * gap) if frame.pts > 32_000 else 0
            container.mux(sound.encode(frame))
        container.mux(video.encode())
        container.mux(sound.encode())
    assert note in written(tmp_path / "b.mp4", Sound(source, 0.0))
    assert has_sound(tmp_path / "b.mp4") == (gap < 60)
    if gap < 60:
        assert click_of(tmp_path / "b.mp4") == pytest.approx(CLICK + gap, abs=0.002)


@pytest.mark.slow
def test_mutated_sound_never_costs_the_frames(film, tmp_path):
    rng = np.random.default_rng(0)
    sources = [film("a.mp4", "aac"), film("a.ts", "ac3"), film("a.mkv", "flac"), film("a.webm", "libopus")]
    said = set()
    for trial in range(60):
        content = bytearray(sources[trial % len(sources)].read_bytes())
        for place in rng.integers(0, len(content), 6):
            content[place : place + 4] = rng.integers(0, 256, 4, np.uint8).tobytes()
        mutated = tmp_path / f"mutated{sources[trial % len(sources)].suffix}"
        mutated.write_bytes(content[: rng.integers(200, len(content))] if trial % 5 == 0 else content)
        note = written(tmp_path / "b.mp4", Sound(mutated, 0.5, 1.0 if trial % 2 else None), frames=2)
        said.add(note.split(":")[0])
        with av.open(str(tmp_path / "b.mp4")) as container:
            assert container.streams.video[0].frames == 2
            assert bool(container.streams.audio) == (not note.startswith("The sound is left out: "))
    assert len(said) > 2, "some are left out, some kept"
