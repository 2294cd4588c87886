"""One tuning, from a clip to a checkpoint: what is read, recorded, trained and written."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from fatezero.attention.temporal import inflate
from fatezero.clips.images import IMAGE_SUFFIXES
from fatezero.clips.video import read_clip
from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.data.files import content_digest
from fatezero.data.remote import open_input
from fatezero.diffusion.backbone import Backbone, to_unit_range
from fatezero.diffusion.checkpoint import RECOMMENDATIONS, Checkpoint, find_checkpoint, native_size, sized
from fatezero.diffusion.components import autoencoder_class
from fatezero.diffusion.recommendations import recommendations, recommended_method
from fatezero.diffusion.temporal_weights import save_inflated
from fatezero.diffusion.vetting import read_object
from fatezero.errors import UserError, first_line
from fatezero.lightning.quiet import silence_lightning
from fatezero.system.publishing import replace_text, replacing
from fatezero.training.tune_a_video import Tuning, fit
from fatezero.training.tuning_config import TuningConfig
from fatezero.types import Clip, ClipSpec

RECORD = "tune.json"
# Between a tuning and its resumption; the clip is compared by its content.
MAY_CHANGE = (
    *("clip", "out", "steps", "sample_prompts", "sample_every", "checkpoint_every", "wandb", "device"),
    "threads",
)


def tune_one(options: TuningConfig, networks: ModelOptions) -> Path:
    """Tune a checkpoint on one clip; a tuning that was stopped goes on where its last checkpoint was made.

    Args:
        options: on what, and how.
        networks: the image model to start from. Its autoencoder becomes the tuned checkpoint's own.

    Returns:
        The tuned checkpoint's folder.

    Raises:
        UserError: for a model that is no image model or is changed by LoRA, a clip of one frame, a folder that holds
            another tuning, a loss that is not a number, and where the memory does not suffice.
    """
    try:
        return _tune(options, networks)
    except OSError as error:
        raise UserError(
            f"{options.out}: the tuning cannot read or write what it needs ({first_line(error)}); mend that, or name "
            "another --out."
        ) from error


def _tune(options: TuningConfig, networks: ModelOptions) -> Path:
    _check_image_model(networks)
    silence_lightning()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    found = find_checkpoint(networks)
    folder = found.folder
    clip = _read(replace(options.spec, path=str(open_input(options.spec.path))), folder)
    method = _method(options, folder)
    _record(options, found)
    backbone = Backbone.load(networks, RuntimeConfig(device=options.device, dtype="float32"))
    if backbone.ties_frames:
        raise UserError(f"{networks.model} is a video model already: tune the image model it was made from.")
    if backbone.embeds_guidance:
        raise UserError(f"{networks.model} was distilled with its guidance: tune the model it was distilled from.")
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        inflate(backbone.unet, options.rank)
    backbone = replace(backbone)  # whose sites include the new layers
    images = _class_latents(options, backbone, clip.frames.shape[1:3])
    module = Tuning(options, backbone, method, clip.frames, backbone.encode(to_unit_range(clip.frames)), images)
    fit(module)
    return _save(module, options, found, method)


def _check_image_model(networks: ModelOptions) -> None:
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
    return torch.cat([backbone.encode(to_unit_range(image)) for image in images])


def _save(module: Tuning, options: TuningConfig, found: Checkpoint, method: MethodConfig) -> Path:
    """Write the tuned checkpoint, whole or not at all; what was not trained is copied."""
    final = options.out / "model"
    with replacing(final) as made:
        shutil.copytree(found.folder, made, ignore=_left_out)
        if found.vae is not None:
            _replace_autoencoder(made, found.vae)
        save_inflated(module.unet, options.rank, made)
        tuned = {"key_frames": list(method.key_frames), "norm_scope": method.norm_scope}
        written = json.dumps({**recommendations(found.folder), **tuned}, indent=2) + "\n"
        (made / RECOMMENDATIONS).write_text(written, encoding="utf-8")
    return final


def _replace_autoencoder(made: Path, vae: Path) -> None:
    """The queries were tuned on the latents of this one."""
    shutil.rmtree(made / "vae")
    shutil.copytree(vae, made / "vae", ignore=_left_out)
    index = made / "model_index.json"
    named = {**read_object(index), "vae": ["diffusers", autoencoder_class(vae)]}
    index.write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Of a checkpoint: what is tuned, what describes the original, and what is neither file nor folder."""
    inside = Path(folder)
    odd = {name for name in names if not (inside / name).is_file() and not (inside / name).is_dir()}
    return odd | shutil.ignore_patterns("unet", "*.md", "*.jpg")(folder, names)
