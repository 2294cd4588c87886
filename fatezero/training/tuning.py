"""One tuning, from a clip to a checkpoint: what is read, recorded, trained and written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fatezero.attention.temporal import inflate
from fatezero.clips.images import IMAGE_SUFFIXES
from fatezero.clips.video import read_clip
from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.data.files import content_digest
from fatezero.data.remote import open_input
from fatezero.diffusion.additions import LORA
from fatezero.diffusion.backbone import Backbone
from fatezero.diffusion.checkpoint import RECOMMENDATIONS, Checkpoint, family_in, find_checkpoint, native_size, sized
from fatezero.diffusion.components import autoencoder_class
from fatezero.diffusion.model_families.transformer_loading import load_transformer
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.recommendations import recommendations, recommended_method
from fatezero.diffusion.temporal_weights import save_inflated
from fatezero.diffusion.vetting import read_object
from fatezero.errors import UserError, first_line
from fatezero.lightning.quiet import silence_lightning
from fatezero.system.publishing import replace_text, replacing
from fatezero.training.clip_tuning import fit
from fatezero.training.lora_tuning import LoraTuning, add_adapters, check_peft, save_adapters
from fatezero.training.tune_a_video import Tuning
from fatezero.training.tuning_config import LORA_RANK, TuningConfig
from fatezero.types import Clip, ClipSpec, Frames

RECORD = "tune.json"
MODEL, UNET = "model", "unet"  # folders: of the tuned checkpoint, and in it
# Between a tuning and its resumption; the clip is compared by its content.
MAY_CHANGE = (
    *("clip", "out", "steps", "sample_prompts", "sample_every", "checkpoint_every", "wandb", "device"),
    "threads",
)


def tune_one(options: TuningConfig, networks: ModelOptions) -> Path:
    """Tune a checkpoint on one clip; a tuning that was stopped goes on where its last checkpoint was made.

    Args:
        options: on what, and how.
        networks: the image model or video transformer to start from. Its autoencoder becomes the tuned one's own.

    Returns:
        The tuned checkpoint's folder.

    Raises:
        UserError: for a UNet of videos, a tuned transformer, one of images or no flow, a model that is changed by LoRA,
            a clip of one frame, a folder that holds another tuning, a loss that is not a number, and where the memory
            does not suffice.
    """
    try:
        return _tune(options, networks)
    except OSError as error:
        raise UserError(
            f"{options.out}: the tuning cannot read or write what it needs ({first_line(error)}); mend that, or name "
            "another --out."
        ) from error


def _tune(options: TuningConfig, networks: ModelOptions) -> Path:
    _check_nothing_added(networks)
    silence_lightning()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    found = find_checkpoint(networks)
    of_unet = family_in(found.folder).denoiser == "unet"
    settled = options.for_unet() if of_unet else options.for_transformer()
    clip = _read(replace(options.spec, path=str(open_input(options.spec.path))), found.folder)
    return (_tune_unet if of_unet else _tune_transformer)(settled, found, clip.frames)


def _tune_unet(options: TuningConfig, found: Checkpoint, frames: Frames) -> Path:
    method = _method(options, found.folder)
    _record(options, found)
    backbone = UNetBackbone.of_checkpoint(found, RuntimeConfig(device=options.device, dtype="float32"))
    if backbone.ties_frames:
        raise UserError(f"{backbone.name} is a video model already: tune the image model it was made from.")
    if backbone.embeds_guidance:
        raise UserError(f"{backbone.name} was distilled with its guidance: tune the model it was distilled from.")
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        inflate(backbone.unet, options.rank)
    backbone = replace(backbone)  # whose sites include the new layers
    images = _class_latents(options, backbone, frames.shape[1:3])
    module = Tuning(options, backbone, method, frames, backbone.encode_clip(frames), images)
    fit(module)
    return _save(module, options, found, method)


def _tune_transformer(options: TuningConfig, found: Checkpoint, frames: Frames) -> Path:
    family = family_in(found.folder)
    if not family.flow or family.frames == 1:
        raise UserError(
            f"{found.networks.model} is of {family.name}: a LoRA of a clip is tuned on video transformers of flow "
            "matching, such as Wan's."
        )
    check_peft()
    backbone = load_transformer(found, RuntimeConfig(device=options.device, dtype="float32"))
    if (found.folder / LORA).is_dir():
        raise UserError(f"{backbone.name} is tuned already: tune the model it was made from.")
    if backbone.embeds_guidance:
        raise UserError(f"{backbone.name} was distilled with its guidance: tune the model it was distilled from.")
    if len(frames) > backbone.trained_frames:
        raise UserError(
            f"The clip has {len(frames)} frames, {backbone.name} was trained on {backbone.trained_frames}: set "
            "--frames to as many."
        )
    latents = backbone.encode_clip(frames)
    _record(options, found)  # now that the clip is known to fit
    add_adapters(backbone.networks.transformers, options.lora_rank or LORA_RANK, options.seed)
    images = _class_latents(options, backbone, frames.shape[1:3])
    module = LoraTuning(options, backbone, recommended_method(found.folder), frames, latents, images)
    fit(module)
    with _copied(options, found) as made:
        save_adapters(backbone.networks.transformers, made)
    return options.out / MODEL


def _check_nothing_added(networks: ModelOptions) -> None:
    """Refuse what is added to a tuned model rather than tuned with it."""
    for option, value in {"--lora": networks.lora, "--motion-adapter": networks.motion_adapter}.items():
        if value:
            raise UserError(f"{option} is not for tuning, which changes the model's own weights alone: leave it out.")


def _read(spec: ClipSpec, folder: Path) -> Clip:
    native, unit = native_size(folder)
    clip = read_clip(sized(spec, native, unit))
    if len(clip.frames) < 2:
        raise UserError(f"{spec.path} gives one frame: motion is learnt from at least 2; set --start or --frames.")
    return clip


def _method(options: TuningConfig, folder: Path) -> MethodConfig:
    method = recommended_method(folder)
    asked = {"key_frames": options.key_frames, "norm_scope": options.norm_scope}
    return replace(method, **{name: value for name, value in asked.items() if value is not None})  # type: ignore[arg-type]


def _record(options: TuningConfig, found: Checkpoint) -> None:
    """Write down what is tuned on what. Raises UserError if the folder holds another tuning."""
    settings = {name: value for name, value in asdict(options).items() if name not in MAY_CHANGE}
    inputs = {"checkpoint": found.digest, "content": content_digest(open_input(options.spec.path))}
    asked = json.loads(json.dumps({**settings, **inputs}))
    path = options.out / RECORD
    if path.exists():
        before = read_object(path)
        others = [name for name in asked if before.get(name) != asked[name]]
        if others:
            raise UserError(
                f"{options.out} holds a tuning with another {', '.join(others)}: name another --out, or take it away."
            )
    replace_text(path, json.dumps(asked, indent=1) + "\n")


def _class_latents(options: TuningConfig, backbone: Backbone, size: tuple[int, int]) -> Tensor | None:
    if options.class_images is None:
        return None
    folder = open_input(options.class_images)
    if not folder.is_dir():
        raise UserError(f"--class-images: {folder} is not a folder of images.")
    height, width = size
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise UserError(f"--class-images: {folder} holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    images = [read_clip(ClipSpec(path=str(file), height=height, width=width)).frames for file in files]
    return torch.cat([backbone.encode_clip(image) for image in images])


def _save(module: Tuning, options: TuningConfig, found: Checkpoint, method: MethodConfig) -> Path:
    with _copied(options, found, UNET) as made:
        save_inflated(module.unet, options.rank, made)
        tuned = {"key_frames": list(method.key_frames), "norm_scope": method.norm_scope}
        written = json.dumps({**recommendations(found.folder), **tuned}, indent=2) + "\n"
        (made / RECOMMENDATIONS).write_text(written, encoding="utf-8")
    return options.out / MODEL


@contextmanager
def _copied(options: TuningConfig, found: Checkpoint, *left_out: str) -> Iterator[Path]:
    """A copy of the checkpoint, in its place once the context ends, whole or not at all.

    Args:
        options: say where.
        found: the checkpoint.
        left_out: names of its folders that are made anew.
    """
    with replacing(options.out / MODEL) as made:
        shutil.copytree(found.folder, made, ignore=partial(_left_out, left_out))
        if found.vae is not None:
            _replace_autoencoder(made, found.vae)
        yield made


def _replace_autoencoder(made: Path, vae: Path) -> None:
    """The queries were tuned on the latents of this one."""
    shutil.rmtree(made / "vae")
    shutil.copytree(vae, made / "vae", ignore=partial(_left_out, ()))
    index = made / "model_index.json"
    named = {**read_object(index), "vae": ["diffusers", autoencoder_class(vae)]}
    index.write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")


def _left_out(others: Sequence[str], folder: str, names: list[str]) -> set[str]:
    """Of a checkpoint: what describes the original, what is neither file nor folder, and others."""
    inside = Path(folder)
    odd = {name for name in names if not (inside / name).is_file() and not (inside / name).is_dir()}
    return odd | shutil.ignore_patterns(*others, "*.md", "*.jpg")(folder, names)
