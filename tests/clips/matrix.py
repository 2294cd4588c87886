"""Small clips of every kind that cameras, phones, recorders and editors write, with what is right for each.

    python -m tests.clips.matrix FOLDER

Built with PyAV alone. What this build cannot encode is not here: Theora (Ogg holds VP8), alt-ref frames of VP9,
VP9 with 10 bits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.stream import Disposition

from fatezero.system.terminal import say
from tests.clips import surgery
from tests.clips.colour_patches import hlg, patch_frames, pq, srgb, wide_planes
from tests.clips.encoding import (
    TINY,
    Coding,
    ForwardOnly,
    Pictures,
    add_video,
    encode,
    numbered_frames,
    packets_of,
    woven_frames,
)

FRAMES = 20
END_UNKNOWN = r"The file does not say how many frames it has: it would not show if some were missing at its end\."
_RATE_VARIES = r"The frame rate varies \(.+\): times are kept\."
_BEGINNING = r"{} frames? at the beginning (was|were) left out: .+ not in the file\."
_SHARP = {"qmin": "1", "qmax": "2"}
_GOP_5 = {"g": "5", "bf": "2"}
_X264_OPEN = {"x264-params": "open-gop=1:keyint=6:min-keyint=6:bframes=3:b-adapt=0:scenecut=0", "crf": "4"}
_X265_OPEN = {"x265-params": "open-gop=1:keyint=6:min-keyint=6:bframes=3:b-adapt=0:scenecut=0:log-level=none:pools=1"}
_X265 = {"x265-params": "open-gop=0:keyint=6:log-level=none:pools=1:crf=8"}
_VPX = {"b": "2M"}
End = Literal["stated", "unknown", "either"]


@dataclass(frozen=True, kw_only=True)
class MatrixClip:
    """A file and what a player shows of it.

    Attributes:
        name: of the file.
        make: writes it.
        shows: the numbers of the frames that are shown.
        seconds: from the first frame to each.
        notes: patterns of the sentences that a user must see, besides which reader decoded and END_UNKNOWN.
        may_say: a pattern of one that may be there.
        by_decord: decord must decode it; otherwise that is left open.
        end: whether the file states its own length.
        size: rows and columns as shown, with square pixels.
        equals: how its frames are known: FFmpeg's to the bit, FFmpeg's scaled, the encoded ones to the bit, patches.
        spoilt: frames that FFmpeg shows before, although what they refer to is missing.
    """

    name: str
    make: Callable[[Path], None]
    shows: Sequence[int] = range(FRAMES)
    seconds: Sequence[float] | None = None
    notes: Sequence[str] = ()
    may_say: str = "^$"
    by_decord: bool = False
    end: End = "stated"
    size: tuple[int, int] = TINY
    equals: Literal["player", "scaled", "pictures", "patches"] = "player"
    spoilt: int = 0

    @property
    def times(self) -> Sequence[float]:
        """Seconds from the first frame to each."""
        return [index / 25 for index in range(len(self.shows))] if self.seconds is None else self.seconds


def _clip(name: str, coding: Coding, frames: Pictures | None = None, **known: Any) -> MatrixClip:
    pictures = numbered_frames(FRAMES) if frames is None else frames
    return MatrixClip(name=name, make=lambda path: encode(path, pictures, coding), **known)


H264 = Coding(options={"crf": "4", "bf": "2"})
_H264_OPEN = Coding(options=_X264_OPEN)
_HEVC, _HEVC_OPEN = Coding(codec="libx265", options=_X265), Coding(codec="libx265", options=_X265_OPEN)
_VP8, _VP9 = Coding(codec="libvpx", options=_VPX), Coding(codec="libvpx-vp9", options=_VPX)
_AV1 = Coding(codec="libsvtav1", options={"svtav1-params": "lp=1", "preset": "10", "crf": "5"})
_MPEG2 = Coding(codec="mpeg2video", options={"bf": "2", **_SHARP})
_MPEG4 = Coding(codec="mpeg4", options={"bf": "0", **_SHARP})
_MPEG4_B = Coding(codec="mpeg4", options={"bf": "2", **_SHARP})
_MJPEG = Coding(codec="mjpeg", pixels="yuvj420p", options=_SHARP, colours={"color_range": 2})
_PRORES = Coding(codec="prores_ks", pixels="yuv422p10le")
_WMV2, _FLV1 = Coding(codec="wmv2", options=_SHARP), Coding(codec="flv", options=_SHARP)
_M2TS = {"mpegts_m2ts_mode": "1"}


def _plain() -> Iterator[MatrixClip]:
    """Containers and codecs."""
    served = (
        *(("h264.mp4", H264), ("h264-open.mp4", _H264_OPEN), ("hevc.mp4", _HEVC), ("hevc-open.mp4", _HEVC_OPEN)),
        *(("h264.mov", H264), ("hevc.mov", _HEVC), ("h264.mkv", H264), ("hevc.mkv", _HEVC)),
        *(("h264-open.mkv", _H264_OPEN), ("vp9.mp4", _VP9), ("vp8.mkv", _VP8), ("vp9.mkv", _VP9)),
        *(("vp8.webm", _VP8), ("vp9.webm", _VP9)),
    )
    for name, coding in served:
        yield _clip(name, coding, by_decord=True)
    others = (
        *(("av1.mp4", _AV1), ("mpeg2.mp4", _MPEG2), ("mpeg4.mp4", _MPEG4_B), ("mjpeg.mp4", _MJPEG)),
        *(("h264.3gp", H264), ("mpeg4.3gp", _MPEG4), ("prores.mov", _PRORES), ("mjpeg.mov", _MJPEG)),
        *(("mpeg2.mov", _MPEG2), ("av1.mkv", _AV1), ("mpeg2.mkv", _MPEG2), ("mpeg4.mkv", _MPEG4_B)),
        *(("mjpeg.mkv", _MJPEG), ("prores.mkv", _PRORES), ("av1.webm", _AV1), ("h264.avi", H264)),
        *(("mpeg4.avi", _MPEG4), ("mpeg4-b.avi", _MPEG4_B), ("mjpeg.avi", _MJPEG)),
        *(("raw.mkv", Coding(codec="rawvideo")), ("utvideo.avi", Coding(codec="utvideo", pixels="yuv422p"))),
        *(
            ("msmpeg4.avi", Coding(codec="msmpeg4", options=_SHARP)),
            ("huffyuv.avi", Coding(codec="huffyuv", pixels="yuv422p")),
        ),
        *(
            ("rgb.mp4", Coding(codec="libx264rgb", pixels="rgb24")),
            ("cineform.mov", Coding(codec="cfhd", pixels="yuv422p10le")),
        ),
        *(("png.mov", Coding(codec="png", pixels="rgb24")), ("animation.mov", Coding(codec="qtrle", pixels="rgb24"))),
    )
    for name, coding in others:
        yield _clip(name, coding)
    endless = (
        *(("h264.ts", H264), ("h264-open.ts", _H264_OPEN), ("hevc.ts", _HEVC), ("mpeg2.ts", _MPEG2)),
        *(("h264.m2ts", replace(H264, muxer=_M2TS)), ("mpeg2.m2ts", replace(_MPEG2, muxer=_M2TS))),
        *(("h264.flv", H264), ("flv1.flv", _FLV1), ("h264.264", H264), ("hevc.265", replace(_HEVC, container="hevc"))),
    )
    for name, coding in endless:
        yield _clip(name, coding, end="unknown")
    ogg = replace(_VP8, container="ogg")
    mpeg1, wmv1 = replace(_MPEG2, codec="mpeg1video"), replace(_WMV2, codec="wmv1")
    for name, coding in (
        *(("wmv2.wmv", _WMV2), ("wmv1.wmv", wmv1), ("h264.wmv", H264), ("vp8.ogv", ogg)),
        *(("mpeg2.mpg", _MPEG2), ("mpeg1.mpg", mpeg1), ("mpeg2.mxf", _MPEG2)),
    ):
        yield _clip(name, coding, end="either")


def _lossless() -> Iterator[MatrixClip]:
    """Codecs that give the encoded frames back to the bit, animations among them."""
    ffv1 = Coding(codec="ffv1", pixels="bgr0")
    for name, coding in (
        *(("ffv1.mkv", ffv1), ("ffv1.avi", ffv1)),
        ("raw.avi", Coding(codec="rawvideo", pixels="bgr24")),
        ("raw.mov", Coding(codec="rawvideo", pixels="rgb24")),
        ("colour.apng", Coding(codec="apng", pixels="rgb24")),
        ("colour.webp", Coding(codec="libwebp_anim", pixels="bgra", options={"lossless": "1"})),
    ):
        yield _clip(name, coding, equals="pictures")
    greys = np.repeat(numbered_frames(FRAMES)[..., 1:2], 3, -1)
    yield _clip("grey.gif", Coding(codec="gif", pixels="gray"), greys, equals="pictures")


def _orientations() -> Iterator[MatrixClip]:
    """All eight, by the matrix that sends the stored (x, y) to the shown (a x + c y, b x + d y)."""
    turned, mirrored = r"Turned by {} degrees clockwise, as the file says\.", r"Mirrored, as the file says\."
    both = r"Turned by {} degrees clockwise and mirrored, as the file says\."
    kinds = {
        "upright": ((1, 0, 0, 1), ()),
        "right": ((0, 1, -1, 0), (turned.format(90),)),
        "around": ((-1, 0, 0, -1), (turned.format(180),)),
        "left": ((0, -1, 1, 0), (turned.format(270),)),
        "mirrored": ((-1, 0, 0, 1), (mirrored,)),
        "mirrored-right": ((0, 1, 1, 0), (both.format(90),)),
        "mirrored-around": ((1, 0, 0, -1), (both.format(180),)),
        "mirrored-left": ((0, -1, -1, 0), (both.format(270),)),
    }
    for kind, ((a, b, c, d), notes) in kinds.items():
        matrix = [number << 16 for number in (a, b, 0, c, d, 0, 0, 0)] + [1 << 30]
        size = TINY if a else (TINY[1], TINY[0])
        known: dict[str, Any] = {"shows": range(6), "notes": notes, "size": size, "by_decord": kind == "upright"}
        yield MatrixClip(name=f"{kind}.mp4", make=_turned(matrix), **known)
        yield _clip(f"{kind}.mkv", replace(H264, matrix=matrix), numbered_frames(6), **known)


def _turned(matrix: Sequence[int], coding: Coding = H264) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        encode(path, numbered_frames(6), coding)
        surgery.display_matrix(path, matrix)

    return make


def _pixel_shapes() -> Iterator[MatrixClip]:
    for name, codec, aspect, size in (
        ("wide.mp4", "libx264", Fraction(2, 1), (48, 128)),
        ("narrow.mp4", "libx264", Fraction(8, 9), (48, 57)),
        ("anamorphic.mkv", "libx264", Fraction(4, 3), (48, 85)),
        ("dvd.mpg", "mpeg2video", Fraction(4, 3), (48, 85)),
        ("wide.avi", "mpeg4", Fraction(2, 1), (48, 128)),
    ):
        options = {"crf": "4"} if codec == "libx264" else _SHARP
        note = rf"Pixels of shape {aspect.numerator}:{aspect.denominator} made square: shown at \d+x\d+\."
        end: End = "either" if name.endswith("mpg") else "stated"
        coding = Coding(codec=codec, options=options, aspect=aspect)
        yield _clip(
            name, coding, numbered_frames(8), shows=range(8), notes=(note,), size=size, equals="scaled", end=end
        )

    turned = [number << 16 for number in (0, 1, 0, -1, 0, 0, 0, 0)] + [1 << 30]
    shape = r"Pixels of shape 4:3 made square: shown at 48x85\."
    notes = (r"Turned by 90 degrees clockwise, as the file says\.", shape)
    make = _turned(turned, replace(H264, aspect=Fraction(4, 3)))
    yield MatrixClip(name="turned.mp4", make=make, shows=range(6), notes=notes, size=(85, 48), equals="scaled")


def _times() -> Iterator[MatrixClip]:
    slow_then_fast = [*(4 * index for index in range(8)), *(32 + index for index in range(32))]
    varying: dict[str, Any] = {
        "shows": range(40),
        "seconds": [tick / 60 for tick in slow_then_fast],
        "notes": (_RATE_VARIES,),
    }
    uneven = Coding(options={"crf": "4"}, rate=60, ticks=slow_then_fast)
    vp9 = replace(uneven, codec="libvpx-vp9", options=_VPX)
    for name, coding in (("varying.mp4", uneven), ("varying.mkv", uneven), ("varying.webm", vp9)):
        yield _clip(name, coding, numbered_frames(40), by_decord=True, **varying)
    yield _clip("varying.ts", uneven, numbered_frames(40), end="unknown", **varying)
    late = Coding(options={"crf": "4"}, ticks=range(50, 50 + FRAMES))
    for suffix in ("mp4", "mkv"):
        yield _clip(f"late.{suffix}", late)
    yield _clip("late.ts", late, end="unknown")
    yield _clip("early.mkv", replace(late, options=_GOP_5, ticks=range(-7, FRAMES - 7)))
    television: dict[str, Any] = {"seconds": [index / 30 for index in range(FRAMES)]}
    yield _clip("television.mkv", Coding(options={"crf": "4"}, rate=30), by_decord=True, **television)
    wrapping = range(2**33 * 25 // 90_000 - 10, 2**33 * 25 // 90_000 + FRAMES - 10)
    yield _clip("wrapping.ts", Coding(options={"crf": "4"}, ticks=wrapping), end="unknown")
    jump = r"The file's timestamps jump .+: the usual time between frames is taken there\."
    halves = [*range(10), *range(10)]
    yield MatrixClip(name="joined.ts", make=_make_joined, shows=halves, notes=(jump,), end="unknown")
    drops = r"The file drops 3 frames: those before them are shown longer\."
    gaps = [0, 1, 2, 4, 5, 8, *range(9, 23)]
    dropped: dict[str, Any] = {"seconds": [gap / 25 for gap in gaps], "notes": (_RATE_VARIES, drops)}
    for name, coding in (("dropped.avi", _MPEG4), ("dropped-b.avi", _MPEG4_B), ("dropped-mjpeg.avi", _MJPEG)):
        yield _clip(name, replace(coding, ticks=gaps), **dropped)
    for name, coding in (("gaps.mov", H264), ("gaps.flv", H264), ("gaps.wmv", _WMV2)):
        end: End = "stated" if name.endswith("mov") else "either"
        yield _clip(name, replace(coding, ticks=gaps), seconds=dropped["seconds"], notes=(_RATE_VARIES,), end=end)


def _make_joined(path: Path) -> None:
    """Two recordings in one file: the second one's times begin anew."""
    encode(path, numbered_frames(10), Coding(options={"crf": "4"}))
    path.write_bytes(2 * path.read_bytes())


def _cuts() -> Iterator[MatrixClip]:
    """Files that hold more than they show."""
    hides = r"The file's edit list leaves out {} of 20 frames\."
    cuts: dict[str, tuple[list[tuple[int, int]], Sequence[int]]] = {
        "trimmed-end.mp4": ([(7, 0)], range(7)),
        "trimmed-start.mp4": ([(8, 12)], range(12, 20)),
        "trimmed-both.mov": ([(6, 7)], range(7, 13)),
        "two-pieces.mp4": ([(4, 0), (5, 10)], [*range(4), *range(10, 15)]),
        "swapped-pieces.mp4": ([(4, 10), (5, 0)], [*range(10, 14), *range(5)]),
    }
    for name, (edits, shows) in cuts.items():
        yield MatrixClip(name=name, make=_edited_by(edits), shows=shows, notes=(hides.format(FRAMES - len(shows)),))
    yield MatrixClip(name="delayed.mp4", make=_edited_by([(10, -1), (FRAMES, 0)]))
    early = Coding(options=_GOP_5, ticks=range(-7, 13), muxer={"avoid_negative_ts": "disabled"})
    yield _clip("early.mp4", early, shows=range(7, 20), notes=(hides.format(7),))
    piece: dict[str, Any] = {"edits": [(9, 8)], "shows": range(8, 17), "notes": (hides.format(11),)}
    for name, coding in (
        *(("trimmed-hevc.mp4", _HEVC_OPEN), ("trimmed-mjpeg.mov", _MJPEG), ("trimmed-prores.mov", _PRORES)),
        *(("trimmed-mpeg4.mp4", replace(_MPEG4_B, options={"bf": "2", "g": "5", **_SHARP})), ("trimmed-vp9.mp4", _VP9)),
        ("trimmed-sound.mp4", replace(H264, options=_GOP_5, seconds_of_sound=2.0)),
    ):
        yield _trimmed(name, coding, **piece)


def _trimmed(name: str, coding: Coding, edits: Sequence[tuple[int, int]], **known: Any) -> MatrixClip:
    def make(path: Path) -> None:
        encode(path, numbered_frames(FRAMES), coding)
        surgery.edit_list(path, edits)

    return MatrixClip(name=name, make=make, **known)


def _beginnings() -> Iterator[MatrixClip]:
    """Recordings that start in the middle of a GOP."""
    gop = {"g": "5", **_SHARP}
    vpx = {"g": "5", "b": "2M"}
    av1 = {**_AV1.options, "g": "5"}
    hevc = {"x265-params": "open-gop=0:keyint=5:min-keyint=5:bframes=0:log-level=none:pools=1:crf=8"}
    coded: tuple[tuple[str, Coding, End, int], ...] = (
        *(("middle.ts", Coding(options=_GOP_5), "unknown", 0), ("middle.mkv", Coding(options=_GOP_5), "stated", 0)),
        *(("middle.flv", Coding(options=_GOP_5), "unknown", 0), ("middle.mp4", Coding(options=_GOP_5), "stated", 0)),
        *(("middle.264", Coding(options=_GOP_5), "unknown", 0), ("middle.avi", Coding(options=gop), "stated", 0)),
        ("middle-hevc.ts", Coding(codec="libx265", options=hevc), "unknown", 0),
        *(("middle-mpeg2.ts", replace(_MPEG2, options={"bf": "0", **gop}), "unknown", 0),),
        *(("middle-mpeg2.mpg", replace(_MPEG2, options={"bf": "0", **gop}), "either", 0),),
        *(("middle-mpeg4.ts", replace(_MPEG4, options=gop), "unknown", 3),),
        *(("middle.wmv", replace(_WMV2, options=gop), "either", 3),),
        *(("middle-vp8.mkv", replace(_VP8, options=vpx), "stated", 0),),
        *(("middle.webm", replace(_VP9, options=vpx), "stated", 0),),
        *(("middle-av1.mkv", replace(_AV1, options=av1), "stated", 0),),
    )
    for name, coding, end, spoilt in coded:
        begun = replace(coding, change=surgery.without_first(2))
        known: dict[str, Any] = {"shows": range(5, FRAMES), "notes": (_BEGINNING.format(3),)}
        yield _clip(name, begun, end=end, spoilt=spoilt, **known)


def _leading_pictures() -> Iterator[MatrixClip]:
    """Cuts at a key frame whose first pictures refer to what is gone."""
    leading: dict[str, Any] = {"shows": range(6, 20), "notes": (_BEGINNING.format(1),)}
    cut = surgery.from_key_frame(1)
    for codec, options in (("libx264", _X264_OPEN), ("libx265", _X265_OPEN)):
        for suffix, end in (("ts", "unknown"), ("mkv", "stated")):
            yield _clip(
                f"leading-{codec[3:]}.{suffix}", Coding(codec=codec, options=options, change=cut), end=end, **leading
            )
    mpeg2 = Coding(codec="mpeg2video", options={"g": "6", "bf": "2", **_SHARP}, change=cut)
    yield _clip("leading-mpeg2.ts", mpeg2, shows=range(6, 20), notes=(_BEGINNING.format(2),), end="unknown")


def _edited_by(edits: Sequence[tuple[int, int]]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        encode(path, numbered_frames(FRAMES), Coding(options={"crf": "4", **_GOP_5}))
        surgery.edit_list(path, edits)

    return make


def _packing() -> Iterator[MatrixClip]:
    """Packets that show nothing, files that were written as they came, sound."""
    frames = numbered_frames(FRAMES)
    repeating = np.concatenate([frames[:8], frames[7:14], frames[13:]])
    steady = {"auto-alt-ref": "0", "lag-in-frames": "0", "b": "2M"}

    def alt_refs(packets: list[Any]) -> list[Any]:
        return surgery.invisible(15)(surgery.invisible(8)(packets))

    for name in ("alt-ref.webm", "alt-ref.mkv"):
        yield _clip(name, Coding(codec="libvpx", options=steady, change=alt_refs), repeating)
    yield _clip("packed.avi", replace(_MPEG4, options={"bf": "1", "b_strategy": "0", **_SHARP}, change=surgery.packed))
    for suffix, coding in (("webm", replace(_VP8, container="webm")), ("mkv", replace(H264, container="matroska"))):
        yield MatrixClip(name=f"piped.{suffix}", make=_piped(coding), end="unknown")
        live = replace(coding, muxer={"live": "1"})
        yield MatrixClip(name=f"live.{suffix}", make=_piped(live), end="unknown")
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    yield _clip("fragmented.mp4", Coding(options=_GOP_5, muxer=fragments), end="either")
    for name, coding in (("sound.mp4", H264), ("sound.mkv", H264), ("sound.webm", _VP8)):
        yield _clip(name, replace(coding, seconds_of_sound=2.0), by_decord=True)


def _piped(coding: Coding) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with path.open("wb") as file:
            encode(ForwardOnly(file), numbered_frames(FRAMES), coding)

    return make


def _streams() -> Iterator[MatrixClip]:
    """Several videos in one file."""
    film = (H264, numbered_frames(FRAMES))
    cover = (Coding(codec="mjpeg", pixels="yuvj420p", colours={"color_range": 2}), patch_frames(1))
    thumbnail = (H264, patch_frames(1))
    may_say = r"The file holds 2 videos: stream 1 \(64x48\) is taken; choose another with --stream\."
    for name, first in (("cover.mkv", cover), ("cover.mp4", thumbnail), ("thumbnail.mov", cover)):
        yield MatrixClip(name=name, make=_with_streams([(*first, 0), (*film, 1)]), may_say=may_say)
    picture = Disposition.attached_pic.value
    yield MatrixClip(name="artwork.mp4", make=_with_streams([(*film, 1), (*cover, picture)]), may_say=may_say)
    angles = [(*film, 1), (H264, numbered_frames(FRAMES)[::-1], 0)]
    note = r"The file holds 2 videos: stream 0 \(64x48\) is taken; choose another with --stream\."
    for suffix in ("mp4", "mkv", "ts"):
        end: End = "unknown" if suffix == "ts" else "stated"
        yield MatrixClip(name=f"angles.{suffix}", make=_with_streams(angles), notes=(note,), end=end)


def _with_streams(videos: Sequence[tuple[Coding, Pictures, int]]) -> Callable[[Path], None]:
    """Writes videos side by side, each with its disposition."""

    def make(path: Path) -> None:
        with av.open(str(path), "w") as container:
            streams = [add_video(container, frames, coding) for coding, frames, _ in videos]
            for stream, (_, _, disposition) in zip(streams, videos, strict=True):
                stream.disposition = Disposition(disposition)
            for stream, (coding, frames, _) in zip(streams, videos, strict=True):
                container.mux(packets_of(stream, frames, coding))

    return make


def _formats() -> Iterator[MatrixClip]:
    """Depths, chroma, ranges, odd sizes, a single frame."""
    short: dict[str, Any] = {"frames": numbered_frames(8), "shows": range(8)}
    for pixels in ("yuv420p10le", "yuv422p", "yuv422p10le", "yuv444p", "yuv444p10le"):
        yield _clip(f"{pixels}.mp4", Coding(pixels=pixels, options={"crf": "4"}), **short)
    deep = {"x265-params": "log-level=none:pools=1:crf=4"}
    yield _clip("deep-hevc.mkv", Coding(codec="libx265", pixels="yuv420p10le", options=deep), **short)
    odd: dict[str, Any] = {"frames": numbered_frames(8, 47, 63), "shows": range(8), "size": (47, 63)}
    for name, coding in (
        ("odd.mp4", Coding(pixels="yuv444p", options={"crf": "4"})),
        *(("odd.webm", _VP9), ("odd.avi", _MPEG4), ("odd.mkv", Coding(codec="ffv1", pixels="yuv420p"))),
    ):
        yield _clip(name, coding, **odd)
    one: dict[str, Any] = {"frames": numbered_frames(1), "shows": range(1)}
    for name, coding in (("one.mp4", H264), ("one.mkv", H264), ("one.webm", _VP8), ("one.avi", _MJPEG)):
        yield _clip(name, coding, **one)
    yield _clip("one.ts", H264, end="unknown", **one)


def _interlaced() -> Iterator[MatrixClip]:
    note = (r"Deinterlaced \(bwdif\)\.",)
    fields = {"flags": "+ildct+ilme", "bf": "2", **_SHARP}
    known: dict[str, Any] = {"shows": range(12), "notes": note}
    for order, top_first in (("tff", True), ("bff", False)):
        frames = woven_frames(12, top_first=top_first)
        coding = Coding(options={"crf": "4", "x264-params": f"{order}=1"})
        yield _clip(f"interlaced-{order}.mp4", coding, frames, **known)
        yield _clip(f"interlaced-{order}.mkv", coding, frames, **known)
    frames = woven_frames(12, top_first=True)
    yield _clip("interlaced.ts", replace(_MPEG2, options=fields), frames, end="unknown", **known)
    yield _clip("interlaced.mpg", replace(_MPEG2, options=fields), frames, end="either", **known)
    prores = replace(_PRORES, options={"flags": "+ildct"})
    yield _clip("interlaced.mov", prores, frames, **known)
    hevc = {"x265-params": "interlace=tff:log-level=none:pools=1"}
    yield _clip("interlaced-hevc.mp4", Coding(codec="libx265", options=hevc), frames, **known)
    broadcast = {"x264-params": "tff=1", "crf": "4", **_GOP_5}
    cut = Coding(options=broadcast, change=surgery.without_first(2))
    left_out = (*note, _BEGINNING.format(3))
    frames = woven_frames(FRAMES, top_first=True)
    yield _clip("broadcast.ts", cut, frames, shows=range(5, FRAMES), notes=left_out, end="unknown")
    television = Coding(options={"x264-params": "tff=1", "crf": "4"}, aspect=Fraction(16, 15))
    shape = r"Pixels of shape 16:15 made square: shown at 68x48\."
    wide: dict[str, Any] = {"notes": (*note, shape), "size": (48, 68), "equals": "scaled"}
    yield _clip("television.ts", television, frames, end="unknown", **wide)


def _colours() -> Iterator[MatrixClip]:
    """Matrices, ranges, curves and gamuts, by patches of known colour."""
    known: dict[str, Any] = {"shows": range(4), "equals": "patches"}
    for standard, number in (("bt709", 1), ("bt601", 5)):
        for breadth, colour_range in (("limited", 1), ("full", 2)):
            tags = {"colorspace": number, "color_range": colour_range}
            coding = Coding(options={"crf": "1"}, colours=tags)
            yield _clip(f"{standard}-{breadth}.mp4", coding, patch_frames(4), by_decord=True, **known)
    hevc = {"x265-params": "log-level=none:pools=1:crf=1"}
    wide = {"colorspace": 9, "color_primaries": 9, "color_range": 1}
    for name, curve, number, note in (
        ("hlg", hlg, 18, r"HDR \(HLG, BT\.2020\) shown as SDR: .+"),
        ("pq", pq, 16, r"HDR \(PQ, BT\.2020\) shown as SDR: .+"),
        ("wide", srgb, 14, r"Colours of BT\.2020 shown in BT\.709: .+"),
    ):
        for suffix, codec, options in (("mp4", "libx264", {"crf": "1"}), ("mkv", "libx265", hevc)):
            colours = {**wide, "color_trc": number}
            coding = Coding(codec=codec, pixels="yuv420p10le", options=options, colours=colours)
            yield _clip(f"{name}-2020.{suffix}", coding, wide_planes(4, curve), notes=(note,), **known)


_KINDS = (
    *(_plain, _lossless, _orientations, _pixel_shapes, _times, _cuts, _beginnings, _leading_pictures),
    *(_packing, _streams, _formats, _interlaced, _colours),
)
CLIPS = {clip.name: clip for kind in _KINDS for clip in kind()}


def build_all(folder: Path) -> None:
    """Write every clip into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for clip in CLIPS.values():
        clip.make(folder / clip.name)
        say(f"{clip.name}: {len(clip.shows)} frames")


if __name__ == "__main__":
    build_all(Path(sys.argv[1]))
