"""The networks that metrics share, each loaded once and only if some metric needs it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.clip import ImageTextEncoder, load_clip, load_transformers_clip
from fatezero_eval.networks.dino import DinoKeys, load_dino
from fatezero_eval.networks.flow import FlowEstimator, load_flow
from fatezero_eval.networks.lpips import Lpips, load_lpips
from fatezero_eval.options import ScoringOptions

Role = Literal["flow", "clip", "pick", "dino", "lpips", "lpips_squeeze"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks and estimators that metrics share; None where no chosen metric needs one.

    Attributes:
        flow: estimates motion.
        clip: judges frames and prompts.
        pick: PickScore's network, a CLIP.
        dino: keys for the structure distance.
        lpips: perceptual distance with AlexNet.
        lpips_squeeze: perceptual distance with SqueezeNet, as PnPInversion has it.
        cache: keeps embeddings and flows.
    """

    flow: FlowEstimator
    clip: ImageTextEncoder | None = None
    pick: ImageTextEncoder | None = None
    dino: DinoKeys | None = None
    lpips: Lpips | None = None
    lpips_squeeze: Lpips | None = None
    cache: ArrayCache = field(default_factory=ArrayCache)

    @property
    def ids(self) -> Mapping[Role, str]:
        """By role, the name and weights of each network; empty where none is loaded."""
        return {role: getattr(getattr(self, role), "id", "") for role in ROLES}


def load_networks(options: ScoringOptions, wanted: Collection[Role]) -> Networks:
    """Load the networks of these roles; flow, which costs nothing by default, is always there.

    Raises:
        UserError: a network cannot be loaded.
    """
    device = options.device
    return Networks(
        flow=load_flow(options.flow, options.raft, device),
        clip=load_clip(options.judge, device) if "clip" in wanted else None,
        pick=load_transformers_clip(options.pick, device) if "pick" in wanted and options.pick else None,
        dino=load_dino(options.dino, device=device) if "dino" in wanted and options.dino else None,
        lpips=load_lpips("alex", device) if "lpips" in wanted else None,
        lpips_squeeze=load_lpips("squeeze", device) if "lpips_squeeze" in wanted else None,
        cache=ArrayCache(options.cache),
    )
