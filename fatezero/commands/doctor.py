"""`fatezero doctor`: what this machine can run, and why not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from fatezero import shipped
from fatezero.config import GB, ModelOptions
from fatezero.errors import UserError
from fatezero.system.importing import importing
from fatezero.system.terminal import say

Finding = tuple[bool, str]  # whether it works, one line


def doctor(model: str | None = None, networks: ModelOptions = ModelOptions()) -> int:  # noqa: B008  (frozen)
    """Say what works and what does not, on this machine or in a checkpoint, whose weights are not read.

    Examples:
        fatezero doctor
        fatezero doctor stable-diffusion-v1-5/stable-diffusion-v1-5

    Args:
        model: a checkpoint, as for `fatezero edit --model`; the machine is looked at where none is named.
        networks: what is loaded with it.

    Returns:
        0 if the default, or the checkpoint, can run.

    Raises:
        UserError: for options of no checkpoint.
    """
    if model is not None:
        from fatezero.diffusion.description import describe

        return 0 if _print_findings("checkpoint", describe(replace(networks, model=model))) else 1
    if networks != ModelOptions():
        raise UserError("These options are of a checkpoint, and none is named: write fatezero doctor MODEL, then them.")
    return _machine()


def _machine() -> int:
    with importing():
        from fatezero_eval.options import PICTUREBOOK_CLIP, ScoringOptions
        from fatezero_eval.scoring.checks import runnable_metrics

    sound = True
    for title, look in CHECKS.items():
        sound &= _print_findings(title, look()) or title not in ESSENTIAL
    found = runnable_metrics(ScoringOptions(judge=shipped.judge_location(PICTUREBOOK_CLIP)))
    _print_findings("metrics", ((works, f"{name}{'' if works else ': ' + remedy}") for name, works, remedy in found))
    return 0 if sound else 1


def _print_findings(title: str, findings: Iterable[Finding]) -> bool:
    say(title)
    sound = True
    for works, line in findings:
        say(f"  {'ok ' if works else 'no '} {line}")
        sound &= works
    return sound


def _devices() -> Iterator[Finding]:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    yield (
        True,
        f"cpu: {os.cpu_count()} cores, {memory.total / GB:.1f} GB memory, {memory.available / GB:.1f} GB free"
        f"{_bfloat16()}",
    )
    for index in range(torch.cuda.device_count()):
        yield (
            True,
            f"cuda:{index}: {torch.cuda.get_device_name(index)}, {torch.cuda.mem_get_info(index)[1] / GB:.1f} GB",
        )
    if not torch.cuda.is_available():
        yield False, "cuda: no usable NVIDIA device or driver (the CPU is used)"
    if torch.backends.mps.is_available():
        yield True, "mps"


def _bfloat16() -> str:
    import torch

    from fatezero.diffusion.number_formats import cpu_multiplies_in

    return ", multiplies in bfloat16 (--dtype bfloat16 is faster)" if cpu_multiplies_in(torch.bfloat16) else ""


def _packages() -> Iterator[Finding]:
    for package in (
        "torch",
        "diffusers",
        "transformers",
        "lightning",
        "open_clip_torch",
        "torchmetrics",
        "wandb",
    ):
        try:
            yield True, f"{package} {version(package)}"
        except PackageNotFoundError:
            yield False, f"{package}: not installed; pip install {package.replace('_', '-')}"
    yield _torchvision()


def _torchvision() -> Finding:
    """Whether it loads, which one built for another torch does not; tried in a process of its own, as imports stay."""
    tried = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return True, f"torchvision {version('torchvision')}"
    reason = tried.stderr.strip().rpartition("\n")[2]
    return False, f"torchvision: does not load ({reason}); install torch and it in one command, so that they fit"


def _decoders() -> Iterator[Finding]:
    if find_spec("decord") is None:
        yield False, "decord: has no wheel for this platform; PyAV decodes in its place"
    else:
        yield True, f"decord {version('decord')}: decodes mp4 and the like"
    yield True, f"av {version('av')}: decodes the rest, encodes H.264"


def _checkpoints() -> Iterator[Finding]:
    from fatezero.diffusion.checkpoint import checkpoint_folder, native_size

    for name in shipped.MODELS:
        try:
            side, _ = native_size(checkpoint_folder(name))
            yield True, f"{name}, shipped: {side} x {side} pixels"
        except UserError as error:
            yield False, f"{name}: {error}"


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "devices": _devices,
    "packages": _packages,
    "decoders": _decoders,
    "checkpoints": _checkpoints,
}
ESSENTIAL = ("packages", "checkpoints")
