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
    LPIPS_BACKBONE,
    load_clip,
    load_dino,
    load_lpips,
    load_transformers_clip,
    torchvision_cached,
)
from fatezero_eval.flow import RAFT_FILES, load_flow
from fatezero_eval.suite import METRICS, Metric, choose


@dataclass(frozen=True)
class Loaded:
    """Chosen metrics and the models they share.

    Attributes:
        metrics: in the suite's order.
        shared: what scoring uses.
        identity: names every model and its weights.
    """

    metrics: tuple[Metric, ...]
    shared: Models
    identity: tuple[str, ...]


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
        lpips=load_lpips(device) if "lpips" in wanted else None,
        cache=Cache(config.cache),
    )
    named = (shared.flow, shared.clip, shared.pick, shared.dino, shared.lpips)
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
    """What keeps a metric from running, in one sentence; empty if nothing does."""
    if metric.model == "clip" and config.clip == PICTUREBOOK_CLIP:
        try:
            clip_location(config.clip)
        except UserError as error:
            return str(error)
    if metric.model == "pick" and config.pick is None:
        return "give --pick a folder with yuvalkirstain/PickScore_v1 (hf download yuvalkirstain/PickScore_v1)."
    if metric.model == "dino" and config.dino is None:
        return "give --dino the model.safetensors of timm/vit_base_patch8_224.dino (hf download it)."
    if metric.model == "lpips" and not torchvision_cached(LPIPS_BACKBONE):
        return (
            f"LPIPS needs AlexNet ({LPIPS_BACKBONE}) in torchvision's cache; fetch it once with "
            "python -c \"import torchvision; torchvision.models.alexnet(weights='DEFAULT')\"."
        )
    raft = RAFT_FILES.get(config.flow)
    if metric.model in ("flow", "motion") and raft and not config.raft and not torchvision_cached(raft):
        return f"{config.flow} needs {raft} in torchvision's cache, or --raft FILE; or use --flow dis."
    return ""
