"""Small clips written with PyAV alone, whose frames tell their own index by their brightness."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fatezero.types import Frames


def brightness(index: int) -> int:
    """What frame `index` of a numbered clip is filled with."""
    return 20 + 9 * index


@pytest.fixture
def numbered() -> Callable[..., Frames]:
    """Builds frames that are flat grey but for a red and a blue stripe, so that colour errors show."""

    def build(count: int = 20, height: int = 48, width: int = 64) -> Frames:
        frames = np.zeros((count, height, width, 3), np.uint8)
        for index in range(count):
            frames[index] = brightness(index)
        frames[:, : height // 4, : width // 2] = (200, 30, 40)
        frames[:, : height // 4, width // 2 :] = (20, 60, 210)
        return frames

    return build


@pytest.fixture
def encode(tmp_path: Path) -> Callable[..., Path]:
    """Encodes frames as they are asked for: encode(name, frames, codec=…, pixels=…, times_ms=…, …)."""

    def write(
        name: str,
        frames: Frames,
        codec: str = "libx264",
        pixels: str = "yuv420p",
        fps: int = 25,
        times_ms: Sequence[int] | None = None,
        colours: str | None = None,
        full: bool = False,
        **options: str,
    ) -> Path:
        path = tmp_path / name
        muxer = {"movflags": options.pop("movflags")} if "movflags" in options else {}
        with same_priority(), av.open(str(path), "w", options=muxer) as container:
            stream = container.add_stream(codec, rate=1000 if times_ms else fps, options={"crf": "4", **options})
            stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixels
            context = stream.codec_context
            context.thread_count = 1
            if times_ms:
                context.time_base = Fraction(1, 1000)
            if colours:
                context.colorspace = colours
            if full:
                context.color_range = 2
            for index, frame in enumerate(frames):
                channels = "rgb24" if frame.shape[-1] == 3 else "rgba"
                picture = av.VideoFrame.from_ndarray(frame, format=channels).reformat(
                    format=pixels, dst_colorspace=colours, dst_color_range=2 if full else None
                )
                picture.pts = times_ms[index] if times_ms else index
                picture.time_base = Fraction(1, 1000) if times_ms else Fraction(1, fps)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        return path

    return write


@contextmanager
def same_priority() -> Iterator[None]:
    """SVT-AV1 makes root's process a real-time one, which starves all others for as long as it runs: take that back."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may do anything: for a moment, be nobody."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def unprivileged() -> Callable[[], AbstractContextManager[None]]:
    return without_privileges


@pytest.fixture
def anybody() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def indices_of() -> Callable[[Frames], list[int]]:
    """Reads the index back from the brightness of the lower half."""

    def read(frames: Frames) -> list[int]:
        values = frames[:, frames.shape[1] // 2 :].reshape(len(frames), -1).mean(axis=1)
        return [round((value - brightness(0)) / 9) for value in values]

    return read
