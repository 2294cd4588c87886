"""Where a checkpoint's files are, and what they say without loading any weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from fatezero import shipped
from fatezero.config import ModelOptions, ScheduleOwner, check_number
from fatezero.diffusion.additions import NOTHING_ADDED, Additions, find_additions
from fatezero.diffusion.hub import fetch_file, fetch_folder, hub_name
from fatezero.diffusion.layouts import ADAPTER_STEM, COGVIDEOX, FAMILY_OF, FLUX, STEMS, WAN, Family
from fatezero.diffusion.original_layout import SCALE
from fatezero.diffusion.single_file import adapter_of_file, check_format, checkpoint_of_file, vae_of_file
from fatezero.diffusion.vetting import read_config, read_object, vet_adapter, vet_checkpoint, vet_network
from fatezero.diffusion.weight_sets import WeightsChoice
from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero.types import ClipSpec

MAX_SIDE = 1024  # of the latents that a network is trained on
MAX_PSNR = 100.0  # dB; of equal pictures it is infinite
MAX_TRAINED = {"side": 8192, "frames": 4096}
FLUX_PATCH = 2  # latents in a row that diffusers' pipeline packs into a token
WAN_5B_SIDE, WAN_5B_PIXELS = 704, 16  # Wan 2.2 TI2V's model card; its autoencoder's pixels in a row for a latent
COGVIDEOX_15_SIDE = 768  # its model card; its configuration states 300 latents in a row, which it was not trained at
CLIP = "{clip}"  # in a model's name: one model for each clip
# In its folder: dotted field names of MethodConfig and their values; and what it was trained on.
RECOMMENDATIONS = "fatezero.json"
LEAST_PSNR = "least_psnr"  # in that file: at what its autoencoder gives back 99 of 100 pictures of its world, in dB
TRAINED_ON = "trained_on"  # in that file: "side", the short side of frames in pixels, and "frames", the clips' length
TEMPORAL = "temporal"  # folder of a tuned checkpoint's temporal layers
DEPTHS = ("*", "*/*", "*/*/*")  # of a checkpoint's files; unlike `rglob` these follow folders that are links


def checkpoint_folder(checkpoint: str, variant: str | None = None, prediction_type: str | None = None) -> Path:
    """Where a checkpoint's vetted files are: a folder as it is, shipped ones by name, anything else from the hub.

    Args:
        checkpoint: a folder, a single file, "picturebook", "picturebook-video", or what the hub gives out.
        variant: of the weights, where a network has several.
        prediction_type: what the UNet of a single file predicts, where the file does not say it.

    Raises:
        UserError: if there is no such checkpoint, or its files say what no checkpoint of a known family says.
    """
    found = shipped.MODELS.get(checkpoint) or _found(checkpoint, "checkpoint", STEMS, variant)
    if found.is_file():
        found = checkpoint_of_file(found, prediction_type)
    elif prediction_type is not None:
        raise UserError(f"--prediction-type is for single files: {checkpoint} says itself what its UNet predicts.")
    if not (found / "model_index.json").is_file():
        raise UserError(f"{checkpoint} {_what_instead(found)}: give a checkpoint's folder in diffusers' layout.")
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
        UserError: if one is missing, or is added to what it does not go with.
    """
    variant = networks.weights_variant
    folder = checkpoint_folder(networks.model, variant, networks.prediction_type)
    _refuse_additions(networks, family_in(folder))
    adapter = adapter_folder(networks.motion_adapter, variant)
    if adapter is not None and is_video_model(folder):
        raise UserError(f"{networks.model} is a video model already: leave --motion-adapter out.")
    vae = vae_folder(networks.vae, folder, variant)
    return Checkpoint(networks, folder, adapter, vae, find_additions(networks))


def _refuse_additions(networks: ModelOptions, family: Family) -> None:
    """All but LoRA are made for Stable Diffusion's UNets and its text encoders."""
    given = {
        **{"--motion-adapter": networks.motion_adapter, "--embedding": networks.embedding},
        "--clip-skip": networks.clip_skip,
    }
    asked = [option for option, value in given.items() if value]
    if asked and family.denoiser != "unet":
        raise UserError(
            f"{networks.model} is a transformer, of {family.name}: {' and '.join(asked)} can be added to UNets only; "
            "leave it out."
        )


def family_in(folder: Path) -> Family:
    """The family of a checkpoint, by the pipeline that it names.

    Raises:
        UserError: if it names none that is known.
    """
    named = read_config(folder / "model_index.json").get("_class_name")
    if not isinstance(named, str) or named not in FAMILY_OF:
        raise UserError(f"{folder}/model_index.json is of the class {quoted(named)}, which is not known.")
    return FAMILY_OF[named]


def is_video_model(folder: Path) -> bool:
    """Whether a vetted checkpoint of a UNet has layers along time already."""
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
        vae: a folder, a file (of a UNet's), or what the hub gives out; None keeps the checkpoint's.
        checkpoint: the folder whose UNet or transformer will see its latents.
        variant: of the weights, where there are several.

    Raises:
        UserError: if there is no such autoencoder, or its latents are not those of the checkpoint.
    """
    if vae is None:
        return None
    family = family_in(checkpoint)
    own, classes = read_config(checkpoint / "vae" / "config.json"), family.parts["vae"][1]
    found = _found(vae, "autoencoder", {"": STEMS["vae"]}, variant)
    if found.is_file() and family.denoiser == "unet":
        found = vae_of_file(found, own.get("scaling_factor", SCALE))
    _check_network_folder(found, vae, " or ".join(classes))
    _check_latents(vet_network(found, STEMS["vae"], classes, WeightsChoice(variant)), own, vae, found)
    return found


def _check_latents(config: Mapping[str, Any], own: Mapping[str, Any], vae: str, found: Path) -> None:
    """Refuse an autoencoder whose latents are not those of the checkpoint's own."""
    channels, wanted = latent_channels(config), latent_channels(own)
    if channels != wanted:
        raise UserError(
            f"{vae} makes latents of {quoted(channels)} channels, the model is for {quoted(wanted)}: use an "
            "autoencoder of its family."
        )
    try:
        size, wanted = _latent_size(config), _latent_size(own)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{found}/config.json does not say the autoencoder's levels ({error}): get it again."
        ) from error
    if size != wanted:
        raise UserError(
            f"{vae} makes one latent of {size}, the model's own of {wanted}: use an autoencoder of its family."
        )


def _latent_size(vae_config: Mapping[str, Any]) -> str:
    scale, length = pixels_per_latent(vae_config), frames_per_latent(vae_config)
    return f"{scale} x {scale} pixels" + (f" in {length} frames" if length > 1 else "")


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
            counted = path.suffix in {".json", ".txt", ".model", ".safetensors"} and path.name != RECOMMENDATIONS
            if counted and path.is_file():
                digest.update(path.relative_to(folder).as_posix().encode())
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def latent_channels(vae_config: Mapping[str, Any]) -> Any:
    """Channels of an autoencoder's latents, from its configuration."""
    return vae_config.get("z_dim", vae_config.get("latent_channels", 4))


def pixels_per_latent(vae_config: Any) -> int:
    """Downsampling of an autoencoder in space, from its configuration."""
    if "spatio_temporal_scaling" in vae_config:  # LTX-Video's, where a ratio may be left open
        steps = 2 ** sum(vae_config["spatio_temporal_scaling"])
        return int(vae_config.get("spatial_compression_ratio") or vae_config["patch_size"] * steps)
    for name in ("scale_factor_spatial", "spatial_compression_ratio"):
        if name in vae_config:
            return int(vae_config[name])
    blocks = vae_config.get("block_out_channels") or vae_config["encoder_block_out_channels"]
    return int(2 ** (len(blocks) - 1))


def frames_per_latent(vae_config: Any) -> int:
    """Downsampling of an autoencoder in time, from its configuration: latent 0 is frame 0, each other this many."""
    if "spatio_temporal_scaling" in vae_config:
        steps = 2 ** sum(vae_config["spatio_temporal_scaling"])
        return int(vae_config.get("temporal_compression_ratio") or vae_config["patch_size_t"] * steps)
    return int(vae_config.get("scale_factor_temporal") or vae_config.get("temporal_compression_ratio") or 1)


def trained_on(folder: Path) -> dict[str, int]:
    """What a checkpoint's `fatezero.json` says it was trained on: "side" in pixels, "frames"; {} where it does not.

    Raises:
        UserError: if it says something else.
    """
    path = folder / RECOMMENDATIONS
    stated = read_object(path).get(TRAINED_ON, {}) if path.exists() else {}
    known = isinstance(stated, dict) and stated.keys() <= MAX_TRAINED.keys()
    if not known or not all(type(value) is int and 0 < value <= MAX_TRAINED[name] for name, value in stated.items()):
        raise UserError(
            f'{path}: {TRAINED_ON} is {quoted(stated)}: it says "side" in pixels and "frames", as '
            '{"side": 128, "frames": 17}.'
        )
    return dict(stated)


def least_psnr(folder: Path) -> float | None:
    """How well a checkpoint's `fatezero.json` says its autoencoder gives back what it was trained on, in dB.

    Returns:
        What 99 of 100 such pictures exceed; None where it does not say.

    Raises:
        UserError: if it says something else.
    """
    path = folder / RECOMMENDATIONS
    stated = read_object(path).get(LEAST_PSNR) if path.exists() else None
    check_number(f"{path}: {LEAST_PSNR}", stated, 0, MAX_PSNR)
    return None if stated is None else float(stated)


def native_size(folder: Path) -> tuple[int, int]:
    """The short side that a checkpoint was trained on, and the unit that frame sizes are best multiples of.

    Raises:
        UserError: if the checkpoint's configurations cannot be read.
    """
    family = family_in(folder)
    denoiser, vae = (read_config(folder / part / "config.json") for part in (family.denoiser, "vae"))
    try:
        scale = pixels_per_latent(vae)
        side, unit = (_unet_size if family.denoiser == "unet" else _transformer_size)(denoiser, family, scale, folder)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{folder}: {family.denoiser}/config.json and vae/config.json do not say their levels ({error})."
        ) from error
    return trained_on(folder).get("side", side), unit


def native_frames(folder: Path) -> tuple[int, int]:
    """Frames of the clips that a checkpoint was trained on, and the unit n of its clips' lengths, nk + 1.

    1 and 1 for an image model. CogVideoX's autoencoder decodes an odd number of latents only, in version 1.5 of those
    that its transformer joins two by two in time.

    Raises:
        UserError: if the checkpoint's configurations cannot be read.
    """
    family = family_in(folder)
    denoiser, vae = (read_config(folder / part / "config.json") for part in (family.denoiser, "vae"))
    stated = denoiser.get("sample_frames", family.frames)
    if type(stated) is not int or not 0 < stated <= MAX_TRAINED["frames"]:
        raise UserError(f"{folder}/{family.denoiser}/config.json: sample_frames is {quoted(stated)}: it is a number.")
    try:
        joined = 2 * int(denoiser.get("patch_size_t") or 1) if family is COGVIDEOX else 1
        return trained_on(folder).get("frames", stated), frames_per_latent(vae) * joined
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}/vae/config.json does not say the autoencoder's levels ({error}).") from error


def _unet_size(unet: Mapping[str, Any], family: Family, scale: int, folder: Path) -> tuple[int, int]:
    sample = unet.get("sample_size")
    sides = sample if isinstance(sample, list) and len(sample) == 2 else [sample]
    return _latent_side(sides, f"{folder}/{family.denoiser}/config.json: sample_size") * scale, scale * 2 ** (
        len(unet["down_block_types"]) - 1
    )


def _transformer_size(config: Mapping[str, Any], family: Family, scale: int, folder: Path) -> tuple[int, int]:
    """CogVideoX 1.0 and Stable Diffusion 3 state the size of their latents; others are known by their pipeline."""
    patch = config["patch_size"]
    patch = FLUX_PATCH if family is FLUX else patch[1] if isinstance(patch, list) else patch
    stated = [config[name] for name in ("sample_size", "sample_height", "sample_width") if name in config]
    if config.get("patch_size_t") and family is COGVIDEOX:
        side = COGVIDEOX_15_SIDE
    elif stated:
        side = _latent_side(stated, f"{folder}/transformer/config.json: sample_size") * scale
    else:
        side = WAN_5B_SIDE if family is WAN and scale == WAN_5B_PIXELS else family.side
    return side, scale * int(patch)


def _latent_side(sides: Sequence[Any], where: str) -> int:
    if not all(type(side) is int and 0 < side <= MAX_SIDE for side in sides):
        raise UserError(
            f"{where} is {quoted(sides)}: it is the side of the latents, 64 for frames of 512 x 512; get the "
            "checkpoint again."
        )
    return int(min(sides))


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
