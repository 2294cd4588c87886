"""Masks as annotators write them: which pixels are inside, of which frames, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fatezero.clips.video import probe, read_clip, write_frames, write_video
from fatezero.errors import UserError
from fatezero.types import ClipSpec, CompanionSpec, Frames, MaskSpec
from tests.clips.encoding import Coding, encode

HEIGHT, WIDTH, FRAMES = 24, 32, 4
Numbers = npt.NDArray[np.uint8]  # F,H,W: which object a pixel belongs to, 0 for none
DAVIS = [*(0, 0, 0), *(128, 0, 0), *(0, 128, 0), *(128, 128, 0), *(0, 0, 128), *(128, 0, 128)]


def numbered(objects: int) -> Numbers:
    """Squares that move to the right by two pixels a frame; the first is there in the first frame alone."""
    numbers = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    for frame in range(FRAMES):
        for number in range(1, objects + 1):
            if number > 1 or objects == 1 or frame == 0:
                top, left = 4 * (number - 1), 2 * frame + 4 * (number - 1)
                numbers[frame, top : top + 4, left : left + 4] = number
    return numbers


def clip_of(folder: Path) -> ClipSpec:
    write_frames(folder / "clip", np.full((FRAMES, HEIGHT, WIDTH, 3), 90, np.uint8))
    return ClipSpec(path=str(folder / "clip"))


def save(folder: Path, pictures: list[Image.Image], suffix: str = ".png", **how: int | bool) -> str:
    folder.mkdir(parents=True)
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number:05d}{suffix}", **how)
    return str(folder)


def inside(clip: ClipSpec, mask: str, *objects: int) -> npt.NDArray[np.bool_]:
    frames = read_clip(CompanionSpec(clip=clip, content=MaskSpec(path=mask, objects=objects))).frames
    assert set(np.unique(frames)) <= {0, 255}
    return np.asarray(frames[..., 0] > 0)


def palette(numbers: Numbers, colours: list[int]) -> list[Image.Image]:
    pictures = [Image.fromarray(frame, "P") for frame in numbers]
    for picture in pictures:
        picture.putpalette(colours)
    return pictures


def white(numbers: Numbers) -> Numbers:
    return np.asarray((numbers > 0) * 255, np.uint8)


def antialiased(numbers: Numbers) -> list[Image.Image]:
    """Edges between black and white, of which half is inside."""
    large = [
        Image.fromarray(frame).resize((8 * WIDTH, 8 * HEIGHT), Image.Resampling.NEAREST) for frame in white(numbers)
    ]
    return [picture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR) for picture in large]


def coloured(numbers: Numbers) -> list[Image.Image]:
    table = np.asarray(DAVIS, np.uint8).reshape(-1, 3)
    return [Image.fromarray(table[frame]) for frame in numbers]


def sixteen(numbers: Numbers, value: int) -> list[Image.Image]:
    return [Image.fromarray(((frame > 0) * value).astype(np.uint16)) for frame in numbers]


KINDS: dict[str, Callable[[Numbers], list[Image.Image]]] = {
    "DAVIS's palette": lambda numbers: palette(numbers, DAVIS),
    "a grey ramp as palette": lambda numbers: palette(numbers, [level for level in range(256) for _ in range(3)]),
    "black and white as palette": lambda numbers: palette(white(numbers) // 255, [0, 0, 0, 255, 255, 255]),
    "white before black": lambda numbers: palette(1 - white(numbers) // 255, [255, 255, 255, 0, 0, 0]),
    "red before black": lambda numbers: palette(1 - white(numbers) // 255, [255, 0, 0, 0, 0, 0]),
    "no black at all": lambda numbers: palette(numbers, [9, 9, 80, *DAVIS[3:]]),
    "a web palette": lambda numbers: [picture.convert("P") for picture in coloured(numbers)],
    "an adaptive palette": lambda numbers: [picture.quantize(8) for picture in coloured(numbers)],
    "numbers in grey": lambda numbers: [Image.fromarray(frame) for frame in numbers],
    "zeros and ones": lambda numbers: [Image.fromarray(frame // 255) for frame in white(numbers)],
    "zeros and ones in RGB": lambda numbers: [Image.fromarray(frame // 255).convert("RGB") for frame in white(numbers)],
    "black and white": lambda numbers: [Image.fromarray(frame) for frame in white(numbers)],
    "one bit": lambda numbers: [Image.fromarray(frame).convert("1") for frame in white(numbers)],
    "antialiased": antialiased,
    "16 bits": lambda numbers: sixteen(numbers, 65535),
    "zeros and ones in 16 bits": lambda numbers: sixteen(numbers, 1),
    "8 bits in 16": lambda numbers: sixteen(numbers, 255),
    "instances in 16 bits": lambda numbers: sixteen(numbers, 2003),
    "colours": coloured,
    "colours with transparency": lambda numbers: [picture.convert("RGBA") for picture in coloured(numbers)],
}


@pytest.mark.parametrize("objects", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_lossless_picture_says_what_is_inside(kind: str, objects: int, tmp_path: Path) -> None:
    numbers = numbered(objects)
    clip, mask = clip_of(tmp_path), save(tmp_path / "mask", KINDS[kind](numbers))
    assert np.array_equal(inside(clip, mask), numbers > 0)


@pytest.mark.parametrize("kind", ["DAVIS's palette", "no black at all", "numbers in grey"])
def test_objects_are_chosen_by_their_numbers(kind: str, tmp_path: Path) -> None:
    numbers = numbered(5)
    clip, mask = clip_of(tmp_path), save(tmp_path / "mask", KINDS[kind](numbers))
    assert np.array_equal(inside(clip, mask, 1, 3), np.isin(numbers, (1, 3)))
    assert np.array_equal(inside(clip, mask, 5), numbers == 5)
    with pytest.raises(UserError, match=r"mask has no object 7 in any frame; its numbers are: 1, 2, 3, 4, 5\."):
        inside(clip, mask, 1, 7)


def test_pictures_and_videos_without_numbers_have_no_objects(tmp_path: Path) -> None:
    numbers, clip = numbered(2), clip_of(tmp_path)
    with pytest.raises(UserError, match="has colours, which number no objects"):
        inside(clip, save(tmp_path / "mask", coloured(numbers)), 1)
    write_video(tmp_path / "mask.mp4", np.repeat(white(numbers)[..., None], 3, axis=3), 8)
    with pytest.raises(UserError, match="is a video, which numbers no objects"):
        inside(clip, str(tmp_path / "mask.mp4"), 1)


def near(found: npt.NDArray[np.bool_], numbers: Numbers) -> bool:
    """Whether at most a pixel of the squares' edges is otherwise, as lossy coding makes it."""
    wrong = found != (numbers > 0)
    return bool(wrong.sum() < 0.15 * (numbers > 0).sum())


@pytest.mark.parametrize("paint", [coloured, lambda numbers: [Image.fromarray(frame) for frame in white(numbers)]])
def test_lossy_pictures_and_videos_are_near_what_was_meant(
    paint: Callable[[Numbers], list[Image.Image]], tmp_path: Path
) -> None:
    numbers, clip = numbered(2), clip_of(tmp_path)
    pictures = paint(numbers)
    assert near(inside(clip, save(tmp_path / "jpeg", pictures, ".jpg", quality=95, subsampling=0)), numbers)
    assert near(inside(clip, save(tmp_path / "webp", pictures, ".webp", lossless=True)), numbers)
    frames = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    encode(tmp_path / "mask.mkv", frames, Coding(codec="ffv1", pixels="bgr0"))
    assert np.array_equal(inside(clip, str(tmp_path / "mask.mkv")), numbers > 0)
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(tmp_path / "mask.gif", save_all=True, append_images=rest, duration=40)
    assert near(inside(clip, str(tmp_path / "mask.gif")), numbers)


def test_a_still_clip_has_a_still_mask(tmp_path: Path) -> None:
    numbers = numbered(2)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "clip.png")
    palette(numbers, DAVIS)[0].save(tmp_path / "mask.png")
    clip = ClipSpec(path=str(tmp_path / "clip.png"))
    assert np.array_equal(inside(clip, str(tmp_path / "mask.png")), numbers[:1] > 0)


@pytest.mark.parametrize(
    ("taken", "indices"),
    [
        ({"start": 2}, [2, 3]),
        ({"stride": 2}, [0, 2]),
        ({"start": 1, "frames": 2}, [1, 2]),
        ({"fps": 4.0}, [0, 2]),
        ({"fps": 16.0, "frames": 3}, [0, 0, 1]),
        ({"start": "0.25s"}, [2, 3]),
        ({"start": "0.125s", "frames": "0.25s"}, [1, 2]),
    ],
)
def test_a_mask_is_taken_where_its_clip_is(taken: dict[str, int], indices: list[int], tmp_path: Path) -> None:
    numbers = numbered(1)
    write_video(tmp_path / "clip.mp4", np.zeros((FRAMES, 48, 64, 3), np.uint8), 8)
    large = numbers.repeat(2, axis=1).repeat(2, axis=2)
    mask = save(tmp_path / "mask", palette(large, DAVIS))
    clip = ClipSpec(path=str(tmp_path / "clip.mp4"), **taken)  # type: ignore[arg-type]
    assert np.array_equal(inside(clip, mask), large[indices] > 0)


def test_a_mask_is_scaled_and_cropped_as_its_clip_is(tmp_path: Path) -> None:
    numbers, clip = numbered(1), clip_of(tmp_path)
    mask = save(tmp_path / "mask", palette(numbers, DAVIS))
    cropped = ClipSpec(path=clip.path, height=HEIGHT, width=16)
    assert np.array_equal(inside_of_any(cropped, mask), numbers[:, :, 8:24] > 0)
    larger = ClipSpec(path=clip.path, height=2 * HEIGHT, width=2 * WIDTH)
    wrong = inside_of_any(larger, mask) != (numbers.repeat(2, axis=1).repeat(2, axis=2) > 0)
    assert wrong.mean() < 0.01
    small = save(tmp_path / "small", palette(numbers[:, ::2, ::2].copy(), DAVIS))
    half = ClipSpec(path=clip.path, height=HEIGHT // 2, width=WIDTH // 2)
    assert np.array_equal(inside_of_any(half, small), numbers[:, ::2, ::2] > 0)  # of the size that is asked for


def inside_of_any(clip: ClipSpec, mask: str) -> npt.NDArray[np.bool_]:
    """Inside where scaling leaves levels between."""
    return np.asarray(read_clip(CompanionSpec(clip=clip, content=MaskSpec(path=mask))).frames[..., 0] > 127)


def test_the_mask_of_a_turned_video_is_as_it_is_shown(tmp_path: Path) -> None:
    quarter = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # a display matrix of 90 degrees
    frames: Frames = np.zeros((FRAMES, 64, 48, 3), np.uint8)
    encode(tmp_path / "clip.mp4", frames, Coding(matrix=quarter))
    clip = ClipSpec(path=str(tmp_path / "clip.mp4"))
    info = probe(clip)
    assert (info.height, info.width) == (48, 64)
    large = numbered(1).repeat(2, axis=1).repeat(2, axis=2)
    assert np.array_equal(inside(clip, save(tmp_path / "mask", palette(large, DAVIS))), large > 0)


def test_runs_are_those_of_pie(tmp_path: Path) -> None:
    Image.new("RGB", (512, 512)).save(tmp_path / "clip.png")
    clip = ClipSpec(path=str(tmp_path / "clip.png"))

    def decoded(*runs: int) -> npt.NDArray[np.bool_]:
        return np.asarray(read_clip(CompanionSpec(clip=clip, content=MaskSpec(runs=runs))).frames[0, ..., 0] > 0)

    expected = np.zeros(512 * 512, bool)
    expected[[*range(512, 515), *range(2000, 2002)]] = True
    assert np.array_equal(decoded(512, 3, 2000, 2).reshape(-1), expected)
    assert not decoded().any()
    assert decoded(0, 512 * 512).all()
    assert decoded(512 * 512 - 2, 9).sum() == 2  # ends at the frame's end, as PnPInversion decodes it
    for runs in ((1,), (512 * 512, 1)):
        with pytest.raises(UserError, match="runs are not starts and lengths in 512 x 512 pixels"):
            decoded(*runs)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda mask: (mask / "00003.png").unlink(), "mask has 3 frames, but frame 3 of clip"),
        (lambda mask: (mask / "00002.png").write_bytes(b"\x89PNG no picture"), "00002.png"),
        (lambda mask: Image.new("L", (WIDTH, HEIGHT)).save(mask / "00004.png"), "mask has 5 frames, .* only 4"),
        (lambda mask: [Image.new("L", (8, 8)).save(path) for path in mask.iterdir()], "is 8x8, the clip 32x24"),
        (lambda mask: [path.unlink() for path in mask.iterdir()], "holds no images"),
    ],
)
def test_masks_that_do_not_fit_are_refused(spoil: Callable[[Path], object], sentence: str, tmp_path: Path) -> None:
    clip, mask = clip_of(tmp_path), save(tmp_path / "mask", palette(numbered(2), DAVIS))
    spoil(Path(mask))
    with pytest.raises(UserError, match=sentence) as refused:
        inside(clip, mask)
    assert "\n" not in str(refused.value)
