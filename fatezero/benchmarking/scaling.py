"""`fatezero bench --scale`: what processes, resuming and kept inversions save, and how near the forecast comes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from fatezero.benchmarking.bench_options import BenchOptions
from fatezero.config import ModelOptions
from fatezero.data.layout import result_records
from fatezero.data.manifest import read_manifest
from fatezero.diffusion.checkpoint import find_checkpoint, native_size, sized
from fatezero.diffusion.recommendations import recommended_method
from fatezero.errors import UserError
from fatezero.picturebook.benchmark.edits import draw_clip, write_manifest
from fatezero.pipeline import FateZero
from fatezero.runs.forecast import Forecaster, RunForecast, forecast_run
from fatezero.runs.jobs import make_jobs
from fatezero.runs.scheduling import share_inversions
from fatezero.system.terminal import say

CLIPS = 8  # of two edits each: enough that the processes' start is small beside the work
CACHED = 2  # clips that the cache is tried on


@dataclass(frozen=True)
class Timed:
    """What one command took.

    Attributes:
        wall: seconds from start to end.
        busy: seconds from the first clip's inversion to the last result: all but starting and ending.
        work: seconds of inversions and edits, over all processes.
    """

    wall: float
    busy: float
    work: float


def bench_scaling(options: BenchOptions) -> int:
    """Measure and print; returns 0."""
    with TemporaryDirectory(prefix="fatezero-bench-") as folder:
        place = Path(folder)
        _print_processes(place, _manifest(place / "many", CLIPS, options), options)
        _print_cache(place, _manifest(place / "few", CACHED, options), options)
    return 0


def _manifest(folder: Path, clips: int, options: BenchOptions) -> Path:
    return write_manifest(
        folder / "manifest.yaml", "bench", [draw_clip(number, options.frames) for number in range(clips)]
    )


def _print_processes(place: Path, manifest: Path, options: BenchOptions) -> None:
    forecast = _forecast(manifest, place / "one", options)
    one = _edit(manifest, place / "one", options)
    two = _edit(manifest, place / "two", options, "--devices=2")
    again = _edit(manifest, place / "one", options)
    say(f"{2 * CLIPS} edits of {CLIPS} clips, {options.frames} frames, {options.steps} steps, 1 thread a process")
    say(f"  1 process   {one.wall:6.1f} s, of which {one.busy:.1f} s at work")
    say(f"  2 processes {two.wall:6.1f} s, of which {two.busy:.1f} s at work")
    say(f"  {one.busy / two.busy:.2f} times the throughput at work, {one.wall / two.wall:.2f} with starting and ending")
    say(f"  nothing to do {again.wall:4.1f} s, {again.wall / one.wall:.3f} of the run: the price of resuming")
    share = forecast.seconds / one.work
    say(f"  predicted {forecast.seconds:.0f} s of work, measured {one.work:.1f} s: {share:.2f}")
    kept = max(sum(meta["kept_bytes"].values()) for meta in _metas(place / "one"))
    say(f"  predicted {forecast.kept_bytes / 1e6:.1f} MB kept at once, measured {kept / 1e6:.1f} MB")


def _forecast(manifest: Path, run: Path, options: BenchOptions) -> RunForecast:
    """What `_edit` with one process will take."""
    torch.set_num_threads(1)
    checkpoint = find_checkpoint(ModelOptions())
    native, unit = native_size(checkpoint.folder)
    requests = [
        replace(request, clip=sized(request.clip, native, unit)) for request in read_manifest(manifest).requests
    ]
    method = replace(recommended_method(checkpoint.folder), steps=options.steps)
    jobs = make_jobs(requests, {"default": method}, run, lambda _: checkpoint)
    return forecast_run(Forecaster(lambda found: FateZero.load(found.networks)), share_inversions(jobs), workers=1)


def _print_cache(place: Path, manifest: Path, options: BenchOptions) -> None:
    without = _edit(manifest, place / "without", options, "--backend=recompute")
    filling = _edit(manifest, place / "filling", options, f"--cache={place / 'cache'}")
    found = _edit(manifest, place / "found", options, f"--cache={place / 'cache'}")
    say(f"Inversions kept in a cache, the source run again beside the edit, {2 * CACHED} edits of {CACHED} clips:")
    say(f"  no cache {without.work:.1f} s, filling it {filling.work:.1f} s, all found {found.work:.1f} s of work")


def _edit(manifest: Path, out: Path, options: BenchOptions, *more: str) -> Timed:
    """One `fatezero edit` in its own process.

    Raises:
        UserError: if it fails.
    """
    chosen = {"manifest": manifest, "out": out, "steps": options.steps, "threads": 1}
    words = [sys.executable, "-m", "fatezero", "edit", *(f"--{key}={value}" for key, value in chosen.items()), *more]
    started = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    wall = time.perf_counter() - started
    if done.returncode:
        raise UserError(f"{' '.join(words)} failed: {done.stderr.strip().splitlines()[-1]}")
    return Timed(wall, _busy(out), _work(out))


def _busy(run: Path) -> float:
    """Seconds from the first inversion to the last result, by the times at which results appeared."""
    ends = {path: path.stat().st_mtime for path in result_records(run)}
    starts = [end - sum(json.loads(path.read_text())["timings"].values()) for path, end in ends.items()]
    return max(ends.values()) - min(starts) if ends else 0.0


def _work(run: Path) -> float:
    """Seconds of a run's stages; an inversion that edits share counts once."""
    seconds, seen = 0.0, set()
    for meta in _metas(run):
        shared = (meta["request"]["clip"]["path"], meta["timings"]["inversion"])
        inversion = 0.0 if shared in seen else meta["timings"]["encode"] + meta["timings"]["inversion"]
        seen.add(shared)
        seconds += inversion + meta["timings"]["editing"] + meta["timings"]["decode"]
    return seconds


def _metas(run: Path) -> list[dict[str, Any]]:
    return [json.loads(meta.read_text()) for meta in result_records(run)]
