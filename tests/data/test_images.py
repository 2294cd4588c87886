"""Folders of images, animations and single images."""

import numpy as np
import pytest
from PIL import Image

from fatezero.clips.video import probe, read_clip
from fatezero.errors import UserError
from fatezero.types import ClipSpec


def read(path, **choice):
    return read_clip(ClipSpec(path=str(path), **choice))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "frames"
    path.mkdir()
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".webp"])
def test_images_come_in_natural_order_and_other_files_are_left_out(folder, suffix):
    for index in (1, 2, 10, 9, 100):
        Image.new("RGB", (8, 6), (index, index, index)).save(folder / f"frame{index}{suffix}", quality=100)
    (folder / "notes.txt").write_text("not a frame")
    (folder / f"._frame1{suffix}").write_bytes(b"what macOS leaves on foreign disks")
    clip = read(folder)
    np.testing.assert_allclose(clip.frames[:, 3, 3, 0], [1, 2, 9, 10, 100], atol=1)
    assert clip.frames.shape == (5, 6, 8, 3)


def test_images_have_the_rate_that_is_given(folder):
    for index in range(4):
        Image.new("RGB", (4, 4)).save(folder / f"{index}.png")
    assert read(folder).fps == 8
    assert "Images state no rate: taken as 8 frames a second." in read(folder).notes
    assert read(folder, fps=24, stride=2).fps == 12
    assert len(read(folder, fps=24).frames) == 4


def test_lossless_images_keep_every_value(folder):
    frames = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 3), np.uint8)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index}.png")
    np.testing.assert_array_equal(read(folder).frames, frames)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (2, 2), 77), (77, 77, 77)),
        (Image.new("LA", (2, 2), (77, 0)), (255, 255, 255)),
        (Image.new("1", (2, 2), 1), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (100, 50, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (100, 50, 0, 51)), (224, 214, 204)),
        (Image.fromarray(np.full((2, 2), 0x4D00, np.uint16)), (0x4D, 0x4D, 0x4D)),
        (Image.new("RGB", (2, 2), (1, 2, 3)).quantize(4), (1, 2, 3)),
    ],
    ids=["grey", "transparent grey", "bits", "transparent", "translucent", "16 bits", "palette"],
)
def test_every_kind_of_pixel_becomes_rgb_on_white(folder, image, expected):
    image.save(folder / "0.png")
    clip = read(folder)
    assert clip.frames[0, 0, 0].tolist() == list(expected)
    transparent = image.mode in ("LA", "RGBA")
    assert ("Transparent pixels are shown on white." in clip.notes) == transparent


def test_photos_are_shown_upright(folder):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 250
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned clockwise
    Image.fromarray(pixels).save(folder / "0.jpg", exif=exif, quality=100)
    clip = read(folder)
    assert clip.frames.shape == (1, 32, 16, 3)
    assert clip.frames[0, 4, 8, 0] > 240
    assert clip.frames[0, 28, 8, 0] < 10


def save_animation(path, frames, durations, **options):
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, **options)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animations_keep_frames_and_times(tmp_path, numbered, indices_of, suffix):
    path = tmp_path / f"a{suffix}"
    save_animation(path, numbered(5), [40, 40, 200, 40, 40], **({"lossless": True} if suffix == ".webp" else {}))
    clip = read(path)
    assert indices_of(clip.frames) == [0, 1, 2, 3, 4]
    assert clip.fps == pytest.approx(5 / 0.36)
    assert clip.notes == ("Decoded by Pillow.", "The frame rate varies (5 to 25 a second): times are kept.")
    assert clip.timing == pytest.approx((0, 0.04, 0.08, 0.28, 0.32, 0.36), abs=1e-9)
    assert indices_of(read(path, fps=25).frames) == [0, 1, 2, 2, 2, 2, 2, 3, 4]
    assert indices_of(read(path, start=1, stride=2).frames) == [1, 3]


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_transparent_animation_is_shown_on_white(tmp_path, suffix):
    frames = np.full((2, 8, 8, 4), (200, 0, 0, 255), np.uint8)
    frames[0, 2, 2, 3] = 0
    frames[1, 5, 5, 3] = 51
    save_animation(tmp_path / f"a{suffix}", frames, 40, **({"lossless": True} if suffix == ".webp" else {}))
    clip = read(tmp_path / f"a{suffix}")
    assert clip.frames[:, 0, 0].tolist() == [[200, 0, 0], [200, 0, 0]]
    assert clip.frames[0, 2, 2].tolist() == [255, 255, 255]
    assert clip.frames[1, 5, 5].tolist() == [244, 204, 204]
    assert "Transparent pixels are shown on white." in clip.notes


def test_durations_that_browsers_slow_down_are_slow_here(tmp_path, numbered):
    save_animation(tmp_path / "a.gif", numbered(3), 10)
    assert probe(tmp_path / "a.gif").fps == 10


def test_a_single_image_is_a_clip_of_one_frame(tmp_path):
    Image.new("RGB", (6, 4), (9, 8, 7)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").frames.shape == (1, 4, 6, 3)
    with pytest.raises(UserError, match="has 1 frames"):
        read(tmp_path / "a.png", frames=2)
