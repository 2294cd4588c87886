"""Fixtures that several folders share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fatezero.config import RuntimeConfig
from fatezero.diffusion.backbone import Backbone

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _quiet_machine() -> None:
    """Two threads on a busy two-core machine are slower than one, and sums in one order are easier to compare."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """The tiny random Stable Diffusion checkpoint of the golden data, and its cases."""
    return GOLDEN


@pytest.fixture(scope="session")
def backbone64() -> Backbone:
    return Backbone.load(str(GOLDEN / "model"), RuntimeConfig(device="cpu", dtype="float64"))


@pytest.fixture(scope="session")
def backbone32() -> Backbone:
    return Backbone.load(str(GOLDEN / "model"), RuntimeConfig(device="cpu", dtype="float32"))
