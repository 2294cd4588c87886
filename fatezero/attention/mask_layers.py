"""Which layers' maps masks are made of. Light: importing this needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fatezero.config import BlendingConfig
from fatezero.errors import UserError

if TYPE_CHECKING:
    from fatezero.attention.sites import Site


@dataclass(frozen=True)
class MaskLayers:
    """Which layers' maps masks are made of.

    Attributes:
        downsampling: of the latent, at these layers.
        blocks: numbers of a transformer's blocks; () is all.
    """

    downsampling: int
    blocks: tuple[int, ...] = ()

    def among(self, sites: Sequence[Site], name: str) -> list[Site]:
        """These layers of a network, whose checkpoint's name is for the sentence.

        Raises:
            UserError: if it has none there.
        """
        able = [site for site in sites if site.makes_masks]
        found = [site for site in able if site.downsampling == self.downsampling]
        if not found:
            there = sorted({site.downsampling for site in able})
            raise UserError(
                f"{name} has no cross-attention at downsampling {self.downsampling}: set blending.mask_downsampling to "
                f"one of {there}, or blending to null."
            )
        numbers = {site.block for site in found if site.block is not None}
        if not numbers.issuperset(self.blocks):
            missing = min(set(self.blocks) - numbers)
            remedy = f"set it to some of {sorted(numbers)}, or leave it out" if numbers else "leave it out for a UNet"
            raise UserError(f"{name} has no cross-attention in block {missing} of blending.mask_blocks: {remedy}.")
        return [site for site in found if not self.blocks or site.block in self.blocks]


def mask_layers(blending: BlendingConfig) -> MaskLayers:
    """The layers that masks are made of."""
    return MaskLayers(blending.mask_downsampling, blending.mask_blocks)
