"""Can the chosen metrics run here? If not, why, and what would help."""

from __future__ import annotations

from collections.abc import Iterable

from fatezero.errors import UserError
from fatezero_eval.networks.flow import raft_remedy
from fatezero_eval.networks.loading import Role
from fatezero_eval.networks.lpips import lpips_remedy
from fatezero_eval.options import PICTUREBOOK_CLIP, ScoringOptions
from fatezero_eval.scoring.metric import Metric
from fatezero_eval.scoring.suite import METRICS, choose


def selected(options: ScoringOptions) -> tuple[Metric, ...]:
    """The metrics a configuration names.

    Raises:
        UserError: a name that no metric has, or a metric whose network is not here.
    """
    metrics = choose(options.metrics)
    for metric in metrics:
        remedy = _lacking(metric, options)
        if remedy:
            raise UserError(f"{metric.name} cannot run: {remedy}")
    return metrics


def roles_of(metrics: Iterable[Metric]) -> set[Role]:
    """The networks that metrics look through; motion is known or estimated as flow."""
    return {"flow" if m.network == "motion" else m.network for m in metrics if m.network is not None}


def runnable_metrics(options: ScoringOptions | None = None) -> list[tuple[str, bool, str]]:
    """For each metric its id, whether it can run here, and why not, with the remedy."""
    chosen = options or ScoringOptions()
    remedies = ((metric.id, _lacking(metric, chosen)) for metric in METRICS)
    return [(name, not remedy, remedy) for name, remedy in remedies]


def _lacking(metric: Metric, options: ScoringOptions) -> str:
    """What keeps a metric from running, in one sentence with the remedy; empty if nothing does."""
    match metric.network:
        case "clip" if options.judge == PICTUREBOOK_CLIP:
            return f"give --judge the folder of {PICTUREBOOK_CLIP}, or another CLIP, e.g. --judge ViT-B-32/openai."
        case "pick" if options.pick is None:
            return "give --pick the folder of hf download yuvalkirstain/PickScore_v1."
        case "dino" if options.dino is None:
            return "give --dino the model.safetensors of timm/vit_base_patch8_224.dino (hf download it)."
        case "lpips" | "lpips_squeeze" as role:
            return lpips_remedy("alex" if role == "lpips" else "squeeze")
        case "flow" | "motion" if options.raft is None:
            return raft_remedy(options.flow)
        case _:
            return ""
