"""`fatezero bench`: time and memory against the bare network or decoder, or what processes and caches save."""

from __future__ import annotations

from fatezero.benchmarking.bench_options import BenchOptions
from fatezero.config import RuntimeConfig


def bench(options: BenchOptions, runtime: RuntimeConfig) -> int:
    """Measure and print. Of the method's backends, all are measured unless one is named.

    Returns:
        0.
    """
    if options.clip is not None:
        from fatezero.benchmarking.reading import bench_reading

        return bench_reading(options)
    if options.scale:
        from fatezero.benchmarking.scaling import bench_scaling

        return bench_scaling(options)
    from fatezero.benchmarking.overhead import bench_overhead

    return bench_overhead(options, runtime)
