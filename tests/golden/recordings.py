"""The golden cases as they were recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import Tensor

FOLDER = Path(__file__).parent
CASES = FOLDER / "cases"
CASE_NAMES = sorted(path.stem for path in CASES.glob("*.yaml"))


@dataclass(frozen=True)
class Recording:
    """One run of the original.

    Attributes:
        name: of the case.
        config: as FateZero's YAML states it.
        arrays: what came out, by the names in README.md.
    """

    name: str
    config: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]

    @property
    def edit_steps(self) -> list[int]:
        """Steps after which the edited latents were kept."""
        steps: list[int] = self.arrays["edit_steps"].tolist()
        return steps

    @property
    def biases(self) -> dict[str, npt.NDArray[Any]]:
        """Of temporal attention, by the names of the UNet's weights."""
        return {key.removeprefix("bias/"): value for key, value in self.arrays.items() if key.startswith("bias/")}

    def tensor(self, key: str) -> Tensor:
        """An array in float64."""
        return torch.from_numpy(self.arrays[key]).double()

    def decoded_part(self, frames: Tensor) -> Tensor:
        """Of decoded frames F,3,H,W, the part that was kept: rows,columns,3."""
        y0, y1, x0, x1 = self.arrays["decoded_crop"]
        return frames[int(self.arrays["decoded_index"]), :, y0:y1, x0:x1].permute(1, 2, 0)

    def masks(self, prefix: str) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
        """Edit step and recorded masks of a kind."""
        for key, packed in self.arrays.items():
            if key.startswith(prefix):
                shape = self.arrays[f"shape_{key}"]
                bits = np.unpackbits(packed, count=int(shape.prod()))
                yield int(key.split("step")[1][:2]), bits.reshape(shape).astype(bool)


def read_recording(name: str) -> Recording:
    """A case by name."""
    with np.load(CASES / f"{name}.npz") as arrays:
        return Recording(name, yaml.safe_load((CASES / f"{name}.yaml").read_text()), dict(arrays))
