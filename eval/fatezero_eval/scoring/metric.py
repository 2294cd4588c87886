"""What a metric is: its name, what it needs, which way is better, and what computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from fatezero.types import Frames
from fatezero_eval.metrics.families import MetricFamily
from fatezero_eval.networks.loading import Role
from fatezero_eval.scoring.judged_pictures import whole_frames
from fatezero_eval.scoring.windows import ClipVersions, Window
from fatezero_eval.vlm.questions import QuestionSet

NEVER = "never"
ONE_FRAME = "the clip has one frame"
Seen = Role | Literal["motion"]  # what a metric looks through; motion: known flow, else estimated
Shown = Callable[[Window, str], Frames]  # see `judged_pictures`
Need = Literal["source", "source_prompt", "target_prompt", "mask", "own_mask", "true_edit"]


@dataclass(frozen=True)
class Embeddings:
    """A whole clip as its encoder sees it.

    Attributes:
        edited: F,D edited frames, or what is shown of them.
        pooled: F,E the same before the projection; None where the model has none.
        source: F,D source frames; None where there are none, or less than whole frames is shown.
        logit_scale: the encoder's, before the exponential.
        prompt: D of a text; a UserError for one that the encoder does not read.
        clip: whose prompts they are.
    """

    edited: Tensor
    pooled: Tensor | None
    source: Tensor | None
    logit_scale: Tensor
    prompt: Callable[[str], Tensor]
    clip: ClipVersions

    @property
    def source_prompt(self) -> Tensor:
        """D, of the source prompt."""
        return self.prompt(self.clip.source_prompt)

    @property
    def target_prompt(self) -> Tensor:
        """D, of the target prompt."""
        return self.prompt(self.clip.target_prompt)


@dataclass(frozen=True)
class Tracks:
    """Points followed through a clip, in pixels.

    Attributes:
        edited: N,F,2 those of the edited frames.
        source: M,F,2 those of the source.
    """

    edited: Tensor
    source: Tensor


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: family, or family/mode.
        version: raised with every change of meaning.
        unit: unit of the stored value.
        family: what its default mode computes, which says which way is better; None where neither is.
        network: what it looks through; None for the frames alone.
        shown: what an encoder is shown of the frames.
        needs: what not every benchmark states.
        display: tables show the value times this.
        undefined: when it is NaN.
        of_clip: values from a view of the whole clip, of which the clip's value is the mean.
        of_window: one value, or row of values, for each fresh frame or pair of a window.
        settled: from the values of all windows to those of which the clip's value is the mean; None where they are.
        asks: what is asked about a clip; None where nothing is.
        of_answers: values from the scores of answers, repeats by questions, of which the clip's value is the mean.
    """

    name: str
    version: int = 1
    unit: str
    family: MetricFamily | None
    network: Seen | None = None
    shown: Shown = whole_frames
    needs: tuple[Need, ...] = ()
    display: float = 1
    undefined: str = NEVER
    of_clip: Callable[[Any], Tensor] | None = None
    of_window: Callable[[Window], Tensor] | None = None
    asks: QuestionSet | None = None
    of_answers: Callable[[Tensor], Tensor] | None = None
    settled: Callable[[Tensor], Tensor] | None = None

    @property
    def id(self) -> str:
        """Name and version, as rows carry it."""
        return f"{self.name}@{self.version}"

    @property
    def sees(self) -> set[str]:
        """The versions of a clip that its values of a window can depend on."""
        beside = {"motion": "source", "mask": "target_mask"}
        named = {*self.needs, str(self.network)}
        return {"edited", *self.needs, *(beside[name] for name in named & beside.keys())}

    @property
    def higher_is_better(self) -> bool | None:
        """Which way is better, as the metric's family says; None where neither is."""
        return None if self.family is None else self.family.higher_is_better

    @property
    def direction(self) -> int:
        """+1 where higher is better, -1 where lower is, 0 where neither."""
        return {True: 1, False: -1, None: 0}[self.higher_is_better]

    @property
    def arrow(self) -> str:
        """The sign that tables put beside the metric."""
        return {1: "↑", -1: "↓", 0: ""}[self.direction]
