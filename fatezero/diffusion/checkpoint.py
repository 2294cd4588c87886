"""Where a checkpoint's files are, and what they say without loading any weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from fatezero import shipped
from fatezero.config import ModelOptions, ScheduleOwner
from fatezero.diffusion.additions import NOTHING_ADDED, Additions, find_additions
from fatezero.diffusion.hub import fetch_file, fetch_folder, hub_name
from fatezero.diffusion.original_layout import SCALE
from fatezero.diffusion.single_file import adapter_of_file, check_format, checkpoint_of_file, vae_of_file
from fatezero.diffusion.vetting import (
    ADAPTER_STEM,
    PARTS,
    STEMS,
    read_config,
    vet_adapter,
    vet_checkpoint,
    vet_network,
)
from fatezero.diffusion.weight_sets import WeightsChoice
from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero.types import ClipSpec

MAX_SIDE = 1024  # of the latents that a UNet is trained on
CLIP = "{clip}"  # in a model's name: one model for each clip
RECOMMENDATIONS = "fatezero.json"  # in its folder: dotted field names of MethodConfig and their values
TEMPORAL = "temporal"  # folder of a tuned checkpoint's temporal layers
DEPTHS = ("*", "*/*", "*/*/*")  # of a checkpoint's files; unlike `rglob` these follow folders that are links


def checkpoint_folder(checkpoint: str, variant: str | None = None, prediction_type: str | None = None) -> Path:
    """Where a checkpoint's vetted files are: a folder as it is, "picturebook" as shipped, anything else from the hub.

    Args:
        checkpoint: a folder, a single file, "picturebook", or what the hub gives out.
        variant: of the weights, where a network has several.
        prediction_type: what the UNet of a single file predicts, where the file does not say it.

    Raises:
        UserError: if there is no such checkpoint, or its files say what no Stable Diffusion checkpoint says.
    """
    found = shipped.CHECKPOINT if checkpoint == "picturebook" else _found(checkpoint, "checkpoint", STEMS, variant)
    if found.is_file():
        found = checkpoint_of_file(found, prediction_type)
    elif prediction_type is not None:
        raise UserError(f"--prediction-type is for single files: {checkpoint} says itself what its UNet predicts.")
    if not (found / "model_index.json").is_file():
        raise UserError(f"{checkpoint} {_what_instead(found)}: give a folder in diffusers' Stable Diffusion layout.")
    vet_checkpoint(found, WeightsChoice(variant))
    return found


@dataclass(frozen=True)
class Checkpoint:
    """The files of a task's networks.

    Attributes:
        networks: as the user asked for them.
        folder: the checkpoint's files.
        adapter: the motion adapter's; None where there is none.
        vae: the autoencoder's, where it is not the checkpoint's own.
        additions: what is added to them.
    """

    networks: ModelOptions
    folder: Path
    adapter: Path | None = None
    vae: Path | None = None
    additions: Additions = NOTHING_ADDED

    @property
    def schedule_owner(self) -> ScheduleOwner:
        """Whose noise levels are used."""
        return self.networks.schedule or ("checkpoint" if self.adapter is None else "adapter")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of them, and of what was chosen among them."""
        files = checkpoint_digest(self.folder, self.adapter, self.vae)
        chosen = {"variant": self.networks.weights_variant, "schedule": self.networks.schedule}
        if self.schedule_owner == "adapter":
            chosen["schedule"] = "adapter"
        said = " ".join(f"{name} {value}" for name, value in chosen.items() if value not in (None, "checkpoint"))
        return self.additions.digest_with(hashlib.sha256(f"{files} {said}".encode()).hexdigest() if said else files)


def find_checkpoint(networks: ModelOptions) -> Checkpoint:
    """A checkpoint and what is added to it.

    Raises:
        UserError: if one is missing, or a motion adapter is added to what is a video model without.
    """
    variant = networks.weights_variant
    folder = checkpoint_folder(networks.model, variant, networks.prediction_type)
    adapter = adapter_folder(networks.motion_adapter, variant)
    if adapter is not None and is_video_model(folder):
        raise UserError(f"{networks.model} is a video model already: leave --motion-adapter out.")
    vae = vae_folder(networks.vae, folder, variant)
    return Checkpoint(networks, folder, adapter, vae, find_additions(networks))


def is_video_model(folder: Path) -> bool:
    """Whether a vetted checkpoint has layers along time already."""
    layout = vet_checkpoint(folder, WeightsChoice())
    return layout.animated or layout.classes["unet"] == "UNetMotionModel" or (folder / TEMPORAL).is_dir()


@cache
def folder_of_clip(networks: ModelOptions, clip: str) -> Checkpoint:
    """The model tuned on a clip, which may be missing; "{clip}" in its name is the clip's file name without suffix."""
    folder = networks.model.replace(CLIP, Path(clip).stem)
    own = replace(networks, model=folder)
    return Checkpoint(own, Path(folder).expanduser(), additions=find_additions(own))


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


def adapter_folder(adapter: str | None, variant: str | None = None) -> Path | None:
    """Where a motion adapter's vetted files are: a folder, "picturebook-motion" as shipped, anything else from the hub.

    Args:
        adapter: a folder, a file of AnimateDiff, "picturebook-motion", or what the hub gives out; None is no adapter.
        variant: of the weights, where there are several.

    Raises:
        UserError: if there is no such adapter, or its files say what no motion adapter says.
    """
    if adapter is None:
        return None
    stems = {"": ADAPTER_STEM}
    found = shipped.MOTION if adapter == "picturebook-motion" else _found(adapter, "motion adapter", stems, variant)
    if found.is_file():
        found = adapter_of_file(found)
    _check_network_folder(found, adapter, "MotionAdapter")
    vet_adapter(found, WeightsChoice(variant))
    return found


def vae_folder(vae: str | None, checkpoint: Path, variant: str | None = None) -> Path | None:
    """Where the vetted files of an autoencoder are that takes the place of a checkpoint's own.

    Args:
        vae: a folder, a file, or what the hub gives out; None keeps the checkpoint's.
        checkpoint: the folder whose UNet will see its latents.
        variant: of the weights, where there are several.

    Raises:
        UserError: if there is no such autoencoder, or its latents are not those of the checkpoint.
    """
    if vae is None:
        return None
    own = read_config(checkpoint / "vae" / "config.json")
    found = _found(vae, "autoencoder", {"": STEMS["vae"]}, variant)
    if found.is_file():
        found = vae_of_file(found, own.get("scaling_factor", SCALE))
    _check_network_folder(found, vae, "AutoencoderKL or AutoencoderTiny")
    config = vet_network(found, STEMS["vae"], PARTS["vae"][1], WeightsChoice(variant))
    channels, wanted = config.get("latent_channels", 4), own.get("latent_channels", 4)
    if channels != wanted:
        raise UserError(
            f"{vae} makes latents of {quoted(channels)} channels, the model is for {quoted(wanted)}: use an "
            "autoencoder of its family."
        )
    try:
        scale, wanted = pixels_per_latent(config), pixels_per_latent(own)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{found}/config.json does not say the autoencoder's levels ({error}): get it again."
        ) from error
    if scale != wanted:
        raise UserError(
            f"{vae} makes one latent of {scale} x {scale} pixels, the model's own of {wanted} x {wanted}: use an "
            "autoencoder of its family."
        )
    return found


def _what_instead(folder: Path) -> str:
    """What a folder is that is no checkpoint's."""
    config = folder / "config.json"
    named = read_config(config).get("_class_name") if config.is_file() else None
    return "has no model_index.json" if named is None else f"holds one network, of the class {quoted(named)}"


def _check_network_folder(folder: Path, asked: str, classes: str) -> None:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{asked} has no config.json with safetensors weights beside it: give a folder in the layout of "
            f"diffusers' {classes}."
        )


def checkpoint_digest(*folders: Path | None) -> str:
    """SHA-256 over the names and bytes of configurations and weights in a checkpoint's folders.

    What it recommends is not part of it: each result states the settings that it was made with.
    """
    digest = hashlib.sha256()
    for folder in filter(None, folders):
        for path in sorted(path for depth in DEPTHS for path in folder.glob(depth)):
            counted = path.suffix in {".json", ".txt", ".safetensors"} and path.name != RECOMMENDATIONS
            if counted and path.is_file():
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
    from fatezero.clips.video import probe  # noqa: PLC0415  (who brings frames needs no decoder)

    own = probe(replace(spec, height=None, width=None))
    if spec.height is not None:
        return replace(spec, width=max(round(own.width * spec.height / own.height / unit), 1) * unit)
    if spec.width is not None:
        return replace(spec, height=max(round(own.height * spec.width / own.width / unit), 1) * unit)
    height, width = fitting_size(own.height, own.width, native, unit)
    return replace(spec, height=height, width=width)


def _found(asked: str, what: str, stems: Mapping[str, str], variant: str | None) -> Path:
    """A folder or file of this machine as it is, anything else from the hub."""
    try:
        path = Path(asked).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # a name too long, a folder that may not be read, nobody's home
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"There is no {what} {quoted(asked)} ({reason}): check the path.") from error
    if is_folder:
        return path
    if is_file:
        check_format(path)
        return path
    name = hub_name(asked)
    if name is None:
        raise UserError(f"There is no {what} {asked}: give a folder or *.safetensors file, or a hub id owner/name.")
    if name.file is None:
        return fetch_folder(name, asked, stems.items(), variant)
    check_format(Path(name.file))
    return fetch_file(name, asked)
