"""Whatever is wrong with a clip ends in one sentence that names it, and nothing else on the terminal."""

import os
import wave

import av
import numpy as np
import pytest
from PIL import Image

from fatezero.clips.video import iter_frames, probe, read_clip
from fatezero.errors import UserError
from fatezero.types import ClipSpec


def missing(folder, encode, frames):
    return folder / "nowhere.mp4", "no such file or folder"


def empty(folder, encode, frames):
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4", "is empty"


def text_renamed(folder, encode, frames):
    (folder / "text.mp4").write_text("It was a dark and stormy night.\n" * 50)
    return folder / "text.mp4", "not a video or is damaged"


def text_as_it_is(folder, encode, frames):
    (folder / "text.txt").write_text("\x1b[31mcolours for a terminal, which FFmpeg would draw\n" * 50)
    return folder / "text.txt", "not a video or is damaged"


def playlist_renamed(folder, encode, frames):
    encode("other.ts", frames)
    (folder / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n")
    return folder / "list.mp4", "not a video or is damaged"


def without_index(folder, encode, frames):
    path = encode("cut.mp4", frames)  # its index stands at the end
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path, "is damaged: it ends after"


def cut_after_the_index(folder, encode, frames):
    path = encode("cut.mp4", frames, movflags="faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    return path, "damaged"


def cut_matroska(folder, encode, frames):
    path = encode("cut.mkv", frames, g="1")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    return path, r"ends after \d+ bytes although its header promises \d+"


def cut_avi(folder, encode, frames):
    path = encode("cut.avi", frames, "mjpeg", "yuvj420p")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    return path, r"ends after \d+ bytes although its header promises \d+"


def garbage_inside(folder, encode, frames):
    path = encode("garbage.mp4", frames, movflags="faststart", g="1")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(range(1, 251)) * 8
    path.write_bytes(content)
    return path, "damaged"


def audio_only(folder, encode, frames):
    path = folder / "audio.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        silence.rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    return path, "holds no video, only audio"


def sound_file_renamed(folder, encode, frames):
    with wave.open(str(folder / "sound.mp4"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0\0" * 8000)
    return folder / "sound.mp4", "not a video or is damaged"


def folder_without_images(folder, encode, frames):
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").write_text("no pictures here")
    return folder / "empty", "holds no images"


def images_of_two_sizes(folder, encode, frames):
    (folder / "frames").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "frames" / "0.png")
    Image.new("RGB", (8, 9)).save(folder / "frames" / "1.png")
    return folder / "frames" / "1.png", r"is 8x9 but 0\.png is 8x8"


def images_of_two_kinds(folder, encode, frames):
    (folder / "frames").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "frames" / "0.png")
    Image.new("RGB", (8, 8)).save(folder / "frames" / "0.jpg")
    return folder / "frames", r"mixes JPEG and PNG images"


def one_broken_image(folder, encode, frames):
    (folder / "frames").mkdir()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for index in range(3):
        noise.save(folder / "frames" / f"{index}.png")
    broken = folder / "frames" / "1.png"
    broken.write_bytes(broken.read_bytes()[:3000])
    return broken, "not an image or is damaged"


def broken_gif(folder, encode, frames):
    path = folder / "broken.gif"
    Image.fromarray(frames[0]).save(path)
    path.write_bytes(b"GIF89a" + os.urandom(4))
    return path, "not an image or is damaged"


def text_as_webp(folder, encode, frames):
    (folder / "text.webp").write_text("not an image")
    return folder / "text.webp", "not an image or is damaged"


def device(folder, encode, frames):
    return os.devnull, "neither a file nor a folder"


def url(folder, encode, frames):
    return "https://example.org/clip.mp4", "no such file or folder in the store"


CASES = [
    missing,
    empty,
    text_renamed,
    text_as_it_is,
    playlist_renamed,
    without_index,
    cut_after_the_index,
    cut_matroska,
    cut_avi,
    garbage_inside,
    audio_only,
    sound_file_renamed,
    folder_without_images,
    images_of_two_sizes,
    images_of_two_kinds,
    one_broken_image,
    broken_gif,
    text_as_webp,
    device,
    url,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_one_sentence_names_the_clip(case, tmp_path, encode, numbered, capfd):
    path, says = case(tmp_path, encode, numbered())
    capfd.readouterr()  # what encoding printed
    clip = path.parent if path in (tmp_path / "frames" / "1.png",) else path
    with pytest.raises(UserError, match=says) as caught:
        read_clip(ClipSpec(path=str(clip)))
    with pytest.raises(UserError, match=says):
        list(iter_frames(clip, 4))
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


@pytest.mark.parametrize(
    "case", [missing, empty, text_renamed, cut_matroska, cut_avi, audio_only], ids=lambda c: c.__name__
)
def test_probing_notices_what_shows_without_decoding(case, tmp_path, encode, numbered):
    path, says = case(tmp_path, encode, numbered())
    with pytest.raises(UserError, match=says):
        probe(path)


def test_unreadable_file_and_folder(anybody, unprivileged, encode, numbered):
    path = anybody / "secret.mp4"
    path.write_bytes(encode("a.mp4", numbered(2)).read_bytes())
    path.chmod(0)
    (anybody / "frames").mkdir(mode=0)
    for name in ("secret.mp4", "frames"):
        with pytest.raises(UserError, match=rf"{name}: permission denied"), unprivileged():
            read_clip(ClipSpec(path=str(anybody / name)))


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, ""])
def test_impossible_paths(path):
    with pytest.raises(UserError, match=r"cannot be opened|neither a file|holds no images"):
        read_clip(ClipSpec(path=path))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        read_clip(ClipSpec(path=str(tmp_path / "pipe.mp4")))


def test_a_clip_of_one_frame_is_a_clip(encode, numbered):
    path = encode("one.mp4", numbered(1))
    clip = read_clip(ClipSpec(path=str(path)))
    assert len(clip.frames) == 1
    assert clip.fps == 25


def test_the_frame_size_may_not_change_within_a_file(tmp_path, encode, numbered):
    small = encode("small.ts", numbered(4, 32, 32)).read_bytes()
    path = encode("both.ts", numbered(4))
    path.write_bytes(path.read_bytes() + small)
    with pytest.raises(UserError, match="frame size changes from 64x48 to 32x32"):
        read_clip(ClipSpec(path=str(path)))
