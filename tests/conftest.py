"""Fixtures that several folders share."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fatezero.config import RuntimeConfig
from fatezero.diffusion.model_families.unet import UNetBackbone

M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1  # of glibc's malloc.h
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _quiet_machine() -> None:
    """Two threads on a busy two-core machine are slower than one, and sums in one order are easier to compare."""
    torch.set_num_threads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's alone
    if mallopt is not None:
        # Memory that was used is kept: clearing new pages for each attention map takes longer than making the map.
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@pytest.fixture(scope="session", autouse=True)
def _heeds_interrupts() -> None:
    """A suite that a shell starts in the background ignores Ctrl-C, and so would every process that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _memory_back(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a slow test has used goes back to the system, which two processes share."""
    yield
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None and request.node.get_closest_marker("slow"):
        trim(0)


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """The tiny random Stable Diffusion checkpoint of the golden data, and its cases."""
    return GOLDEN


@pytest.fixture(scope="session")
def backbone64() -> UNetBackbone:
    return UNetBackbone.load(str(GOLDEN / "model"), RuntimeConfig(device="cpu", dtype="float64"))


@pytest.fixture(scope="session")
def backbone32() -> UNetBackbone:
    return UNetBackbone.load(str(GOLDEN / "model"), RuntimeConfig(device="cpu", dtype="float32"))
