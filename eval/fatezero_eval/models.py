"""Which networks the chosen metrics need, whether they are here, and loading them once."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fatezero.errors import UserError
from fatezero_eval.cache import Cache
from fatezero_eval.clips import Models
from fatezero_eval.config import PICTUREBOOK_CLIP, Scoring
from fatezero_eval.encoders import (
    load_clip,
    load_dino,
    load_lpips,
    load_transformers_clip,
    lpips_remedy,
)
from fatezero_eval.flow import load_flow, raft_remedy
from fatezero_eval.suite import METRICS, Metric, choose

ROLES = ("flow", "clip", "pick", "dino", "lpips", "lpips_squeeze")


@dataclass(frozen=True)
class Loaded:
    """Chosen metrics and the models they share.

    Attributes:
        metrics: in the suite's order.
        shared: what scoring uses.
        identity: names every model of `ROLES` and its weights; empty where it is not needed.
    """

    metrics: tuple[Metric, ...]
    shared: Models
    identity: tuple[str, ...]

    @property
    def used(self) -> dict[str, str]:
        """By role, the models that the metrics look at; flow is always loaded."""
        wanted = {"flow" if metric.model == "motion" else metric.model for metric in self.metrics}
        return {role: name for role, name in zip(ROLES, self.identity, strict=True) if role in wanted}


def selected(config: Scoring) -> tuple[Metric, ...]:
    """The metrics a configuration names.

    Raises:
        UserError: a name that no metric has, or a metric whose model is not here.
    """
    metrics = choose(config.metrics)
    for metric in metrics:
        remedy = _lacking(metric, config)
        if remedy:
            raise UserError(f"{metric.name} cannot run: {remedy}")
    return metrics


def load_models(config: Scoring, metrics: tuple[Metric, ...]) -> Loaded:
    """Load what the metrics need and nothing else.

    Raises:
        UserError: a model cannot be loaded.
    """
    wanted = {metric.model for metric in metrics}
    device = config.device
    shared = Models(
        flow=load_flow(config.flow, config.raft, device),
        clip=load_clip(clip_location(config.clip), device) if "clip" in wanted else None,
        pick=load_transformers_clip(config.pick, device) if "pick" in wanted and config.pick else None,
        dino=load_dino(config.dino, device=device) if "dino" in wanted and config.dino else None,
        lpips=load_lpips("alex", device) if "lpips" in wanted else None,
        lpips_squeeze=load_lpips("squeeze", device) if "lpips_squeeze" in wanted else None,
        cache=Cache(config.cache),
    )
    named = (getattr(shared, role) for role in ROLES)
    return Loaded(metrics, shared, tuple(model.id if model else "" for model in named))


def clip_location(name: str) -> str:
    """Where the judge of that name lies; only the shipped one has a short name.

    Raises:
        UserError: the shipped judge is not in this installation.
    """
    if name != PICTUREBOOK_CLIP:
        return name
    spec = find_spec("fatezero")
    assert spec is not None
    for folder in spec.submodule_search_locations or ():
        weights = Path(folder) / "picturebook" / "weights" / PICTUREBOOK_CLIP
        if (weights / "open_clip_config.json").is_file():
            return str(weights)
    raise UserError(f"{PICTUREBOOK_CLIP} is not in this installation; name another judge, e.g. --clip ViT-B-32/openai.")


def runnable_metrics(config: Scoring | None = None) -> list[tuple[str, bool, str]]:
    """For each metric its id, whether it can run here, and why not, with the remedy."""
    chosen = config or Scoring()
    reports = []
    for metric in METRICS:
        remedy = _lacking(metric, chosen)
        reports.append((metric.id, not remedy, remedy))
    return reports


def _lacking(metric: Metric, config: Scoring) -> str:
    """What keeps a metric from running, in one sentence with the remedy; empty if nothing does."""
    match metric.model:
        case "clip":
            return _clip_remedy(config.clip)
        case "pick" if config.pick is None:
            return "give --pick the folder of hf download yuvalkirstain/PickScore_v1."
        case "dino" if config.dino is None:
            return "give --dino the model.safetensors of timm/vit_base_patch8_224.dino (hf download it)."
        case "lpips" | "lpips_squeeze" as model:
            return lpips_remedy("alex" if model == "lpips" else "squeeze")
        case "flow" | "motion" if config.raft is None:
            return raft_remedy(config.flow)
        case _:
            return ""


def _clip_remedy(name: str) -> str:
    try:
        clip_location(name)
    except UserError as error:
        return str(error)
    return ""
