"""What a scheduler's configuration may say: what DDIM takes as diffusers does, and what it has no way to honour.

Light: importing this needs no torch. Other fields (Karras, exponential and beta sigmas, solver orders, LCM's original
steps) say how another sampler places and takes its steps; DDIM places its own, as diffusers' DDIMScheduler does when
it is made from such a configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fatezero.errors import UserError
from fatezero.system.terminal import quoted

SCHEDULER_FILE = Path("scheduler", "scheduler_config.json")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("leading", "trailing", "linspace")
TRAINED_LEVELS = 1000  # where a configuration does not say how many
# Of schedulers that carry data to noise along straight lines, and of no other.
FLOW_FIELDS = ("shift", "base_shift", "max_shift", "use_flow_sigmas", "use_dynamic_shifting")
MAX_SHIFT = 100  # of a flow's noise levels; 1 to 17 in models that are in use
MAX_TOKENS = 10_000
# By field of a schedule whose shift grows with the number of tokens, diffusers' default.
DYNAMIC_SHIFT = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
# Of a flow, and why it is refused.
UNDONE_BY_NO_INVERSION = {
    "stochastic_sampling": "it adds noise at each step, which no inversion undoes",
    "invert_sigmas": "it counts noise levels from clean to noisy",
    "thresholding": "it pulls in what the network predicts, which no inversion undoes",
    **dict.fromkeys(
        ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), "a flow's steps are placed by its shift"
    ),
}


def vet_schedule(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a configuration of noise levels or steps that DDIM does not reproduce.

    Args:
        config: of a scheduler.
        path: its file, named in errors.

    Raises:
        UserError: naming the field and what it says.
    """
    check_no_flow(config, path)
    if config.get("thresholding"):
        _refuse(config, "thresholding", path, "it pulls in what the network predicts, which no inversion undoes")
    if config.get("timestep_type") == "continuous":
        _refuse(config, "timestep_type", path, "the network is told noise levels in place of timesteps")
    if str(config.get("variance_type")).startswith("learned"):
        _refuse(config, "variance_type", path, "the network predicts variances too, which DDIM has no use for")
    if config.get("timestep_spacing", "leading") not in SPACINGS:
        _refuse(config, "timestep_spacing", path, f"it is {' or '.join(SPACINGS)}")
    betas, levels = config.get("trained_betas"), config.get("num_train_timesteps", TRAINED_LEVELS)
    if isinstance(betas, list) and len(betas) != levels:
        raise UserError(
            f"{path}: trained_betas are {len(betas)}, num_train_timesteps is {quoted(levels)}: they are as many; mend "
            "the file."
        )
    scale = config.get("snr_shift_scale", 1.0)  # CogVideoX's
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale <= MAX_SHIFT:
        _refuse(config, "snr_shift_scale", path, "it is a number above 0, 1 or 3 in CogVideoX")
    if betas is None and config.get("beta_schedule", "linear") not in BETA_SCHEDULES:
        _refuse(config, "beta_schedule", path, f"DDIM knows {', '.join(BETA_SCHEDULES)}, and trained_betas")


def vet_flow(config: Mapping[str, Any], path: Path) -> None:
    """Refuse the configuration of a flow whose steps are not undone, or that is none.

    Args:
        config: of a FlowMatchEulerDiscreteScheduler, or of a UniPCMultistepScheduler for flows.
        path: its file, named in errors.

    Raises:
        UserError: naming the field and what it says.
    """
    unipc = config.get("_class_name") == "UniPCMultistepScheduler"
    if unipc and config.get("prediction_type") != "flow_prediction":
        _refuse(config, "prediction_type", path, "this model predicts a flow, flow_prediction")
    if unipc and config.get("use_flow_sigmas") is not True:
        _refuse(config, "use_flow_sigmas", path, "the noise levels of a flow need it to be true")
    for name, reason in UNDONE_BY_NO_INVERSION.items():
        if config.get(name):
            _refuse(config, name, path, reason)
    for name in ("shift", "flow_shift"):
        value = config.get(name, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_SHIFT:
            _refuse(config, name, path, f"it is a number above 0 and of at most {MAX_SHIFT}, 3 or 5 in most models")
    if config.get("use_dynamic_shifting"):
        _vet_dynamic_shift(config, path)
    terminal = config.get("shift_terminal")
    if terminal is not None and (not isinstance(terminal, float) or not 0 < terminal < 1):
        _refuse(config, "shift_terminal", path, "it is the last noise level, between 0 and 1, or null")
    if config.get("time_shift_type", "exponential") not in ("exponential", "linear"):
        _refuse(config, "time_shift_type", path, "it is exponential or linear")


def _vet_dynamic_shift(config: Mapping[str, Any], path: Path) -> None:
    """A shift that grows with the number of tokens, between two points."""
    for name, default in DYNAMIC_SHIFT.items():
        value = config.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TOKENS:
            _refuse(config, name, path, f"it is a number of at most {MAX_TOKENS}")
    least, most = (config.get(name, DYNAMIC_SHIFT[name]) for name in ("base_image_seq_len", "max_image_seq_len"))
    if least >= most:
        _refuse(config, "base_image_seq_len", path, f"it is below max_image_seq_len, which is {most}")


def check_no_flow(config: Mapping[str, Any], path: Path) -> None:
    """Refuse the configuration of a model that predicts a flow.

    Raises:
        UserError: naming the field that says so.
    """
    if str(config.get("_class_name")).startswith("FlowMatch"):
        _refuse_flow(config, "_class_name", path)
    if config.get("prediction_type") == "flow_prediction":
        _refuse_flow(config, "prediction_type", path)
    for name in FLOW_FIELDS:
        if config.get(name):
            _refuse_flow(config, name, path)


def _refuse_flow(config: Mapping[str, Any], name: str, path: Path) -> None:
    _refuse(config, name, path, "this is flow matching, a UNet of Stable Diffusion predicts noise or v")


def _refuse(config: Mapping[str, Any], name: str, path: Path, reason: str) -> None:
    raise UserError(f"{path}: {name} is {quoted(config.get(name))}: {reason}; use a checkpoint with another schedule.")
