"""The noise levels that a motion adapter was trained with, which may be others than the image model's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fatezero.diffusion.schedule_fields import SCHEDULER_FILE, TRAINED_LEVELS
from fatezero.diffusion.vetting import read_scheduler
from fatezero.errors import UserError
from fatezero.system.terminal import quoted

# What says how noisy each level is. How steps are placed among the levels stays the checkpoint's.
ANIMATEDIFF: dict[str, Any] = {
    "num_train_timesteps": TRAINED_LEVELS,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
}
"""Of the published adapters (AnimateDiff, Guo et al., ICLR 2024), whose files do not state them."""


def with_adapter_levels(checkpoint: Mapping[str, Any], adapter: Path) -> dict[str, Any]:
    """A checkpoint's scheduler configuration with a motion adapter's noise levels.

    Args:
        checkpoint: its scheduler's configuration.
        adapter: the adapter's folder; scheduler/scheduler_config.json in it states its levels, else they are
            AnimateDiff's.

    Raises:
        UserError: if that file cannot be used, or is for a network that predicts something else.
    """
    path = adapter / SCHEDULER_FILE
    if not path.exists():
        return {**checkpoint, **ANIMATEDIFF}
    stated = read_scheduler(path)
    if stated.get("trained_betas") is None:
        for name in ("beta_start", "beta_end", "beta_schedule"):
            if name not in stated:
                raise UserError(f"{path} states no {name}: state it, or take the file away for AnimateDiff's levels.")
    predicted, own = (one.get("prediction_type", "epsilon") for one in (stated, checkpoint))
    if predicted != own:
        raise UserError(
            f"{path}: prediction_type is {quoted(predicted)}, the checkpoint's is {quoted(own)}: they do not belong "
            "together; take an adapter that was trained on this checkpoint."
        )
    return {**checkpoint, **ANIMATEDIFF, **{name: stated[name] for name in ANIMATEDIFF if name in stated}}


def describe_change(checkpoint: Mapping[str, Any], used: Mapping[str, Any]) -> tuple[str, ...]:
    """What a user should know of noise levels that are not the checkpoint's; nothing where they are."""
    changed = {name: used[name] for name in ANIMATEDIFF if used.get(name) != checkpoint.get(name)}
    if not changed:
        return ()
    levels = ", ".join(f"{name} {quoted(value)}" for name, value in changed.items())
    return (f"the noise levels are the motion adapter's ({levels}); --schedule checkpoint takes the checkpoint's",)
