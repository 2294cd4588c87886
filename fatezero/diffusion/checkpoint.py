"""Where a checkpoint's files are, and what they say without loading any weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from fatezero import shipped
from fatezero.clips.video import probe
from fatezero.diffusion.vetting import read_config, vet_adapter, vet_checkpoint
from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero.types import ClipSpec

MAX_SIDE = 1024  # of the latents that a UNet is trained on
CLIP = "{clip}"  # in a model's name: one model for each clip
TEMPORAL = "temporal"  # folder of a tuned checkpoint's temporal layers


def checkpoint_folder(checkpoint: str) -> Path:
    """Where a checkpoint's vetted files are: a folder as it is, "picturebook" as shipped, anything else from the hub.

    Raises:
        UserError: if there is no such checkpoint, or its files say what no Stable Diffusion checkpoint says.
    """
    folder = shipped.CHECKPOINT if checkpoint == "picturebook" else Path(checkpoint).expanduser()
    if not folder.is_dir():
        folder = _download(checkpoint)
    if not (folder / "model_index.json").is_file():
        raise UserError(f"{checkpoint} has no model_index.json: give a folder in diffusers' Stable Diffusion layout.")
    vet_checkpoint(folder)
    return folder


@dataclass(frozen=True)
class Checkpoint:
    """The files of a task's networks.

    Attributes:
        name: what the user called the checkpoint.
        folder: its files.
        motion_adapter: what the user called the adapter; None where there is none.
        adapter: its files.
    """

    name: str
    folder: Path
    motion_adapter: str | None = None
    adapter: Path | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of them."""
        return checkpoint_digest(self.folder, self.adapter)


def find_checkpoint(name: str, motion_adapter: str | None = None) -> Checkpoint:
    """A checkpoint and its motion adapter, by the names that `Backbone.load` takes.

    Raises:
        UserError: if one is missing.
    """
    return Checkpoint(name, checkpoint_folder(name), motion_adapter, adapter_folder(motion_adapter))


@cache
def folder_of_clip(model: str, clip: str) -> Checkpoint:
    """The model tuned on a clip, which may be missing; "{clip}" in `model` is the clip's file name without suffix."""
    folder = model.replace(CLIP, Path(clip).stem)
    return Checkpoint(folder, Path(folder).expanduser())


def example_of(model: str) -> str:
    """A model as it is named, or the first folder there is of those that hold "{clip}" in their name.

    Raises:
        UserError: if there is none.
    """
    if CLIP not in model:
        return model
    pattern = Path(model.replace(CLIP, "*")).expanduser()
    found = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    if not found:
        raise UserError(f"There is no folder {model} for any clip; `fatezero tune --manifest` makes them.")
    return str(found[0])


def adapter_folder(adapter: str | None) -> Path | None:
    """Where a motion adapter's vetted files are: a folder, "picturebook-motion" as shipped, anything else from the hub.

    Raises:
        UserError: if there is no such adapter, or its files say what no motion adapter says.
    """
    if adapter is None:
        return None
    folder = shipped.MOTION if adapter == "picturebook-motion" else Path(adapter).expanduser()
    if not folder.is_dir():
        folder = _download_adapter(adapter)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{adapter} has no config.json with safetensors weights beside it: give a folder in the layout of "
            "diffusers' MotionAdapter."
        )
    vet_adapter(folder)
    return folder


def checkpoint_digest(*folders: Path | None) -> str:
    """SHA-256 over the names and bytes of configurations and weights in a checkpoint's folders."""
    digest = hashlib.sha256()
    for folder in filter(None, folders):
        for path in sorted(folder.rglob("*")):
            if path.suffix in {".json", ".txt", ".safetensors"} and path.is_file():
                digest.update(path.relative_to(folder).as_posix().encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def pixels_per_latent(vae_config: Any) -> int:
    """Downsampling of an autoencoder, from its configuration."""
    blocks = vae_config.get("block_out_channels") or vae_config["encoder_block_out_channels"]
    return int(2 ** (len(blocks) - 1))


def native_size(folder: Path) -> tuple[int, int]:
    """The side of the square that a checkpoint was trained on, and the unit that frame sizes are best multiples of.

    Raises:
        UserError: if the checkpoint's configurations cannot be read.
    """
    unet, vae = (read_config(folder / part / "config.json") for part in ("unet", "vae"))
    sample = unet.get("sample_size")
    sides = sample if isinstance(sample, list) and len(sample) == 2 else [sample]
    if not all(type(side) is int and 0 < side <= MAX_SIDE for side in sides):
        raise UserError(
            f"{folder}/unet/config.json: sample_size is {quoted(sample)}: it is the side of the latents, 64 for frames "
            "of 512 x 512; get the checkpoint again."
        )
    try:
        scale = pixels_per_latent(vae)
        return min(sides) * scale, scale * 2 ** (len(unet["down_block_types"]) - 1)
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder}: unet/config.json and vae/config.json do not say their levels ({error}).") from error


def fitting_size(height: int, width: int, native: int, unit: int) -> tuple[int, int]:
    """The size nearest a clip's shape whose short side is the checkpoint's own, in multiples of the unit."""
    scale = native / min(height, width)
    return max(round(height * scale / unit), 1) * unit, max(round(width * scale / unit), 1) * unit


def sized(spec: ClipSpec, native: int, unit: int) -> ClipSpec:
    """The clip at a checkpoint's own scale, where the request leaves the size open; one side given decides the other.

    Raises:
        UserError: if the clip cannot be read.
    """
    if spec.height is not None and spec.width is not None:
        return spec
    own = probe(replace(spec, height=None, width=None))
    if spec.height is not None:
        return replace(spec, width=max(round(own.width * spec.height / own.height / unit), 1) * unit)
    if spec.width is not None:
        return replace(spec, height=max(round(own.height * spec.width / own.width / unit), 1) * unit)
    height, width = fitting_size(own.height, own.width, native, unit)
    return replace(spec, height=height, width=width)


def _download_adapter(adapter: str) -> Path:
    if not _may_be_on_hub(adapter):
        raise UserError(
            f"There is no motion adapter {adapter}: give a folder, a hub id owner/name, or 'picturebook-motion'."
        )
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (slow to import)

    try:
        return Path(snapshot_download(adapter, allow_patterns=["config.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{adapter} is neither a folder here nor a motion adapter that the hub gives out: check the spelling and "
            "the network, or give a folder."
        ) from error


def _may_be_on_hub(name: str) -> bool:
    return not name.startswith((".", "/", "~")) and name.count("/") == 1


def _download(checkpoint: str) -> Path:
    if not _may_be_on_hub(checkpoint):
        raise UserError(
            f"There is no checkpoint folder {checkpoint}: give a folder, a hub id owner/name, or 'picturebook'."
        )
    from diffusers import DiffusionPipeline  # noqa: PLC0415  (seconds to import)

    try:
        return Path(DiffusionPipeline.download(checkpoint, use_safetensors=True))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{checkpoint} is neither a folder here nor a checkpoint with safetensors weights that the hub gives out: "
            "check the spelling and the network, or give a folder."
        ) from error
