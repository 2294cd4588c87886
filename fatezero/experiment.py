"""Ablations: which variants, which edits, which seeds; and the record of it that readers of a run go by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from fatezero.config import MethodConfig
from fatezero.data.files import content_digest, replacing
from fatezero.data.manifest import Manifest
from fatezero.errors import UserError
from fatezero.settings import with_settings
from fatezero.types import EditRequest

Settings = Mapping[str, Any]

# The paper's ablations and baselines, as what they change (FateZero, section 4.3 and table 1).
VARIANTS: Mapping[str, Settings] = {
    "full": {},
    "no_blending": {"blending": None},
    "no_self_fusion": {"fusion.self_window": None},
    "no_cross_fusion": {"fusion.cross_window": None},
    "no_fusion": {"fusion": None, "blending": None},
    "no_st_attention": {"key_frames": []},
    "frame_norms": {"norm_scope": "frame"},
    "sdedit": {"fusion": None, "blending": None, "sdedit_strength": 0.6},
}
RECORD = "experiment.json"


@dataclass(frozen=True, kw_only=True)
class AblationOptions:
    """What to compare, on what.

    Attributes:
        model: as for `fatezero edit`.
        motion_adapter: as for `fatezero edit`.
        manifest: the edits; by default ten small ones that the project makes itself.
        root: folder that the manifest's clip paths start from.
        categories: take edits of these categories alone; all by default.
        edits: how many edits of each category are taken, the first ones; all by default.
        frames: of each clip; all by default.
        variants: by name, the settings (dotted fields) that differ from the configuration given beside this.
        sweep: fields and their lists of values, or one value: one more variant for each combination.
        reference: the variant that all others are compared to.
        seeds: how many seeds are drawn where a result depends on one.
        out: folder of the run.
        redo: replace results that were made with other settings.
        metrics: names or patterns; none stands for the default suite.
        clip: the judge, as for `fatezero evaluate`.
        wandb: log to Weights & Biases "online", "offline" or not at all; by default online with an account and
            offline without.
        project: at Weights & Biases.
        logger: also write each variant's numbers for TensorBoard or as CSV, by Lightning's loggers.
    """

    model: str = "picturebook"
    motion_adapter: str | None = None
    manifest: str | None = None
    root: str | None = None
    categories: tuple[str, ...] = ()
    edits: int | None = None
    frames: int | None = None
    variants: dict[str, dict[str, Any]] = field(default_factory=lambda: {k: dict(v) for k, v in VARIANTS.items()})
    sweep: dict[str, Any] = field(default_factory=dict)
    reference: str = "full"
    seeds: int = 2
    out: Path = Path("runs/ablation")
    redo: bool = False
    metrics: tuple[str, ...] = ()
    clip: str = "picturebook-clip"
    wandb: Literal["online", "offline", "disabled"] | None = None
    project: str = "fatezero"
    logger: Literal["csv", "tensorboard"] | None = None

    def __post_init__(self) -> None:
        """Refuse what compares nothing."""
        if self.seeds < 1 or (self.edits is not None and self.edits < 1):
            raise UserError(f"seeds is {self.seeds} and edits is {self.edits}: each is at least 1.")
        if self.reference not in self.variants:
            raise UserError(
                f"The reference {self.reference!r} is none of the variants ({', '.join(self.variants)}): name one."
            )


@dataclass(frozen=True)
class Variant:
    """One configuration of an ablation.

    Attributes:
        settings: dotted fields that differ from the configuration that all variants start from.
        method: the whole configuration.
    """

    settings: Settings
    method: MethodConfig


def make_variants(options: AblationOptions, base: MethodConfig) -> dict[str, Variant]:
    """The named variants and the sweep's, in their order.

    Raises:
        UserError: for unknown fields or values that do not fit, naming the variant.
    """
    settings: dict[str, Settings] = dict(options.variants)
    grid = [
        [(name, value) for value in (values if isinstance(values, list) else [values])]
        for name, values in options.sweep.items()
    ]
    for combination in product(*grid) if grid else ():
        settings[" ".join(f"{name}={_short(value)}" for name, value in combination)] = dict(combination)
    variants: dict[str, Variant] = {}
    for name, given in settings.items():
        folder = folder_name(name)
        if folder in variants:
            raise UserError(f"Two variants are called {folder}: give each a name of its own.")
        variants[folder] = Variant(given, with_settings(base, given, f"variant {name}"))
    return variants


def choose_edits(manifest: Manifest, options: AblationOptions) -> list[EditRequest]:
    """The manifest's edits that the options ask for, in its order.

    Raises:
        UserError: if there are none.
    """
    taken: dict[str, list[EditRequest]] = {}
    for request in manifest.requests:
        if not options.categories or request.category in options.categories:
            taken.setdefault(request.category, []).append(request)
    wanted = {request.id for group in taken.values() for request in group[: options.edits]}
    chosen = [request for request in manifest.requests if request.id in wanted]
    if not chosen:
        there = sorted({request.category for request in manifest.requests})
        raise UserError(f"{manifest.path} has no edits of {', '.join(options.categories)}: it has {', '.join(there)}.")
    if options.frames is None:
        return chosen
    return [replace(request, clip=replace(request.clip, frames=options.frames)) for request in chosen]


def with_seeds(requests: Sequence[EditRequest], method: MethodConfig, seeds: int) -> list[EditRequest]:
    """The requests, and again with further seeds where the method's result depends on one."""
    drawn = seeds if method.posterior == "sample" or method.sdedit_strength is not None else 1
    return [replace(request, seed=request.seed + place) for request in requests for place in range(drawn)]


def record(run: Path, options: AblationOptions, variants: Mapping[str, Variant], manifest: Path, command: str) -> None:
    """Write `experiment.json`: what was compared, for whoever reads the run."""
    values = {
        "name": run.name,
        "reference": folder_name(options.reference),
        "command": command,
        "manifest": str(manifest),
        "manifest_digest": content_digest(manifest),
        "variants": {
            name: {"settings": dict(variant.settings), "config": asdict(variant.method)}
            for name, variant in variants.items()
        },
    }
    with replacing(run / RECORD) as partial:
        partial.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _short(value: Any) -> str:
    return json.dumps(value).replace(" ", "") if not isinstance(value, str) else value


def folder_name(name: str) -> str:
    """A variant's name as its folder's: other characters than letters, digits, '.', '_', '=' and '-' become '-'."""
    safe = "".join(c if c.isalnum() or c in "._=-" else "-" for c in name).strip(".-")
    if not safe or safe == "evaluation":
        raise UserError(f"A variant cannot be called {name!r}: it names a folder of the run.")
    return safe
