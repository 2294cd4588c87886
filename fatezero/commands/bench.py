"""`fatezero bench`: time and memory against the bare network or decoder, or what processes and caches save."""

from __future__ import annotations

from fatezero.benchmarking.bench_options import BenchOptions


def bench(options: BenchOptions) -> int:
    """Measure and print.

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

    return bench_overhead(options)
