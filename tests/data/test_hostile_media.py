"""Clips made to do harm: odd metadata, bombs, what is no file, ends cut off. One sentence each, at once."""

import os
import random
import socket
import struct
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageFile

from fatezero.clips import source
from fatezero.clips.video import probe, read_clip, write_video
from fatezero.errors import UserError, attempt
from fatezero.types import Clip, ClipSpec


def read(path, **choice):
    return read_clip(ClipSpec(path=str(path), **choice))


def refused(path, **choice):
    """The one sentence that is said of a clip, whether it is read or only looked at."""
    with pytest.raises(UserError) as caught:
        read(path, **choice)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mjpeg"), ("a.mkv", "libx264")])
def test_a_title_in_any_encoding_is_no_fault_of_the_pictures(tmp_path, numbered, name, codec):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "caféXY"
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = 48, 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for index, frame in enumerate(numbered(3)):
            picture = av.VideoFrame.from_ndarray(frame).reformat(format=stream.pix_fmt)
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    utf8, latin1 = "caféXY".encode(), "caféXYZ".encode("latin-1")
    assert utf8 in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(utf8, latin1))
    assert len(read(path).frames) == 3


@pytest.mark.parametrize("name", ["0.jpg", "0.png", "0.webp"])
@pytest.mark.parametrize("orientation", [0, 9, 99, 65535])
def test_an_orientation_that_exif_does_not_know_turns_nothing(tmp_path, photo, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(tmp_path / name, exif=exif)
    assert read(tmp_path / name).frames.shape == read(tmp_path).frames.shape == (1, 24, 32, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_every_orientation_is_turned_as_the_standard_says(tmp_path, photo, orientation, mode):
    pixels = np.asarray(photo.convert("L"))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(pixels.astype(np.uint16) * 256) if mode == "I;16" else Image.fromarray(pixels)
    stored.save(tmp_path / "0.png", exif=exif)
    flipped = pixels[:, ::-1]
    turned = [pixels, flipped, pixels[::-1, ::-1], pixels[::-1]]
    turned += [pixels.T, np.rot90(pixels, -1), flipped[::-1].T, np.rot90(pixels)]
    np.testing.assert_array_equal(read(tmp_path / "0.png").frames[0, ..., 0], turned[orientation - 1])


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\5\0\0\0\1"]
)
@pytest.mark.parametrize("name", ["0.jpg", "0.png"])
def test_broken_exif_is_a_sentence_or_no_matter(tmp_path, photo, exif, name, capfd):
    photo.save(tmp_path / name, exif=exif)
    capfd.readouterr()
    found = attempt(lambda: read(tmp_path / name))
    assert isinstance(found, Clip) or f"{name} is not an image or is damaged" in str(found)
    assert capfd.readouterr().err == ""


def timed(path, frames, ticks, time_base):
    """A video whose frames stand at these ticks of a clock."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = time_base
        for tick, frame in zip(ticks, frames, strict=True):
            picture = av.VideoFrame.from_ndarray(frame).reformat(format="yuv420p")
            picture.pts, picture.time_base = tick, time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def test_absurd_rates_and_durations(tmp_path, numbered, encode):
    usual = encode("usual.mp4", numbered(4))
    for fps in (3e6, 1e-9, 1e300):
        assert "choose between 0.01 and 1000" in refused(usual, fps=fps)
    fast = timed(tmp_path / "fast.mp4", numbered(4), range(4), Fraction(1, 3_000_000))
    assert "3e+06 frames a second is no rate of a video" in refused(fast)
    assert len(read(fast, fps=25.0).frames) == 1
    slow = timed(tmp_path / "slow.mkv", numbered(4), [n * 10**10 for n in range(4)], Fraction(1, 1000))
    assert "is no rate of a video" in refused(slow)
    assert "ask for a lower fps" in refused(slow, fps=25.0)
    assert "is no rate of a video" in refused(usual, stride=2**62)


def test_sizes_that_are_asked_for_have_a_bound(encode, numbered):
    for name in ("height", "width"):
        assert f"{name} is 8193; ask for at most 8192" in refused(encode("a.mp4", numbered(2)), **{name: 8193})


@pytest.mark.parametrize("error", [OverflowError, MemoryError, struct.error, ZeroDivisionError, TypeError, OSError])
def test_whatever_a_decoder_raises_names_the_file(tmp_path, error):
    with pytest.raises(UserError, match=r"a\.mp4.*\.$"), source.naming(tmp_path / "a.mp4", "a video"):
        raise error("odd")


def gif(path, width, height, count, end=b";"):
    """Frames of one pixel on a canvas of any size."""
    picture = b"," + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0"
    head = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    path.write_bytes(head + picture * count + end)
    return path


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((9000, 9000, 50), "frames of 9000x9000 pixels are too large"),
        ((60_000, 1, 1), "frames of 60000x1 pixels are too large"),
        ((1, 1, 300_000), "too large for an animation of 1x1"),
        ((7000, 7000, 50), "too large for an animation of 7000x7000"),
    ],
)
def test_animations_that_blow_up_are_refused_before_they_are_decoded(tmp_path, monkeypatch, shape, says):
    def decoded(*_):
        raise AssertionError("a frame was decoded")

    path = gif(tmp_path / "bomb.gif", *shape)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    with pytest.raises(UserError, match=says):
        probe(path)


def test_animations_of_many_frames_are_read(tmp_path):
    assert probe(gif(tmp_path / "many.gif", 1, 1, 3000)).frames == 3000


def test_a_clip_must_fit_into_the_memory(tmp_path):
    path = gif(tmp_path / "long.gif", 1, 1, 3000)
    spec = {"fps": 1000.0, "height": 8192, "width": 8192}  # 300 s: 300,000 frames of 201 MB
    assert "need 60398.0 GB" in refused(path, **spec)
    assert probe(ClipSpec(path=str(path), **spec)).frames == 300_000


def test_an_animation_says_how_many_frames_it_has_and_is_not_believed(tmp_path, photo):
    photo.save(tmp_path / "a.png", save_all=True, append_images=[photo.rotate(90)], duration=40)
    content = (tmp_path / "a.png").read_bytes()
    place = content.index(b"acTL") + 4
    for stated in (0, 3, 10**9, 2**32 - 1):
        chunk = content[place - 4 : place] + struct.pack(">I", stated) + content[place + 4 : place + 8]
        chunk += struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "a.png").write_bytes(content[: place - 4] + chunk + content[place + 12 :])
        assert refused(tmp_path / "a.png")


def test_a_large_picture_is_refused_by_its_header(tmp_path, capfd):
    Image.new("1", (10_000, 9000)).save(tmp_path / "0.png")
    assert "frames of 10000x9000 pixels are too large" in refused(tmp_path / "0.png")
    with (tmp_path / "sparse.webp").open("wb") as file:
        file.write(b"RIFF\0\0\0\0WEBPVP8 ")
        file.truncate(20 << 30)
    assert "more than 512 MiB" in refused(tmp_path / "sparse.webp")
    assert capfd.readouterr().err == ""


def test_large_video_frames_are_refused_before_they_are_decoded(tmp_path, encode, numbered):
    path = encode("a.avi", numbered(2), "mjpeg", "yuvj420p")
    content = path.read_bytes()
    stated, large = struct.pack(">HH", 48, 64), struct.pack(">HH", 16_000, 16_000)  # rows and columns
    start_of_frame = b"\xff\xc0\x00\x11\x08"
    assert start_of_frame + stated in content
    path.write_bytes(content.replace(start_of_frame + stated, start_of_frame + large))
    assert refused(path)


@pytest.mark.parametrize("name", ["0.png", "0.jpg", "0.webp", "a.gif"])
def test_only_formats_that_the_suffixes_promise_are_opened(tmp_path, photo, name):
    (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    assert "only PNG, JPEG, BMP, WebP, GIF are read" in refused(tmp_path / name)
    for other in ("tiff", "ppm", "tga", "ico"):
        photo.save(tmp_path / f"x.{other}")
        (tmp_path / f"x.{other}").replace(tmp_path / name)
        assert "is not an image" in refused(tmp_path / name)


def pipe(path):
    os.mkfifo(path)


def zeros(path):
    path.symlink_to("/dev/zero")


def bound(path):
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(str(path))


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
@pytest.mark.parametrize("make", [pipe, zeros, bound])
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, make, suffix):
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    make(tmp_path.relative_to(tmp_path) / f"x{suffix}")
    assert "neither a file nor a folder" in refused(tmp_path / f"x{suffix}")


@pytest.mark.parametrize("make", [pipe, zeros, lambda path: path.mkdir(), lambda path: path.symlink_to("gone")])
def test_what_is_no_file_among_images_is_refused_at_once(tmp_path, photo, make):
    photo.save(tmp_path / "0.png")
    make(tmp_path / "1.png")
    with pytest.raises(UserError, match=r"1\.png is not a regular file"):
        read(tmp_path)


def test_names_that_ffmpeg_would_take_for_protocols_or_are_no_text(tmp_path, monkeypatch, encode, numbered):
    content = encode("a.mp4", numbered(2)).read_bytes()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "concat:b.mp4").write_bytes(content)
    assert len(read("concat:b.mp4").frames) == 2
    for odd in (os.fsdecode(b"caf\xe9.mp4"), "two\nlines.mp4", "\x1b[31m.mp4", "\0.mp4"):
        if "\0" not in odd:
            (tmp_path / odd).write_bytes(content)
        with pytest.raises(
            UserError, match="its name holds control characters or is no text in UTF-8; rename it"
        ) as caught:
            read(odd)
        assert str(caught.value).isprintable()


CUT = {
    "end.mp4": {},
    "fast.mp4": {"movflags": "faststart"},
    "fragments.mp4": {"movflags": "frag_keyframe+empty_moov", "g": "4"},
    "a.mkv": {},
    "intra.mkv": {"g": "1"},
    "a.webm": {"codec": "libvpx-vp9"},
    "intra.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "a.avi": {},
    "a.ts": {},
    "a.gif": None,
    "a.webp": None,
    "a.png": None,
}


@pytest.mark.parametrize("name", CUT)
def test_an_end_cut_off_is_told_wherever_it_is_cut(tmp_path, numbered, encode, name):
    """Either all frames, or a sentence; only a file that never said its length may hold fewer, and that is noted."""
    options = CUT[name]
    if options is None:
        stills = [Image.fromarray(frame) for frame in numbered(16)]
        stills[0].save(tmp_path / name, save_all=True, append_images=stills[1:], duration=40)
    else:
        encode(name, numbered(16), **options)
    whole, content = read(tmp_path / name).frames, (tmp_path / name).read_bytes()
    last = range(len(content) - 30, len(content))
    for length in (*random.Random(0).sample(range(len(content)), 60), *last):
        (tmp_path / name).write_bytes(content[:length])
        try:
            clip = read(tmp_path / name)
        except UserError:
            continue
        unsaid = not any("does not say how many frames" in note for note in clip.notes)
        assert not unsaid or np.array_equal(clip.frames, whole), length


def test_a_fragmented_file_may_end_between_fragments_but_says_that_it_may(tmp_path, numbered, encode):
    path = encode("a.mp4", numbered(16), movflags="frag_keyframe+empty_moov", g="4")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moof", content.index(b"moof") + 4) - 4])
    clip = read(path)
    assert len(clip.frames) < 16
    assert any("does not say how many frames it has" in note for note in clip.notes)


def test_what_a_browser_records_is_read_although_it_states_no_length(tmp_path, numbered, indices_of):
    path = tmp_path / "live.webm"
    with av.open(str(path), "w", format="webm", options={"live": "1"}) as container:
        stream = container.add_stream("libvpx-vp9", rate=25, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for index, frame in enumerate(numbered(8)):
            picture = av.VideoFrame.from_ndarray(frame).reformat(format="yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    clip = read(path)
    assert indices_of(clip.frames) == list(range(8))
    assert any("does not say how many frames it has" in note for note in clip.notes)


@pytest.mark.parametrize("more", [bytes(100), b"\n", b"some words of a camera's maker", b"\xff" * 12])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.gif"])
def test_files_with_bytes_behind_their_end_are_whole(tmp_path, numbered, encode, name, more):
    if name == "a.gif":
        write_video(tmp_path / name, numbered(4), 25)
    else:
        encode(name, numbered(4))
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + more)
    clip = read(tmp_path / name)
    assert len(clip.frames) == 4
    assert not any("does not say how many" in note for note in clip.notes)


@pytest.mark.slow
def test_media_with_any_byte_changed_are_a_clip_or_a_sentence(tmp_path, numbered, encode):
    """Seeded: never another exception, whatever stands in a header."""
    names = [encode(name, numbered(4), **(CUT[name] or {})) for name in ("fast.mp4", "a.mkv", "a.webm", "intra.avi")]
    for name in ("a.gif", "b.webp"):
        write_video(tmp_path / name, numbered(4), 25)
        names.append(tmp_path / name)
    dice = random.Random(0)
    for path in names:
        content = path.read_bytes()
        for _ in range(40):
            changed = bytearray(content)
            for _ in range(dice.choice((1, 4, 32))):
                changed[dice.randrange(min(len(changed), 800))] = dice.choice((0, 1, 127, 255, dice.randrange(256)))
            path.write_bytes(changed)
            found = attempt(lambda path=path: read(path, frames=1))
            assert isinstance(found, Clip) or path.name in str(found)
