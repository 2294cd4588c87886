"""Networks of transformers that see a whole clip at once: their folders, and which frames they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fatezero.data.files import json_digest
from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero.types import Frames
from fatezero_eval.networks.transformers_folders import load_whole, model_type_of
from fatezero_eval.networks.weight_files import digest_of, identity_of

_SETTINGS = (".json", ".txt", ".model")  # suffixes of what says how frames and words are prepared


def evenly_spaced(frames: int, shown: int) -> list[int]:
    """Indices of the frames that a network is shown, from the first to the last; a shorter clip's frames repeat.

    Source: `sample_frame_indices` in transformers' documentation of X-CLIP, over the whole clip.

    Args:
        frames: how many the clip has.
        shown: how many the network reads.
    """
    return [min(frames - 1, place * frames // max(1, shown - 1)) for place in range(shown)]


def load_video_folder(folder: Path, network: Any, kinds: Sequence[str]) -> tuple[Any, Any, str]:
    """A network with its processor from a folder in transformers' layout; no code of the folder is run.

    Args:
        folder: with safetensors weights.
        network: one of transformers' Auto classes.
        kinds: which of transformers' model types may lie there.

    Returns:
        The network, its processor, and the folder's name with a digest of its weights and settings.

    Raises:
        UserError: there is no such network with all its weights in safetensors.
    """
    from transformers import AutoImageProcessor, AutoVideoProcessor  # noqa: PLC0415

    kind, known = model_type_of(folder), " or ".join(kinds)
    if kind not in kinds:
        raise UserError(f"{folder} is of the type {quoted(kind)}, and {known} is needed here: give such a folder.")
    name, _, weights = identity_of(folder, "model.safetensors").rpartition(":")
    settings = (path for path in sorted(folder.iterdir()) if path.suffix in _SETTINGS)
    identity = f"{name}:{json_digest([weights, *map(digest_of, settings)], 4)}"
    preparing = AutoImageProcessor if kind == "xclip" else AutoVideoProcessor  # X-CLIP's are prepared one by one
    model, prepares = load_whole(folder, f"network of the type {kind}", network, preparing)
    return model, prepares, identity


def pixels_of(processor: Any, frames: Frames) -> Tensor:
    """What a network is given of frames uint8 F,H,W,3: float 1,F,3,h,w."""
    found = processor(list(frames), return_tensors="pt")
    (pixels,) = (value for name, value in found.items() if name.startswith("pixel_values"))
    clip: Tensor = pixels.reshape(1, len(frames), *pixels.shape[-3:])
    return clip
