"""The networks that metrics share, each loaded once and only if some metric needs it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from fatezero_eval.networks.aesthetic_head import AestheticHead, load_aesthetic
from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.clip import ImageTextEncoder, NamedClip, load_transformers_clip
from fatezero_eval.networks.dino import Dino, load_dino
from fatezero_eval.networks.flow import EDITBOARD_FLOW, FlowEstimator, load_flow
from fatezero_eval.networks.lpips import Lpips, load_lpips
from fatezero_eval.networks.photo_statistics import PhotoStatistics, load_photo_statistics
from fatezero_eval.networks.point_tracks import LucasKanade
from fatezero_eval.networks.video_text import VideoText, load_video_text
from fatezero_eval.options import ScoringOptions

Role = Literal[
    "flow", "editboard_flow", "tracker", "clip", "aesthetic", "pick", "dino", "niqe", "lpips", "lpips_squeeze",
    "video_text",
]  # fmt: skip
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The networks and estimators that metrics share; None where no chosen metric needs one.

    Attributes:
        flow: estimates motion.
        editboard_flow: estimates motion as EditBoard does.
        tracker: follows points.
        clip: judges frames and prompts.
        aesthetic: rates what the judge sees in frames.
        pick: PickScore's network, a CLIP.
        dino: keys for the structure distance, subjects for their consistency.
        niqe: knows the statistics of photographs.
        lpips: perceptual distance with AlexNet.
        lpips_squeeze: perceptual distance with SqueezeNet, as PnPInversion has it.
        video_text: judges a whole clip and a prompt.
        cache: keeps embeddings and flows.
    """

    flow: FlowEstimator
    editboard_flow: FlowEstimator = EDITBOARD_FLOW
    tracker: LucasKanade = field(default_factory=LucasKanade)
    clip: ImageTextEncoder | None = None
    aesthetic: AestheticHead | None = None
    pick: ImageTextEncoder | None = None
    dino: Dino | None = None
    niqe: PhotoStatistics | None = None
    lpips: Lpips | None = None
    lpips_squeeze: Lpips | None = None
    video_text: VideoText | None = None
    cache: ArrayCache = field(default_factory=ArrayCache)

    @property
    def ids(self) -> Mapping[Role, str]:
        """By role, the name and weights of each network; empty where none is loaded."""
        return {role: getattr(getattr(self, role), "id", "") for role in ROLES}


def load_networks(options: ScoringOptions, wanted: Collection[Role]) -> Networks:
    """Load the networks of these roles; flow, which costs nothing by default, is always there.

    The judge is only named, as what it said of clips is kept; see `NamedClip`.

    Raises:
        UserError: a network cannot be loaded.
    """
    device = options.device
    judge = NamedClip(options.judge, device) if "clip" in wanted else None
    return Networks(
        flow=load_flow(options.flow, options.raft, device),
        clip=judge,
        aesthetic=load_aesthetic(options.aesthetic, judge) if judge and options.aesthetic else None,
        pick=load_transformers_clip(options.pick, device) if "pick" in wanted and options.pick else None,
        dino=load_dino(options.dino, device) if "dino" in wanted and options.dino else None,
        niqe=load_photo_statistics(options.niqe) if "niqe" in wanted and options.niqe else None,
        lpips=load_lpips("alex", device) if "lpips" in wanted else None,
        lpips_squeeze=load_lpips("squeeze", device) if "lpips_squeeze" in wanted else None,
        video_text=load_video_text(options.video_text, device)
        if "video_text" in wanted and options.video_text
        else None,
        cache=ArrayCache(options.cache),
    )
