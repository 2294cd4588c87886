"""The attention layers of a network, and where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fatezero.attention.temporal import ATTENTION
from fatezero.errors import UserError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


Kind = Literal["self", "cross", "temporal", "joint"]
Part = Literal["down", "mid", "up", "blocks"]


@dataclass(frozen=True)
class Site:
    """One attention layer.

    Attributes:
        name: its key in diffusers' `attn_processors`, without ".processor".
        kind: self-attention over places (diffusers' attn1), which in a video transformer are those of all frames;
            cross-attention to the prompt (attn2); temporal attention of one place over frames (of Tune-A-Video's
            layers and of motion modules); or attention of places and prompt joined in one.
        part: of the network that it stands in; "blocks" is a transformer, which has no others.
        downsampling: how much smaller the latent is at this layer: 1, 2, 4, …
        width: channels of its block.
        heads: attention heads.
        head_width: channels of one head.
        block: its block's number in a transformer; None in a UNet.
    """

    name: str
    kind: Kind
    part: Part
    downsampling: int
    width: int
    heads: int
    head_width: int
    block: int | None = None

    @property
    def makes_masks(self) -> bool:
        """Whether masks can be made of its maps.

        It reads the prompt; the middle block is left out, as in the original, also in SDXL, where it is no coarser than
        the masks.
        """
        return self.kind in {"cross", "joint"} and self.part != "mid"

    def size(self, latent_height: int, latent_width: int) -> tuple[int, int]:
        """Rows and columns of places for a latent of this size (strided convolutions round up)."""
        return -(-latent_height // self.downsampling), -(-latent_width // self.downsampling)


def attention_sites(unet: UNet2DConditionModel) -> tuple[Site, ...]:
    """All attention layers of a UNet: those of the way down, the middle, the way up.

    Raises:
        UserError: if a layer is not the plain attention of Stable Diffusion's transformer blocks.
    """
    down = _downsampling_of_blocks(unet)
    order = {"down": 0, "mid": 1, "up": 2}
    sites = [_site(name.removesuffix(".processor"), unet, down) for name in unet.attn_processors]
    return tuple(sorted(sites, key=lambda site: order[site.part]))


def _downsampling_of_blocks(unet: UNet2DConditionModel) -> dict[str, int]:
    factor, factors = 1, {}
    for i, block in enumerate(unet.down_blocks):
        factors[f"down_blocks.{i}"] = factor
        factor *= 2 if block.downsamplers is not None else 1
    factors["mid_block"] = factor
    for i, block in enumerate(unet.up_blocks):
        factors[f"up_blocks.{i}"] = factor
        factor //= 2 if block.upsamplers is not None else 1
    return factors


def _site(name: str, unet: UNet2DConditionModel, downsampling: dict[str, int]) -> Site:
    attention: Any = unet.get_submodule(name)
    kind = _kind(name)
    plain = (
        kind is not None
        and attention.group_norm is None
        and attention.spatial_norm is None
        and attention.norm_q is None
        and attention.norm_k is None
        and not attention.norm_cross
        and attention.scale_qk
        and not attention.residual_connection
        and attention.rescale_output_factor == 1.0
        and attention.added_kv_proj_dim is None
        and (kind == "cross") == attention.is_cross_attention
    )
    if kind is None or not plain:
        raise UserError(
            f"The UNet's layer {name} is not the plain attention of Stable Diffusion 1.x, 2.x or SDXL, Tune-A-Video "
            "or AnimateDiff: use a checkpoint of that layout."
        )
    block = "mid_block" if name.startswith("mid_block") else ".".join(name.split(".")[:2])
    part: Part = "mid" if block == "mid_block" else ("down" if block.startswith("down") else "up")
    return Site(
        name=name,
        kind=kind,
        part=part,
        downsampling=downsampling[block],
        width=attention.query_dim,
        heads=attention.heads,
        head_width=attention.inner_dim // attention.heads,
    )


def _kind(name: str) -> Kind | None:
    layer = name.rsplit(".", 1)[-1]
    if ".motion_modules." in name or layer == ATTENTION:
        return "temporal"
    kinds: dict[str, Kind] = {"attn1": "self", "attn2": "cross"}
    return kinds.get(layer)
