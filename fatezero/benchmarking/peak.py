"""The most memory that some work took: with the high-water mark cleared before it, or not at all."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

import torch

STATUS, MARK = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # proc(5), Linux
CLEAR_MARK = "5"


def clear_peak(device: torch.device) -> int | None:
    """Start to measure a peak.

    Returns:
        Bytes that are held now, by CUDA's allocator or this process; None where no peak can be measured: on the CPU of
        other systems than Linux, and where the system does not let the mark be cleared.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    if device.type != "cpu":
        return None
    _give_back_freed()
    try:
        MARK.write_text(CLEAR_MARK, encoding="utf-8")
    except OSError:
        return None
    return _resident("VmRSS")


def peak_bytes(device: torch.device) -> int:
    """The most bytes held since `clear_peak`, which must have measured something."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _resident("VmHWM")


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _give_back_freed() -> None:
    """Give freed memory back to the system, or work that fills it again would seem to take none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)
