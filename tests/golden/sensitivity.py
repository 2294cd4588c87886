"""How much each golden case changes where float32 numbers are rounded otherwise: what its tolerance is made from.

`python -m tests.golden.sensitivity` measures every case and writes `sensitivity.json`; named cases are only printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.golden.recordings import CASE_NAMES, FOLDER, Recording, read_recording
from tests.golden.reference import Computed, Nudge, Reference, Roundings, load_networks

TABLE = FOLDER / "sensitivity.json"
SEEDS = (0, 1)
ROUNDING = 2.0**-24  # the most that rounding to float32 changes a number, as a share of it
FLOOR = 1e-5  # tolerance of what rounding hardly moves
FACTOR = 2.0  # tolerance over sensitivity: another machine's roundings are not the ones that were drawn


@dataclass(frozen=True)
class Differences:
    """The largest differences from a run: of the inversion, after the first edit step, of edited latents, of frames."""

    inversion: float
    first: float
    edited: float
    decoded: float

    @classmethod
    def between(cls, one: Computed, other: Computed, steps: Sequence[int]) -> Differences:
        """Of two runs, where the recording has latents."""
        edited = [_largest(one.edited[step], other.edited[step]) for step in steps]
        return cls(_largest(one.inverted, other.inverted), edited[0], max(edited), _largest(one.decoded, other.decoded))


def _largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def sensitivities(name: str) -> dict[str, dict[str, float]]:
    """Of a case, as `sensitivity.json` has them: by where the rounding is, the fields of `Differences`."""
    measured: dict[str, dict[str, float]] = json.loads(TABLE.read_text())[name]
    return measured


def tolerances(name: str) -> Differences:
    """What a case is held to: `FLOOR`, or `FACTOR` times the sum of its sensitivities; the inversion always `FLOOR`."""
    measured = sensitivities(name)
    total = {key: sum(source[key] for source in measured.values()) for key in measured["start"]}
    return Differences(**{key: max(FLOOR, FACTOR * value) for key, value in (total | {"inversion": 0.0}).items()})


def measure(networks: Any, recording: Recording) -> dict[str, dict[str, float]]:
    """By where the rounding is, the largest differences over all seeds."""

    def run(roundings: Roundings) -> Computed:
        config, biases = recording.config, recording.biases
        reference = Reference(networks, config, biases, bugs=True, roundings=roundings)
        return reference.run(recording.tensor("z0"))

    exact, found = run(Roundings()), {}
    for where in ("start", "embedding", "tables"):
        drawn = [run(Roundings(**{where: rounding(seed)})) for seed in SEEDS]
        changes = [vars(Differences.between(exact, other, recording.edit_steps)) for other in drawn]
        found[where] = {key: max(change[key] for change in changes) for key in changes[0]}
    return found


def rounding(seed: int) -> Nudge:
    """Every number a rounding up or down, as the seed draws: equal tensors alike, as a table's entry is at each use."""
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[bytes, Tensor] = {}

    def nudge(x: Tensor) -> Tensor:
        key = x.numpy().tobytes()
        if key not in drawn:
            drawn[key] = torch.randint(0, 2, x.shape, generator=generator) * 2 - 1
        return x.double() * (1 + ROUNDING * drawn[key])

    return nudge


def main(names: list[str]) -> None:
    """Measure cases, all by default."""
    torch.set_num_threads(1)
    networks, table = load_networks(FOLDER / "model"), {}
    for name in names or CASE_NAMES:
        table[name] = measure(networks, read_recording(name))
        print(name, json.dumps(table[name]), flush=True)
    if not names:
        TABLE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
