"""Ablations: which variants, which edits, which seeds; and the record of it that readers of a run go by."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from fatezero.config import MethodConfig
from fatezero.data.files import content_digest
from fatezero.data.layout import EXPERIMENT, is_name, reserved_variant_name
from fatezero.data.manifest import Manifest
from fatezero.data.remote import open_input
from fatezero.diffusion.recommendations import dotted, with_settings
from fatezero.errors import UserError
from fatezero.system.publishing import replace_text
from fatezero.system.terminal import quoted
from fatezero.types import EditRequest

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """One configuration of an ablation.

    Attributes:
        settings: dotted fields that differ from the configuration that all variants start from.
        method: the whole configuration.
    """

    settings: Settings
    method: MethodConfig


def make_variants(named: Mapping[str, Settings], sweep: Mapping[str, Any], base: MethodConfig) -> dict[str, Variant]:
    """The named variants and the sweep's, in their order.

    Args:
        named: by name, the settings that differ from the base.
        sweep: fields and their lists of values, or one value: one more variant for each combination; of several, those
            that are another variant under a name of their own are left out.
        base: the configuration that variants start from.

    Raises:
        UserError: for unknown fields or values that do not fit, naming the variant.
    """
    swept = _swept(dotted(sweep))
    variants: dict[str, Variant] = {}
    for name, given in ({name: dotted(given) for name, given in named.items()} | swept).items():
        folder = folder_name(name)
        alike = next((other for other in variants if _as_disks_see(other) == _as_disks_see(folder)), None)
        if alike is not None:
            raise UserError(f"Two variants would share the folder {folder} (or {alike}): give each a name of its own.")
        method = with_settings(base, given, f"variant {name}")
        again = name in swept and any(method == other.method for other in variants.values())
        if not again or len(swept) == 1:  # the agent of a W&B sweep asks for the one that it names
            variants[folder] = Variant(given, method)
    return variants


def swept_variants(sweep: Mapping[str, Any]) -> list[str]:
    """Names of the variants that a sweep adds."""
    return [folder_name(name) for name in _swept(dotted(sweep))]


def _swept(sweep: Mapping[str, Any]) -> dict[str, Settings]:
    """By name, the settings of each combination of a sweep's values."""
    for name, values in sweep.items():
        if values == []:
            raise UserError(f"The sweep of {name} lists no values: write at least one.")
    grid = [
        [(name, value) for value in (values if isinstance(values, list) else [values])]
        for name, values in sweep.items()
    ]
    combinations = product(*grid) if grid else ()
    return {" ".join(f"{name}={_short(value)}" for name, value in combi): dict(combi) for combi in combinations}


def choose_edits(
    manifest: Manifest, categories: Sequence[str] = (), edits: int | None = None, frames: int | None = None
) -> list[EditRequest]:
    """Some of a manifest's edits, in its order.

    Args:
        manifest: the edits.
        categories: take edits of these categories alone; all by default.
        edits: how many edits of each category are taken, the first ones; all by default.
        frames: how many frames of each clip are taken; all by default.

    Raises:
        UserError: if there are none.
    """
    taken: dict[str, list[EditRequest]] = {}
    for request in manifest.requests:
        if not categories or request.category in categories:
            taken.setdefault(request.category, []).append(request)
    wanted = {request.id for group in taken.values() for request in group[:edits]}
    chosen = [request for request in manifest.requests if request.id in wanted]
    if not chosen:
        there = sorted({request.category for request in manifest.requests})
        raise UserError(f"{manifest.path} has no edits of {', '.join(categories)}: it has {', '.join(there)}.")
    if frames is None:
        return chosen
    return [replace(request, clip=replace(request.clip, frames=frames)) for request in chosen]


def with_seeds(requests: Sequence[EditRequest], method: MethodConfig, seeds: int) -> list[EditRequest]:
    """The requests, and again with further seeds where the method's result depends on one."""
    drawn = seeds if method.posterior == "sample" or not method.inverts else 1
    return [replace(request, seed=request.seed + place) for request in requests for place in range(drawn)]


def record(
    run: Path,
    reference: str,
    variants: Mapping[str, Variant],
    manifest: str | Path,
    command: str,
    *,
    root: str | None = None,
) -> None:
    """Write `experiment.json`: what was compared, for whoever reads the run.

    Args:
        run: the run folder.
        reference: the variant that all others are compared to.
        variants: by name.
        manifest: path or address of the edits.
        command: as it was typed.
        root: the folder that the manifest's paths start from; None for its own.
    """
    values = {
        "name": run.name,
        "reference": folder_name(reference),
        "command": command,
        "manifest": str(manifest),
        "manifest_digest": content_digest(open_input(manifest)),
        "root": root or "",
        "variants": {
            name: {"settings": dict(variant.settings), "config": asdict(variant.method)}
            for name, variant in variants.items()
        },
    }
    replace_text(run / EXPERIMENT, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def _short(value: Any) -> str:
    return json.dumps(value).replace(" ", "") if not isinstance(value, str) else value


def folder_name(name: str) -> str:
    """A variant's name as its folder's: other characters than letters, digits, '.', '_', '=' and '-' become '-'."""
    safe = "".join(c if c.isalnum() or c in "._=-" else "-" for c in name).strip(".-")
    if not is_name(safe) or reserved_variant_name(safe):
        raise UserError(
            f"A variant cannot be called {quoted(name)}: it names a folder of the run, beside the run's own files."
        )
    return safe


def _as_disks_see(name: str) -> str:
    """The name as far as every disk tells names apart: some do not know case, some compose accents."""
    return unicodedata.normalize("NFKC", name).casefold()
