"""`fatezero bench --clip`: what reading a clip costs beyond the bare decoder."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import av

from fatezero.benchmarking.bench_options import BenchOptions
from fatezero.clips.index import forget_indices
from fatezero.clips.video import probe, read_clip
from fatezero.data.remote import open_input
from fatezero.errors import UserError
from fatezero.system.terminal import say
from fatezero.types import Clip, ClipSpec


def bench_reading(options: BenchOptions) -> int:
    """Measure and print; returns 0.

    Raises:
        UserError: the clip cannot be read, or is no video.
    """
    spec = ClipSpec(path=str(options.clip))
    info = probe(spec)
    runs: dict[str, Callable[[], object]] = {
        "the bare decoder (PyAV, one thread)": lambda: _decode(spec.path),
        "read, its frames counted first": lambda: _read_anew(spec),
        "read again": lambda: read_clip(spec),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            times[name].append(_seconds(run))
    say(f"{info.frames} frames of {info.width}x{info.height}, {info.kind}. {info.notes[0]}")
    bare, *_ = medians = [statistics.median(seconds) for seconds in times.values()]
    for name, seconds in zip(times, medians, strict=True):
        say(f"  {name:36} {seconds * 1000:8.1f} ms, {seconds / bare:.2f}")
    return 0


def _read_anew(spec: ClipSpec) -> Clip:
    forget_indices()
    return read_clip(spec)


def _decode(path: str) -> int:
    """What a short script would do."""
    try:
        with av.open(str(open_input(path).absolute())) as container:
            stream = container.streams.best("video")
            stream.codec_context.thread_count = 1
            return len([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    except (av.FFmpegError, AttributeError) as error:
        raise UserError(f"{path} is no video that PyAV decodes by itself ({error}); name another clip.") from error


def _seconds(run: Callable[[], object]) -> float:
    """Of this process at work: others may keep it waiting."""
    before = time.process_time()
    run()
    return time.process_time() - before
