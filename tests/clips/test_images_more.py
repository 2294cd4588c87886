"""Images as cameras, phones and editors write them: pixels of known answers, animations against FFmpeg, odd folders."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from fatezero.clips.source import MAX_PIXELS
from fatezero.clips.video import probe, read_clip
from fatezero.errors import UserError
from fatezero.types import Clip, ClipSpec

Pixels = npt.NDArray[np.uint8]
ON_WHITE = "Transparent pixels are shown on white."


def read(path: Path, **choice: Any) -> Clip:
    return read_clip(ClipSpec(path=str(path), **choice))


def first_frame(path: Path) -> Pixels:
    return read(path).frames[0]


def photo(height: int = 16, width: int = 32) -> Pixels:
    """Four corners of four colours, in blocks that JPEG keeps."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, width // 2 :] = (240, 20, 20)
    pixels[height // 2 :, : width // 2] = (20, 240, 20)
    pixels[height // 2 :, width // 2 :] = (20, 20, 240)
    return pixels


# How the camera was held.

# What EXIF 2.3 says of each value: where the stored picture's first row and column are shown.
UPRIGHT: Mapping[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored.swapaxes(0, 1)[:, ::-1],
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("orientation", [*UPRIGHT, 0, 9])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_photos_stand_upright_alone_and_in_folders(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "frames").mkdir()
    path = tmp_path / "frames" / f"0{suffix}"
    options = {".jpg": {"quality": 100, "subsampling": 0}, ".png": {}, ".webp": {"lossless": True}}[suffix]
    Image.fromarray(photo()).save(path, exif=exif, **options)
    shown = UPRIGHT.get(orientation, UPRIGHT[1])(photo())
    for clip in (read(path), read(tmp_path / "frames")):
        np.testing.assert_allclose(clip.frames[0].astype(int), shown, atol=0 if suffix != ".jpg" else 8)
        assert any("stand upright" in note for note in clip.notes) == (2 <= orientation <= 8)


# Pixels. A PNG is put together here, of kinds that Pillow does not write.

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def header(width: int, height: int, depth: int, colours: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))


def png_row(path: Path, width: int, depth: int, colours: int, row: bytes, extra: bytes = b"") -> Path:
    content = extra + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    path.write_bytes(header(width, 1, depth, colours) + content)
    return path


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


SIXTEEN = [0, 1, 256, 0x4DFF, 0x8000, 0xFEFF, 65535, 51_000, 12_345]


@pytest.mark.parametrize("colours", [GREY, RGB, GREY_ALPHA, RGBA])
def test_16_bits_become_8_within_one_level(tmp_path: Path, colours: int) -> None:
    channels = {GREY: 1, RGB: 3, GREY_ALPHA: 2, RGBA: 4}[colours]
    values = np.repeat(np.array(SIXTEEN)[:, None], channels, axis=1)
    if colours in (GREY_ALPHA, RGBA):
        values[:, -1] = 65535
    path = png_row(tmp_path / "a.png", len(SIXTEEN), 16, colours, words(*values.flatten()))
    expected = np.repeat(np.array(SIXTEEN)[:, None] / 257, 3, axis=1)
    assert np.abs(first_frame(path)[0] - expected).max() <= 1
    assert "16 bits a colour are reduced to 8." in read(path).notes
    (tmp_path / "frames").mkdir()
    path.rename(tmp_path / "frames" / "0.png")
    assert "16 bits a colour are reduced to 8." in read(tmp_path / "frames").notes


@pytest.mark.parametrize(
    ("depth", "colours", "row", "extra", "shown"),
    [
        (16, GREY, words(0, 0x4DFF, 0x4D00), chunk(b"tRNS", words(0x4DFF)), [0, 255, 0x4D]),
        (8, GREY, bytes([5, 200, 6]), chunk(b"tRNS", words(5)), [255, 200, 6]),
        (4, GREY, b"\x12\x30", chunk(b"tRNS", words(2)), [17, 255, 51]),
        (2, GREY, b"\x1b", chunk(b"tRNS", words(1)), [0, 255, 170]),
        (1, GREY, b"\x40", chunk(b"tRNS", words(1)), [0, 255, 0]),
        (2, GREY, b"\x1b", b"", [0, 85, 170]),
    ],
)
def test_a_transparent_grey_level_is_shown_on_white(
    tmp_path: Path, depth: int, colours: int, row: bytes, extra: bytes, shown: Sequence[int]
) -> None:
    path = png_row(tmp_path / "a.png", 3, depth, colours, row, extra)
    assert first_frame(path)[0, :, 0].tolist() == shown
    assert (ON_WHITE in read(path).notes) == bool(extra)


def test_transparent_colours_and_palettes(tmp_path: Path) -> None:
    key = chunk(b"tRNS", words(5, 200, 7))
    path = png_row(tmp_path / "key.png", 2, 8, RGB, bytes([5, 200, 7, 8, 9, 1]), key)
    assert first_frame(path)[0].tolist() == [[255, 255, 255], [8, 9, 1]]
    palette = chunk(b"PLTE", bytes([10, 20, 30, 100, 50, 0, 7, 8, 9]))
    path = png_row(tmp_path / "palette.png", 3, 8, PALETTE, bytes([0, 1, 2]), palette + chunk(b"tRNS", b"\xff\x33\x00"))
    assert first_frame(path)[0].tolist() == [[10, 20, 30], [224, 214, 204], [255, 255, 255]]
    path = png_row(tmp_path / "opaque.png", 3, 8, PALETTE, bytes([2, 1, 0]), palette)
    assert first_frame(path)[0].tolist() == [[7, 8, 9], [100, 50, 0], [10, 20, 30]]
    assert ON_WHITE not in read(path).notes
    path = png_row(tmp_path / "deep.png", 1, 16, RGB, words(1, 2, 3), chunk(b"tRNS", words(1, 2, 3)))
    with pytest.raises(UserError, match=r"deep\.png names a transparent colour of 16 bits; save it with an alpha"):
        read(path)


@pytest.mark.parametrize(("kind", "bits"), [("1", 1), ("LA", 8)])
def test_bits_and_grey_with_alpha(tmp_path: Path, kind: str, bits: int) -> None:
    image = Image.new(kind, (2, 1), 0) if bits == 1 else Image.new(kind, (2, 1), (77, 51))
    image.putpixel((1, 0), 1 if bits == 1 else (77, 255))
    image.save(tmp_path / "a.png")
    assert first_frame(tmp_path / "a.png")[0, :, 0].tolist() == ([0, 255] if bits == 1 else [219, 77])


def test_cmyk_is_ink_on_white(tmp_path: Path) -> None:
    inks = np.zeros((16, 32, 4), np.uint8)
    inks[:, 16:] = (0, 255, 255, 64)
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.jpg", quality=100)
    frame = first_frame(tmp_path / "a.jpg")
    np.testing.assert_allclose(frame[8, 4].astype(int), (255, 255, 255), atol=2)
    np.testing.assert_allclose(frame[8, 28].astype(int), (191, 0, 0), atol=3)
    assert sum("CMYK" in note for note in read(tmp_path / "a.jpg").notes) == 1


def test_ycck_as_photoshop_writes_it(tmp_path: Path) -> None:
    """Adobe's transform 2 says that inks are stored as luma, chroma and black, all inverted."""
    stored = np.full((16, 16, 4), (255 - 100, 255 - 128, 255 - 128, 255 - 204), np.uint8)  # which Pillow inverts
    made = io.BytesIO()
    Image.fromarray(stored, "CMYK").save(made, "JPEG", quality=100)
    content = made.getvalue()
    assert content.count(b"Adobe\0\x64\0\0\0\0\0") == 1
    (tmp_path / "a.jpg").write_bytes(content.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2"))
    # Luma 100 without chroma stands for inks of 255 - (255 - 100), inverted once more: 100 of 255 and black of 51.
    expected = (255 - 100) * (255 - 51) / 255
    np.testing.assert_allclose(first_frame(tmp_path / "a.jpg")[8, 8].astype(int), expected, atol=3)


# Colour profiles, put together here as ICC.1 describes them.


def s15(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def profile(space: bytes, name: bytes, tags: Mapping[bytes, bytes], pcs: bytes = b"XYZ ") -> bytes:
    described = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" + bytes(78)
    all_tags = {b"desc": described, b"wtpt": b"XYZ \0\0\0\0" + s15(0.9642, 1, 0.8249), **tags}
    table, body, at = b"", b"", 128 + 4 + 12 * len(all_tags)
    for tag, content in all_tags.items():
        padded = content + bytes(-len(content) % 4)
        table += tag + struct.pack(">II", at + len(body), len(content))
        body += padded
    size = at + len(body)
    head = struct.pack(">I4sI", size, b"", 0x02400000) + b"mntr" + space + pcs + bytes(12) + b"acsp" + bytes(28)
    head += s15(0.9642, 1, 0.8249) + bytes(48)
    return head + struct.pack(">I", len(all_tags)) + table + body


D50_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
D50_SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def of_matrix(name: bytes, matrix: npt.NDArray[np.float64], gamma: float) -> bytes:
    columns = {colour: b"XYZ \0\0\0\0" + s15(*matrix[:, at]) for at, colour in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return profile(b"RGB ", name, {**columns, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve(gamma))})


def srgb_encoded(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IEC 61966-2-1, levels 0 to 255."""
    clipped = np.clip(linear, 0, 1)
    return np.asarray(255 * np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055))


COLOURS = np.array([[200, 60, 40], [0, 255, 0], [120, 130, 140], [255, 255, 255], [0, 0, 0], [30, 40, 220]], np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_wide_gamut_becomes_srgb(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "frames").mkdir()
    path = tmp_path / "frames" / f"0{suffix}"
    image = Image.fromarray(np.repeat(np.repeat(COLOURS[None], 16, axis=0), 16, axis=1))
    options = {".jpg": {"quality": 100, "subsampling": 0}, ".png": {}, ".webp": {"lossless": True}}[suffix]
    image.save(path, icc_profile=of_matrix(b"Display P3", D50_P3, 2.2), **options)
    linear = (COLOURS / 255) ** (round(2.2 * 256) / 256) @ D50_P3.T @ np.linalg.inv(D50_SRGB).T
    expected = srgb_encoded(linear)
    for clip in (read(path), read(tmp_path / "frames")):
        shown = clip.frames[0][8, 8::16].astype(int)
        np.testing.assert_allclose(shown, expected, atol=2 if suffix != ".jpg" else 8)
        assert "Colours are converted from Display P3 to sRGB, by the file's profile." in clip.notes
    assert np.abs(expected - COLOURS).max() > 20  # so that leaving it out would show


def test_transparency_and_palettes_are_converted_too(tmp_path: Path) -> None:
    wide = of_matrix(b"wide", D50_P3, 2.2)
    Image.new("RGBA", (2, 2), (200, 60, 40, 51)).save(tmp_path / "a.png", icc_profile=wide)
    opaque = Image.new("RGB", (2, 2), (200, 60, 40))
    opaque.save(tmp_path / "b.png", icc_profile=wide)
    opaque.quantize(4).save(tmp_path / "c.png", icc_profile=wide)
    colour = first_frame(tmp_path / "b.png")[0, 0].astype(int)
    assert first_frame(tmp_path / "c.png")[0, 0].tolist() == colour.tolist()
    expected = (colour * 51 + 255 * 204) / 255
    np.testing.assert_allclose(first_frame(tmp_path / "a.png")[0, 0].astype(int), expected, atol=1)


def test_profiles_of_grey_and_inks(tmp_path: Path) -> None:
    linear = profile(b"GRAY", b"linear grey", {b"kTRC": curve(1)})
    Image.new("L", (2, 2), 64).save(tmp_path / "a.png", icc_profile=linear)
    expected = srgb_encoded(np.array([64 / 255]))[0]
    assert abs(int(first_frame(tmp_path / "a.png")[0, 0, 0]) - expected) <= 1
    Image.new("L", (2, 2), 64).save(tmp_path / "b.png", icc_profile=of_matrix(b"P3", D50_P3, 1))
    assert abs(int(first_frame(tmp_path / "b.png")[0, 0, 0]) - expected) <= 1
    identity = bytes(range(256))
    # Sixteen corners of the inks: paper is white, black alone is half as light (L* 128 of 255), the rest black.
    corners = b"".join(bytes([{0: 255, 1: 128}.get(corner, 0), 128, 128]) for corner in range(16))
    matrix = s15(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + corners + identity * 3
    inks = profile(b"CMYK", b"press", {b"A2B0": table}, b"Lab ")
    Image.new("CMYK", (16, 16), (0, 0, 0, 255)).save(tmp_path / "c.jpg", icc_profile=inks, quality=100)
    light = ((100 * 128 / 255 + 16) / 116) ** 3
    np.testing.assert_allclose(
        first_frame(tmp_path / "c.jpg")[8, 8].astype(int), srgb_encoded(np.array([light] * 3)), atol=3
    )
    assert "Colours are converted from press to sRGB, by the file's profile." in read(tmp_path / "c.jpg").notes


@pytest.mark.parametrize(
    "damaged", [b"no profile at all", of_matrix(b"x", D50_P3, 2.2)[:200], profile(b"CMYK", b"other colours", {})]
)
def test_profiles_that_fit_nothing_are_ignored_with_a_note(tmp_path: Path, damaged: bytes) -> None:
    for suffix, options in ((".png", {}), (".webp", {"lossless": True})):
        Image.new("RGB", (2, 2), (200, 60, 40)).save(tmp_path / f"a{suffix}", icc_profile=damaged, **options)
        assert first_frame(tmp_path / f"a{suffix}")[0, 0].tolist() == [200, 60, 40]
        assert any("colour profile is damaged" in note for note in read(tmp_path / f"a{suffix}").notes)
    broken = chunk(b"iCCP", b"name\0\0not deflated")
    path = png_row(tmp_path / "b.png", 1, 8, RGB, bytes([1, 2, 3]), broken)
    assert any("colour profile is damaged" in note for note in read(path).notes)


def test_srgb_stays_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(COLOURS[None]).save(tmp_path / "a.png", icc_profile=of_matrix(b"called otherwise", D50_SRGB, 2.2))
    levels = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2))
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    levels.save(tmp_path / "b.png", icc_profile=own)
    assert first_frame(tmp_path / "b.png")[0, :, 1].tolist() == list(range(256))
    assert not any("sRGB" in note for note in read(tmp_path / "b.png").notes)


# Animations.


def by_ffmpeg(path: Path) -> tuple[Pixels, list[float]]:
    """Frames on white, and when each is shown: an independent decoder."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    rgba = np.stack([frame.to_ndarray(format="rgba") for frame in decoded]).astype(int)
    shown = (rgba[..., :3] * rgba[..., 3:] + 255 * (255 - rgba[..., 3:]) + 127) // 255
    return shown.astype(np.uint8), [float(frame.time or 0) for frame in decoded]


def sprites(count: int, seed: int) -> list[Image.Image]:
    """A square that moves over transparency: most of each frame is as in the one before."""
    dice = np.random.default_rng(seed)
    frames = []
    for index in range(count):
        frame = np.zeros((24, 32, 4), np.uint8)
        frame[2:6, 2:30] = (30, 90, 160, 255)
        frame[8:18, 2 + 3 * index : 10 + 3 * index] = (*dice.integers(0, 256, 3), 255)
        frames.append(Image.fromarray(frame))
    return frames


@pytest.mark.parametrize("disposal", [0, 1, 2])
@pytest.mark.parametrize("blend", [0, 1])
def test_animated_png_disposal_and_blending(tmp_path: Path, disposal: int, blend: int) -> None:
    path = tmp_path / "a.png"
    first, *rest = sprites(6, disposal)
    first.save(
        path, save_all=True, append_images=rest, duration=[40, 80, 40, 120, 40, 40], disposal=disposal, blend=blend
    )
    frames, times = by_ffmpeg(path)
    clip = read(path)
    np.testing.assert_array_equal(clip.frames, frames)
    assert clip.timing == pytest.approx((0, 0.04, 0.12, 0.16, 0.28, 0.32, 0.36), abs=1e-9)
    assert times == pytest.approx(clip.timing[:-1], abs=1e-3)  # type: ignore[index]


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_gif_disposal(tmp_path: Path, disposal: int) -> None:
    path = tmp_path / "a.gif"
    first, *rest = sprites(6, disposal)
    first.save(path, save_all=True, append_images=rest, duration=[40, 80, 40, 120, 40, 40], disposal=disposal)
    frames, times = by_ffmpeg(path)
    clip = read(path)
    np.testing.assert_array_equal(clip.frames, frames)
    assert clip.timing == pytest.approx((0, 0.04, 0.12, 0.16, 0.28, 0.32, 0.36), abs=1e-9)
    assert times == pytest.approx(clip.timing[:-1], abs=1e-3)  # type: ignore[index]


def test_animated_webp_frames_are_what_was_drawn(tmp_path: Path) -> None:
    drawn = sprites(6, 9)
    drawn[0].save(
        tmp_path / "a.webp", save_all=True, append_images=drawn[1:], duration=[40, 80, 40, 120, 40, 40], lossless=True,
        exact=True, minimize_size=True,
    )  # fmt: skip
    rgba = np.stack([np.asarray(frame) for frame in drawn])
    shown = np.where(rgba[..., 3:] == 0, 255, rgba[..., :3])
    clip = read(tmp_path / "a.webp")
    np.testing.assert_array_equal(clip.frames, shown)
    assert clip.timing == pytest.approx((0, 0.04, 0.12, 0.16, 0.28, 0.32, 0.36), abs=1e-9)


def control(number: int, size: Sequence[int], at: Sequence[int], delay: Sequence[int], ends: int, blends: int) -> bytes:
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, *size, *at, *delay, ends, blends))


def test_parts_of_an_animated_png_by_hand(tmp_path: Path) -> None:
    """Four grey pixels; then one changed for a moment, then one blended half, each for its own time."""

    def pixels(*levels: tuple[int, int]) -> bytes:
        return zlib.compress(b"\0" + bytes(value for level in levels for value in level))

    to_previous, over = 2, 1
    (tmp_path / "a.apng").write_bytes(
        header(4, 1, 8, GREY_ALPHA)
        + chunk(b"acTL", struct.pack(">II", 3, 0))
        + control(0, (4, 1), (0, 0), (1, 8), 0, 0)
        + chunk(b"IDAT", pixels((10, 255), (20, 255), (30, 255), (40, 255)))
        + control(1, (1, 1), (1, 0), (1, 4), to_previous, 0)
        + chunk(b"fdAT", struct.pack(">I", 2) + pixels((200, 255)))
        + control(3, (2, 1), (2, 0), (1, 2), 0, over)
        + chunk(b"fdAT", struct.pack(">I", 4) + pixels((90, 0), (240, 128)))
        + chunk(b"IEND", b"")
    )
    clip = read(tmp_path / "a.apng")
    assert clip.frames[:2, 0, :, 0].tolist() == [[10, 20, 30, 40], [10, 200, 30, 40]]
    np.testing.assert_allclose(clip.frames[2, 0, :, 0].astype(int), [10, 20, 30, 140], atol=1)
    assert clip.timing == pytest.approx((0, 0.125, 0.375, 0.875), abs=1e-9)
    assert probe(tmp_path / "a.apng").kind == "PNG animation"


def test_a_transparent_grey_level_of_few_bits_in_an_animation(tmp_path: Path) -> None:
    """Two pixels of 4 bits each; level 2 is transparent."""
    (tmp_path / "a.png").write_bytes(
        header(2, 1, 4, GREY)
        + chunk(b"acTL", struct.pack(">II", 2, 0))
        + chunk(b"tRNS", words(2))
        + control(0, (2, 1), (0, 0), (1, 10), 0, 0)
        + chunk(b"IDAT", zlib.compress(b"\0\x12"))
        + control(1, (2, 1), (0, 0), (1, 10), 0, 1)
        + chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(b"\0\x23"))
        + chunk(b"IEND", b"")
    )
    assert read(tmp_path / "a.png").frames[:, 0, :, 0].tolist() == [[17, 255], [17, 51]]


def animated(folder: Path) -> bytes:
    first, *rest = sprites(4, 0)
    first.save(folder / "a.png", save_all=True, append_images=rest, duration=40)
    return (folder / "a.png").read_bytes()


def test_damaged_animations_are_a_sentence(tmp_path: Path) -> None:
    content = animated(tmp_path)
    second = content.index(b"fdAT")
    beyond = bytearray(content)
    at = content.rindex(b"fcTL") + 4
    beyond[at + 12 : at + 16] = struct.pack(">I", 40)  # its left edge lies outside
    beyond[at + 26 : at + 30] = struct.pack(">I", zlib.crc32(beyond[at - 4 : at + 26]))
    last = content[: content.rindex(b"fcTL") - 4] + chunk(b"IEND", b"")
    for harmed in (
        content[: second + 40],
        content[:-30],
        bytes(beyond),
        last,
        content[:second] + b"xxxx" + content[second + 4 :],
    ):
        (tmp_path / "a.png").write_bytes(harmed)
        with pytest.raises(UserError, match=r"a\.png is (damaged|not an image or is damaged)") as caught:
            read(tmp_path / "a.png")
        assert "\n" not in str(caught.value)


def test_the_picture_for_programs_without_animation_is_no_frame(tmp_path: Path) -> None:
    images = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in (10, 100, 200)]
    options: dict[str, Any] = {"save_all": True, "append_images": images[1:], "duration": [50, 150]}
    images[0].save(tmp_path / "a.png", default_image=True, **options)
    clip = read(tmp_path / "a.png")
    assert clip.frames[:, 0, 0, 0].tolist() == [100, 200]
    assert clip.timing == pytest.approx((0, 0.05, 0.2))
    np.testing.assert_array_equal(clip.frames, by_ffmpeg(tmp_path / "a.png")[0])
    assert read(tmp_path / "a.png", start=1).frames[0, 0, 0, 0] == 200
    options["append_images"], options["duration"] = images[1:2], 50
    images[0].save(tmp_path / "b.png", default_image=True, **options)
    assert read(tmp_path / "b.png").frames[:, 0, 0, 0].tolist() == [100]
    assert probe(tmp_path / "b.png").kind == "PNG image"


def test_frames_that_browsers_slow_down_are_told(tmp_path: Path) -> None:
    frames = sprites(3, 0)
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[10, 40, 40])
    clip = read(tmp_path / "a.gif")
    assert clip.timing == pytest.approx((0, 0.1, 0.14, 0.18))
    assert "Frames that are to last 10 ms or less last 100 ms, as in every browser." in clip.notes
    frames[0].save(tmp_path / "b.gif")
    assert not any("browser" in note for note in read(tmp_path / "b.gif").notes)


# Folders.


def fill(folder: Path, *names: str) -> Path:
    """An image for each name, as light as its place."""
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        image = Image.new("RGB", (8, 6), (8 * index, 8 * index, 8 * index))
        image.save(folder / name, format={"jpg": "JPEG", "jpeg": "JPEG"}.get(name.lower().rpartition(".")[2]))
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("2.png", "10.png"),
        ("frame_0001.png", "frame_0002.png", "frame_0010.png"),
        ("IMG_1.jpg", "IMG_2.JPG", "IMG_3.jpeg"),
        ("a9-1.png", "a9-2.png", "a10-1.png"),
        ("shot 9.png", "shot 10.png", "shot 11.png"),
    ],
)
def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path, names: Sequence[str]) -> None:
    folder = fill(tmp_path / "frames", *names)
    levels = read(folder).frames[:, 3, 3, 0].astype(int)
    np.testing.assert_allclose(levels, 8 * np.arange(len(names)), atol=1)


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (("1.png", "2.png", "3.png"), None),
        (("f0000.png", "f0005.png", "f0010.png"), None),
        (("a.png", "b.png"), None),
        (("x1.png", "y5.png"), None),
        (("f_1.png", "f_2.png", "f_5.png"), "(between f_2.png and f_5.png)"),
        (("f_01.png", "f_02.png", "f_04.png", "f_05.png", "f_09.png"), "(between f_02.png and f_04.png, and 1 more)"),
    ],
)
def test_missing_numbers_are_told(tmp_path: Path, names: Sequence[str], missing: str | None) -> None:
    notes = [note for note in read(fill(tmp_path / "frames", *names)).notes if "Numbers are missing" in note]
    assert notes == ([f"Numbers are missing {missing}: images follow each other all the same."] if missing else [])


def test_what_is_no_image_is_told_and_what_systems_leave_is_not(tmp_path: Path) -> None:
    folder = fill(tmp_path / "frames", "0.png", "1.png")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
        (folder / name).write_bytes(b"x")
    assert not any("Left out" in note for note in read(folder).notes)
    (folder / "notes.txt").write_bytes(b"x")
    (folder / "masks").mkdir()
    assert "Left out of the folder, since no images are read from them: masks, notes.txt." in read(folder).notes
    assert len(read(folder).frames) == 2


def test_folders_that_are_no_clip_are_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "frames", "0.png", "1.png")
    Image.new("RGB", (6, 8)).save(folder / "2.png")
    with pytest.raises(UserError, match=r"2\.png is 6x8 but 0\.png is 8x6; bring the images of a clip to one size\.$"):
        read(folder)
    frames = sprites(2, 0)
    frames[0].save(folder / "2.png", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=r"2\.png is an animation, not a frame"):
        read(folder)
    with pytest.raises(UserError, match="mixes JPEG and PNG images"):
        read(fill(folder, "3.jpg"))
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("0.tif", "1.TIFF"):
        (scans / name).write_bytes(b"II*\0")
    with pytest.raises(UserError, match=r"holds no images \(.*\), but \.tif and \.tiff files: convert them to PNG\.$"):
        read(scans)


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".heic", ".avif", ".jxl"])
def test_formats_that_are_not_read_are_refused_by_name(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"II*\0")
    with pytest.raises(
        UserError, match=f"{suffix} files are not read, only PNG, JPEG, BMP, WebP, GIF; convert it to PNG"
    ):
        read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("size", [(16_000, 16_000), (60_000, 60_000), (9_000, 8_000)])
def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path, size: Sequence[int]) -> None:
    rows = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(header(size[0], size[1], 8, RGB) + rows)
    with pytest.raises(UserError, match=rf"a\.png.*at most {MAX_PIXELS // 10**6} million"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "PNG image"), ("a.jpg", "JPEG image"), ("a.webp", "WebP image"), ("a.bmp", "BMP image")],
)
def test_kinds_in_words(tmp_path: Path, name: str, kind: str) -> None:
    fill(tmp_path, name)
    assert probe(tmp_path / name).kind == kind
    frames = fill(tmp_path / "frames", name)
    assert probe(frames).kind == f"folder of 1 {kind}"
