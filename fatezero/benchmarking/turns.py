"""Kinds of work measured in turn, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from fatezero.benchmarking.peak import clear_peak, peak_bytes

GB = 1e9


@dataclass(frozen=True)
class RunCost:
    """What one run took.

    Attributes:
        seconds: of the clock; on the CPU of processor time, so that other work on the machine does not count.
        peak: most bytes that were allocated on CUDA; None elsewhere, where a process's peak is not one run's.
    """

    seconds: float
    peak: int | None = None


RunCosts = Mapping[str, Sequence[RunCost]]  # by kind of work, one cost for each turn


def cost_of(work: Callable[[], object], device: torch.device) -> RunCost:
    """Run some work and measure it."""
    if device.type == "cuda":
        clear_peak(device)
    started = _now(device)
    work()
    seconds = _now(device) - started
    return RunCost(seconds, peak_bytes(device) if device.type == "cuda" else None)


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def measure_in_turn(works: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> RunCosts:
    """Measure each kind of work so many times, every second turn in reverse order.

    Every kind has run once before, unmeasured, by whoever calls this.
    """
    costs: dict[str, list[RunCost]] = {name: [] for name in works}
    for turn in range(repeats):
        for name in list(works) if turn % 2 == 0 else reversed(list(works)):
            costs[name].append(cost_of(works[name], device))
    return costs


def ratios(costs: RunCosts, name: str, baseline: str) -> list[float]:
    """Seconds of a kind of work over those of another in the same turn."""
    return [a.seconds / b.seconds for a, b in zip(costs[name], costs[baseline], strict=True)]


def spread(values: Sequence[float]) -> str:
    """Median, least and most, as "1.05 (1.03 to 1.10)"; a single value alone."""
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} to {max(values):.2f})"


def cost_table(costs: RunCosts, baselines: Sequence[str]) -> list[str]:
    """Lines of a table: of each kind of work its median seconds, ratios to the baselines, and peak on CUDA.

    A ratio is the median of the turns' own ratios, not the ratio of the median seconds that stand beside it.
    """
    peaks = any(cost.peak is not None for measured in costs.values() for cost in measured)
    columns = [f"over {baseline}" for baseline in baselines]
    heading = f"  {'':24s} {'seconds':>8s}" + "".join(f"   {column:22s}" for column in columns)
    lines = [(heading + ("   peak" if peaks else "")).rstrip()]
    for name, measured in costs.items():
        cells = ["" if name == base else spread(ratios(costs, name, base)) for base in baselines]
        line = f"  {name:24s} {statistics.median(cost.seconds for cost in measured):8.2f}"
        line += "".join(f"   {cell:22s}" for cell in cells)
        if peaks:
            line += f"   {max(cost.peak or 0 for cost in measured) / GB:.2f} GB"
        lines.append(line.rstrip())
    return lines
