"""What a metric is: its name, what it needs, which way is better, and what computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fatezero_eval.metrics.clip_mean import ClipMean
from fatezero_eval.networks.loading import Role
from fatezero_eval.scoring.windows import Window

NEVER = "never"
Seen = Role | Literal["motion"]  # what a metric looks through; motion: known flow, else estimated
Version = Literal["mask", "own_mask", "true_edit"]


@dataclass(frozen=True)
class Embeddings:
    """A whole clip as its encoder sees it.

    Attributes:
        edited: F,D edited frames.
        bottom_square: F,D the same, portrait frames cropped to their bottom square first.
        pooled: F,E edited frames before the projection; None where the model has none.
        source: F,D source frames.
        source_prompt: D source prompt.
        target_prompt: D target prompt.
        logit_scale: the encoder's, before the exponential.
    """

    edited: Tensor
    bottom_square: Tensor
    pooled: Tensor | None
    source: Tensor
    source_prompt: Tensor
    target_prompt: Tensor
    logit_scale: Tensor


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: family, or family/mode.
        version: raised with every change of meaning.
        unit: unit of the stored value.
        family: its torchmetrics class or that of its default mode, which says which way is better; None where
            neither is.
        network: what it looks through; None for the frames alone.
        needs: versions of the clip that not every benchmark has.
        display: tables show the value times this.
        undefined: when it is NaN.
        of_clip: values from a whole clip's embeddings, of which the clip's value is the mean.
        of_window: one value for each fresh frame or pair of a window, of which the clip's value is the mean.
    """

    name: str
    version: int = 1
    unit: str
    family: type[ClipMean] | None
    network: Seen | None = None
    needs: tuple[Version, ...] = ()
    display: float = 1
    undefined: str = NEVER
    of_clip: Callable[[Embeddings], Tensor] | None = None
    of_window: Callable[[Window], Tensor] | None = None

    @property
    def id(self) -> str:
        """Name and version, as rows carry it."""
        return f"{self.name}@{self.version}"

    @property
    def higher_is_better(self) -> bool | None:
        """Which way is better, as the metric's class says; None where neither is."""
        return None if self.family is None else self.family.higher_is_better

    @property
    def direction(self) -> int:
        """+1 where higher is better, -1 where lower is, 0 where neither."""
        return {True: 1, False: -1, None: 0}[self.higher_is_better]

    @property
    def arrow(self) -> str:
        """The sign that tables put beside the metric."""
        return {1: "↑", -1: "↓", 0: ""}[self.direction]
