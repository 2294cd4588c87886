"""Does the judge judge? How each metric orders a true edit and four known ways of being wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
import numpy.typing as npt

from fatezero.types import Frames
from fatezero_eval.networks.flow import GivenFlow
from fatezero_eval.networks.loading import Networks
from fatezero_eval.scoring.metric import Metric
from fatezero_eval.scoring.one_pass import score
from fatezero_eval.scoring.suite import by_id
from fatezero_eval.scoring.windows import ClipVersions, in_memory

TIE = 1e-9  # what the order of a sum may change is no difference
FLICKER = 0.05  # standard deviation of the brightness of a flickering clip's frames, of the full range


@dataclass(frozen=True, kw_only=True)
class Case:
    """One clip with its known right edit.

    Attributes:
        source: uint8 F,H,W,3.
        true_edit: the right result, same shape.
        wrong_edit: the right result of another target prompt, same shape.
        source_prompt: describes the source.
        target_prompt: describes the true edit.
        mask: where the edit belongs, bool F,H,W; None if everywhere.
        true_flow: the clip's known motion.
    """

    source: Frames
    true_edit: Frames
    wrong_edit: Frames
    source_prompt: str
    target_prompt: str
    mask: npt.NDArray[np.bool_] | None = None
    true_flow: GivenFlow | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How one metric sees one version of the clips.

    Attributes:
        metric: id with version.
        version: true edit, source, shuffled, flickering or wrong edit.
        mean: over the cases on which it is defined; None if there are none.
        beaten: share of those cases on which the true edit is strictly better.
        cases: how many they are.
    """

    metric: str
    version: str
    mean: float | None
    beaten: float | None
    cases: int


def versions(case: Case, seed: int) -> dict[str, Frames]:
    """The true edit, the source, the true edit shuffled and flickering, and the wrong edit, by name."""
    rng = np.random.default_rng(seed)
    count = len(case.true_edit)
    order = rng.permutation(count)
    brightness = rng.normal(0, 255 * FLICKER, size=(count, 1, 1, 1))
    return {
        "true edit": case.true_edit,
        "source": case.source,
        "shuffled": case.true_edit[order],
        "flickering": np.clip(np.rint(case.true_edit + brightness), 0, 255).astype(np.uint8),
        "wrong edit": case.wrong_edit,
    }


def validate(cases: Iterable[Case], metrics: Sequence[Metric], networks: Networks) -> list[Verdict]:
    """Score every version of every case; one verdict for each metric and version."""
    values: dict[tuple[str, str], list[float | None]] = defaultdict(list)
    for number, case in enumerate(cases):
        for version, frames in versions(case, number).items():
            for s in score(edited_clip(case, frames), metrics, networks):
                values[s.metric, version].append(s.value)
    return [
        _verdict(metric, version, found, values[metric, "true edit"]) for (metric, version), found in values.items()
    ]


def table(verdicts: Sequence[Verdict]) -> str:
    """Verdicts as a Markdown table: the mean, and how often the true edit is better."""
    names = list(dict.fromkeys(v.version for v in verdicts))
    lines = [f"| metric | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    cells: dict[str, list[str]] = defaultdict(list)
    for verdict in verdicts:
        cells[verdict.metric].append(_cell(verdict))
    return "\n".join(lines + [f"| {m} {by_id(m).arrow} | {' | '.join(row)} |" for m, row in cells.items()])


def edited_clip(case: Case, frames: Frames) -> ClipVersions:
    """The case with these frames as its edit."""
    mask = None
    if case.mask is not None:
        mask = in_memory(np.repeat(case.mask[..., None].astype(np.uint8) * 255, 3, axis=-1))
    return ClipVersions(
        edited=in_memory(frames),
        source=in_memory(case.source),
        source_prompt=case.source_prompt,
        target_prompt=case.target_prompt,
        mask=mask,
        true_edit=in_memory(case.true_edit),
        true_flow=case.true_flow,
    )


def _verdict(metric: str, version: str, found: Sequence[float | None], true: Sequence[float | None]) -> Verdict:
    sign = by_id(metric).direction
    pairs = [(value, best) for value, best in zip(found, true, strict=True) if value is not None and best is not None]
    if not pairs:
        return Verdict(metric=metric, version=version, mean=None, beaten=None, cases=0)
    mean = fsum(value for value, _ in pairs) / len(pairs)
    beaten = sum(sign * (best - value) > TIE for value, best in pairs) / len(pairs)
    return Verdict(metric=metric, version=version, mean=mean, beaten=beaten, cases=len(pairs))


def _cell(verdict: Verdict) -> str:
    if verdict.mean is None or verdict.beaten is None:
        return "-"
    shown = f"{verdict.mean * by_id(verdict.metric).display:.4g}"
    return shown if verdict.version == "true edit" else f"{shown} ({verdict.beaten:.0%})"
