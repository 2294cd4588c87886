"""What a metric's modes share, and the torchmetrics class that is made of it once somebody asks for the class.

torchmetrics imports torchvision, transformers and SciPy, more than twice what torch costs; commands do without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean


@dataclass(frozen=True)
class MetricFamily:
    """A formula of one clip, and which way it is better.

    Attributes:
        name: of its torchmetrics class.
        of_clip: the metric of one clip.
        higher_is_better: whether more of it is better.
    """

    name: str
    of_clip: Callable[..., Tensor]
    higher_is_better: bool


def classes_of(module: str, *families: MetricFamily) -> Callable[[str], type[ClipMean]]:
    """A module's `__getattr__` by which it has the torchmetrics classes of these families.

    Args:
        module: the name of theirs.
        families: those whose formulas are in it.
    """
    named = {family.name: family for family in families}

    @cache
    def class_of(name: str) -> type[ClipMean]:
        if name not in named:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        from fatezero_eval.metrics.clip_mean import ClipMean  # noqa: PLC0415

        family = named[name]
        return type(
            name,
            (ClipMean,),
            {
                "__module__": module,
                "__doc__": f"Mean over clips of `{family.of_clip.__name__}`.",
                "family": family,
                "higher_is_better": family.higher_is_better,
                "of_clip": staticmethod(family.of_clip),
            },
        )

    return class_of
