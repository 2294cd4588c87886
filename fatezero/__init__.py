"""FateZero: text-driven video editing without training, on Stable Diffusion and diffusion transformers.

The names below are public and stable; each is imported when it is first asked for, so that this stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fatezero.config import BlendingConfig, FlowEditConfig, FusionConfig, MethodConfig, RuntimeConfig
    from fatezero.errors import UserError
    from fatezero.pipeline import FateZero
    from fatezero.results import EditResult, Inversion, Target
    from fatezero.types import Clip, ClipSpec

__version__ = "0.1.0"
__all__ = [
    "BlendingConfig",
    "Clip",
    "ClipSpec",
    "EditResult",
    "FateZero",
    "FlowEditConfig",
    "FusionConfig",
    "Inversion",
    "MethodConfig",
    "RuntimeConfig",
    "Target",
    "UserError",
]

_HOMES = {
    "fatezero.config": ("BlendingConfig", "FlowEditConfig", "FusionConfig", "MethodConfig", "RuntimeConfig"),
    "fatezero.errors": ("UserError",),
    "fatezero.pipeline": ("FateZero",),
    "fatezero.results": ("EditResult", "Inversion", "Target"),
    "fatezero.types": ("Clip", "ClipSpec"),
}


def __getattr__(name: str) -> Any:
    """A public name, imported from where it lives."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'fatezero' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is public."""
    return [*__all__, "__version__"]
