"""Scores of single frames and pairs, by the suite's own formulas: a clip's score is the mean of its curve."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fatezero.data.video import iter_frames, read_clip
from fatezero.types import ClipSpec, Frames
from fatezero_eval.evaluate import Item

if TYPE_CHECKING:
    from fatezero_eval.clips import EditedClip, Video
    from fatezero_eval.flow import GivenFlow

# What needs no network; `warp_error` only where the motion is known and need not be estimated.
METRICS = ("psnr/truth", "psnr/outside", "temporal_flickering", "warp_error")

Curve = list[float | None]


class Judge:
    """Draws the curves of one edit's variants; what they share is read once."""

    def __init__(self) -> None:
        self._frames: dict[ClipSpec, Frames] = {}
        self._flows: dict[Path, GivenFlow] = {}

    def curves(self, item: Item) -> dict[str, Curve]:
        """One value for each frame, or each pair of neighbours, by metric id; None where undefined.

        Raises:
            UserError: a version of the clip cannot be read, or they differ in size or length.
        """
        from fatezero_eval.clips import Models, chunks  # noqa: PLC0415
        from fatezero_eval.flow import Dis  # noqa: PLC0415
        from fatezero_eval.suite import choose  # noqa: PLC0415

        clip = self._open(item)
        versions = clip.versions()
        metrics = [
            metric
            for metric in choose(METRICS)
            if all(need in versions for need in metric.needs) and (metric.model is None or clip.true_flow is not None)
        ]
        values: dict[str, Curve] = {metric.id: [] for metric in metrics}
        for chunk in chunks(clip, Models(flow=Dis())):
            for metric in metrics:
                assert metric.of_chunk is not None
                values[metric.id] += [_short(value) for value in metric.of_chunk(chunk).tolist()]
        return {name: curve for name, curve in values.items() if any(value is not None for value in curve)}

    def _open(self, item: Item) -> EditedClip:
        from fatezero_eval.clips import EditedClip  # noqa: PLC0415

        return EditedClip(
            edited=partial(iter_frames, item.edited),
            source=self._video(item.request.clip),
            source_prompt=item.request.source_prompt,
            target_prompt=item.request.target_prompt,
            mask=self._video(item.mask) if item.mask else None,
            true_edit=self._video(item.true_edit) if item.true_edit else None,
            true_flow=self._flow(item.true_flow) if item.true_flow else None,
        )

    def _video(self, spec: ClipSpec) -> Video:
        from fatezero_eval.clips import in_memory  # noqa: PLC0415

        if spec not in self._frames:
            self._frames[spec] = read_clip(spec).frames
        return in_memory(self._frames[spec])

    def _flow(self, path: Path) -> GivenFlow:
        from fatezero_eval.flow import read_flow  # noqa: PLC0415

        if path not in self._flows:
            self._flows[path] = read_flow(path)
        return self._flows[path]


def _short(value: float) -> float | None:
    """Five digits, more than a plot can show."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
