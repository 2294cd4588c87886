"""How fast is the default suite, where does the time go, and does memory stay flat on long clips?

`python -m fatezero_eval.scoring.throughput --judge FOLDER --frames 16 128 1024`
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt

from fatezero.system.terminal import say
from fatezero.types import Frames
from fatezero_eval.networks.array_cache import Arrays
from fatezero_eval.networks.clip import ImageTextEncoder
from fatezero_eval.options import ScoringOptions
from fatezero_eval.scoring.footage import Video
from fatezero_eval.scoring.windows import ClipVersions


@dataclass(frozen=True)
class Workload:
    """What is measured: one clip of this many frames of this size, with this judge."""

    frames: int
    size: int
    judge: str


@dataclass(frozen=True)
class Measurement:
    """What one clip costs.

    Attributes:
        frames: length of the clip.
        seconds: wall-clock time; says little on a busy machine.
        cpu: processor seconds of all threads.
        encoding: the part of `cpu` spent in the judge.
        peak: largest resident memory of the process, bytes.
    """

    frames: int
    seconds: float
    cpu: float
    encoding: float
    peak: int


class _Timed:
    """An encoder that counts its own time."""

    def __init__(self, encoder: ImageTextEncoder) -> None:
        self.id, self.logit_scale = encoder.id, encoder.logit_scale
        self._encoder = encoder
        self.seconds = 0.0

    def images(self, frames: Frames) -> Arrays:
        start = time.process_time()
        arrays = self._encoder.images(frames)
        self.seconds += time.process_time() - start
        return arrays

    def texts(self, prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        start = time.process_time()
        vectors = self._encoder.texts(prompts)
        self.seconds += time.process_time() - start
        return vectors


def moving(frames: int, size: int, shade: int) -> Video:
    """A drifting texture that is never held as a whole."""
    canvas = np.kron(np.random.default_rng(0).integers(0, 200, (16, 16, 3)), np.ones((size // 8, size // 8, 1)))

    def read(count: int) -> Iterator[Frames]:
        for start in range(0, frames, count):
            steps = (t % size for t in range(start, min(start + count, frames)))
            yield np.stack([canvas[t : t + size, t : t + size] + shade for t in steps]).astype(np.uint8)

    return read


def measure(workload: Workload) -> Measurement:
    """Score one synthetic clip with the default suite."""
    from dataclasses import replace  # noqa: PLC0415

    from fatezero_eval.networks.clip import NamedClip  # noqa: PLC0415
    from fatezero_eval.networks.loading import load_networks  # noqa: PLC0415
    from fatezero_eval.scoring.checks import roles_of, selected  # noqa: PLC0415
    from fatezero_eval.scoring.one_pass import score  # noqa: PLC0415

    scoring = ScoringOptions(judge=workload.judge)
    metrics = selected(scoring)
    networks = load_networks(scoring, roles_of(metrics))
    assert isinstance(networks.clip, NamedClip)
    timed = _Timed(networks.clip.loaded)
    clip = ClipVersions(
        edited=moving(workload.frames, workload.size, 20),
        source=moving(workload.frames, workload.size, 0),
        mask=moving(workload.frames, workload.size, 40),
        true_edit=moving(workload.frames, workload.size, 10),
        source_prompt="a fox in the snow",
        target_prompt="a red fox in the snow",
    )
    start, cpu = time.perf_counter(), time.process_time()
    score(clip, metrics, replace(networks, clip=timed))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Measurement(workload.frames, seconds, cpu, timed.seconds, peak)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each length in a process of its own and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 128, 1024], help="lengths of the clips")
    parser.add_argument("--size", type=int, default=128, help="side of the frames, a multiple of 8")
    parser.add_argument("--judge", required=True, help="the judge, as for fatezero evaluate")
    options = parser.parse_args(arguments)
    workloads = [Workload(frames, options.size, options.judge) for frames in options.frames]
    say("| frames | clips a minute | CPU seconds a frame | of which in the judge | peak memory |")
    say("|---:|---:|---:|---:|---:|")
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for found in pool.imap(measure, workloads, chunksize=1):
            rates = f"{60 / found.seconds:.2f} | {found.cpu / found.frames:.3f}"
            share = f"{found.encoding / found.cpu:.0%}"
            say(f"| {found.frames} | {rates} | {share} | {found.peak / 2**20:.0f} MiB |")


if __name__ == "__main__":
    main()
