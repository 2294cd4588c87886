"""The linear head that rates CLIP's embeddings of pictures by their beauty."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero_eval.networks.clip import ImageTextEncoder
from fatezero_eval.networks.weight_files import identity_of, read_weights, reading

AESTHETIC_REMEDY = (
    "give --aesthetic LAION's linear head for the judge's CLIP as safetensors; for ViT-L-14/openai fetch "
    "sa_0_4_vit_l_14_linear.pth of LAION-AI/aesthetic-predictor and run fatezero convert on it."
)


@dataclass(frozen=True)
class AestheticHead:
    """A line through a CLIP's space.

    Attributes:
        id: names the CLIP, the head and their weights.
        judge: the CLIP.
        weight: D.
        bias: scalar.
    """

    id: str
    judge: ImageTextEncoder
    weight: Tensor
    bias: Tensor

    def check(self, width: int) -> None:
        """See to it that the head rates vectors of so many numbers.

        Raises:
            UserError: if not.
        """
        if width != len(self.weight):
            raise UserError(
                f"the aesthetic head reads embeddings of {len(self.weight)} numbers, and those of {self.judge.id} have "
                f"{width}: give the head of that CLIP, or --judge the CLIP of the head."
            )


def load_aesthetic(file: Path, judge: ImageTextEncoder) -> AestheticHead:
    """A head from a safetensors file with `weight` 1,D and `bias` 1.

    Raises:
        UserError: the file is missing or holds something else.
    """
    with reading(file, "an aesthetic head in safetensors", AESTHETIC_REMEDY):
        weights = read_weights(file)
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        if shapes != {"weight": (1, weights["weight"].shape[-1]), "bias": (1,)}:
            raise ValueError(f"it has a `weight` 1,D and a `bias` 1, not {quoted(shapes)}")
    name = f"{judge.id} + {identity_of(file.parent, file.name)}"
    return AestheticHead(name, judge, weights["weight"][0].float(), weights["bias"][0].float())
