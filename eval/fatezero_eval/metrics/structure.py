"""Structure distance: do the frames keep the layout of their source?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from fatezero_eval.metrics.families import MetricFamily, classes_of
from fatezero_eval.metrics.means import mean_defined, stacked

if TYPE_CHECKING:
    from fatezero_eval.metrics.clip_mean import ClipMean


def self_similarity(keys_ND: Tensor) -> Tensor:
    """Cosines between all pairs of tokens, N,N float64."""
    keys = keys_ND.double()
    lengths = keys.norm(dim=-1, keepdim=True)
    similarity: Tensor = keys @ keys.T / (lengths @ lengths.T).clamp(min=1e-8)
    return similarity


def structure_distance_of_frames(source_FND: Tensor, edited_FND: Tensor) -> Tensor:
    """Mean squared difference of the self-similarities of two frames' keys; F float64.

    Args:
        source_FND: keys of the last block of a self-supervised ViT, heads side by side, class token included.
        edited_FND: the same of the edited frames.

    Source: Splice (Tumanyan et al. 2022), equation 4; PnPInversion's structure distance.
    """
    pairs = zip(source_FND, edited_FND, strict=True)
    values = [(self_similarity(edited) - self_similarity(source)).square().mean() for source, edited in pairs]
    return stacked(values)


def structure_distance(source_FND: Tensor, edited_FND: Tensor) -> Tensor:
    """Mean over frames of `structure_distance_of_frames`."""
    return mean_defined(structure_distance_of_frames(source_FND, edited_FND))


STRUCTURE_DISTANCE = MetricFamily("StructureDistance", structure_distance, higher_is_better=False)
StructureDistance: type[ClipMean]
if not TYPE_CHECKING:
    __getattr__ = classes_of(__name__, STRUCTURE_DISTANCE)
