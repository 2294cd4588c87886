"""Which steps a window names."""

from __future__ import annotations

from fatezero.config import StepWindow


def active_steps(window: StepWindow | None, count: int) -> range:
    """Steps of 0..count-1 inside a window of fractions: floor(start * count) <= step < floor(end * count)."""
    return range(int(window[0] * count), int(window[1] * count)) if window is not None else range(0)


def cross_steps(window: StepWindow | None, count: int) -> range:
    """Those of an edit's steps whose cross-attention a window opens: Prompt-to-Prompt counts in count + 1 parts."""
    active = active_steps(window, count + 1)
    return range(active.start, min(active.stop, count))
