"""Can the chosen metrics run here? If not, why, and what would help."""

from __future__ import annotations

from collections.abc import Iterable

from fatezero.errors import UserError
from fatezero_eval.networks.aesthetic_head import AESTHETIC_REMEDY
from fatezero_eval.networks.flow import raft_remedy
from fatezero_eval.networks.loading import ROLES, Role
from fatezero_eval.networks.lpips import lpips_remedy
from fatezero_eval.networks.photo_statistics import NIQE_REMEDY
from fatezero_eval.networks.video_features import VIDEO_NETWORK_REMEDY
from fatezero_eval.networks.video_text import VIDEO_TEXT_REMEDY
from fatezero_eval.options import PICTUREBOOK_CLIP, ScoringOptions
from fatezero_eval.scoring.metric import Metric
from fatezero_eval.scoring.set_distances import DISTANCES_OF_SETS
from fatezero_eval.scoring.suite import METRICS, choose
from fatezero_eval.vlm.questions import QuestionSet

_NO_JUDGE = f"give --judge the folder of {PICTUREBOOK_CLIP}, or another CLIP, e.g. --judge ViT-B-32/openai."

_FILES: dict[Role, str] = {
    "pick": "give --pick the folder of hf download yuvalkirstain/PickScore_v1.",
    "aesthetic": AESTHETIC_REMEDY,
    "niqe": NIQE_REMEDY,
    "video_text": VIDEO_TEXT_REMEDY,
    "dino": "give --dino the model.safetensors of timm/vit_base_patch8_224.dino for structure_distance, of "
    "timm/vit_base_patch16_224.dino for what VBench and V2VBench measure with DINO (hf download it).",
}


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


def answerer_roles(metrics: Iterable[Metric], options: ScoringOptions) -> set[Role]:
    """The networks that answer the questions of metrics: the judge, where no other model is named."""
    return {"clip"} if options.asking.vlm is None and any(metric.asks for metric in metrics) else set()


def roles_of(metrics: Iterable[Metric]) -> set[Role]:
    """The networks that metrics look through; motion is known or estimated as flow, beauty seen by the judge."""
    seen = {metric.network for metric in metrics}
    also = {"motion": "flow", "aesthetic": "clip"}
    wanted = seen | {also[network] for network in seen if network in also}
    return {role for role in ROLES if role in wanted}


def runnable_metrics(options: ScoringOptions | None = None) -> list[tuple[str, bool, str]]:
    """For each metric, and each distance between sets of clips, its id, whether it can run here, and why not."""
    chosen = options or ScoringOptions()
    of_sets = VIDEO_NETWORK_REMEDY if chosen.video_network is None else ""
    remedies = [(metric.id, _lacking(metric, chosen)) for metric in METRICS]
    remedies += [(name, of_sets) for name in DISTANCES_OF_SETS]
    return [(name, not remedy, remedy) for name, remedy in remedies]


def _lacking(metric: Metric, options: ScoringOptions) -> str:
    """What keeps a metric from running, in one sentence with the remedy; empty if nothing does."""
    return _unseeable(metric, options) if metric.asks is None else _unanswerable(metric.asks, options)


def _unseeable(metric: Metric, options: ScoringOptions) -> str:
    """Why a metric's network is not here, with the remedy; empty if it is."""
    match metric.network:
        case "clip" | "aesthetic" if options.judge == PICTUREBOOK_CLIP:
            return _NO_JUDGE
        case "pick" | "aesthetic" | "dino" | "niqe" | "video_text" as role if getattr(options, role) is None:
            return _FILES[role]
        case "lpips" | "lpips_squeeze" as role:
            return lpips_remedy("alex" if role == "lpips" else "squeeze")
        case "flow" | "motion" if options.raft is None:
            return raft_remedy(options.flow)
        case _:
            return ""


def _unanswerable(asks: QuestionSet, options: ScoringOptions) -> str:
    """Why nobody can answer questions, with the remedy; empty if somebody can."""
    if options.asking.vlm is not None:
        return ""
    if not asks.captioned:
        return (
            "give --vlm http://host:8000/v1 and --vlm-model NAME, or --vlm with the folder of a vision-language model "
            "of transformers; a CLIP cannot answer these questions."
        )
    return _NO_JUDGE if options.judge == PICTUREBOOK_CLIP else ""
