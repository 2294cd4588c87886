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
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.data.files import content_digest
from fatezero.data.remote import open_input
from fatezero.diffusion.backbone import Backbone, to_unit_range
from fatezero.diffusion.checkpoint import checkpoint_digest, checkpoint_folder, native_size, sized
from fatezero.diffusion.recommendations import RECOMMENDATIONS, recommendations, recommended_method
from fatezero.diffusion.temporal_weights import save_inflated
from fatezero.diffusion.vetting import read_object
from fatezero.errors import UserError, first_line
from fatezero.lightning.quiet import silence_lightning
from fatezero.system.publishing import replace_text, replacing
from fatezero.training.tune_a_video import Tuning, fit
from fatezero.training.tuning_config import TuningConfig
from fatezero.types import Clip, ClipSpec

RECORD = "tune.json"
# Between a tuning and its resumption; model and clip are compared by their content.
MAY_CHANGE = (
    *("model", "clip", "out", "steps", "sample_prompts", "sample_every", "checkpoint_every", "wandb", "device"),
    "threads",
)


def tune_one(options: TuningConfig) -> Path:
    """Tune a checkpoint on one clip; a tuning that was stopped goes on where its last checkpoint was made.

    Args:
        options: on what, and how.

    Returns:
        The tuned checkpoint's folder.

    Raises:
        UserError: for a clip of one frame, a folder that holds another tuning, a loss that is not a number, and where
            the memory does not suffice.
    """
    try:
        return _tune(options)
    except OSError as error:
        raise UserError(
            f"{options.out}: the tuning cannot read or write what it needs ({first_line(error)}); mend that, or name "
            "another --out."
        ) from error


def _tune(options: TuningConfig) -> Path:
    silence_lightning()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    folder = checkpoint_folder(options.model)
    clip = _read(replace(options.spec, path=str(open_input(options.spec.path))), folder)
    method = _method(options, folder)
    _record(options, folder)
    backbone = Backbone.load(options.model, RuntimeConfig(device=options.device, dtype="float32"))
    if backbone.ties_frames:
        raise UserError(f"{options.model} is a video model already: tune the image model it was made from.")
    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        inflate(backbone.unet, options.rank)
    backbone = replace(backbone)  # whose sites include the new layers
    images = _class_latents(options, backbone, clip.frames.shape[1:3])
    module = Tuning(options, backbone, method, clip.frames, backbone.encode(to_unit_range(clip.frames)), images)
    fit(module)
    return _save(module, options, folder, method)


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


def _record(options: TuningConfig, folder: Path) -> None:
    """Write down what is tuned on what. Raises UserError if the folder holds another tuning."""
    settings = {name: value for name, value in asdict(options).items() if name not in MAY_CHANGE}
    inputs = {"checkpoint": checkpoint_digest(folder), "content": content_digest(open_input(options.spec.path))}
    asked = json.loads(json.dumps({**settings, **inputs}))
    path = options.out / RECORD
    if path.exists():
        found = read_object(path)
        others = [name for name in asked if found.get(name) != asked[name]]
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


def _save(module: Tuning, options: TuningConfig, folder: Path, method: MethodConfig) -> Path:
    """Write the tuned checkpoint, whole or not at all; what was not trained is copied."""
    final = options.out / "model"
    with replacing(final) as made:
        shutil.copytree(folder, made, ignore=_left_out)
        save_inflated(module.unet, options.rank, made)
        tuned = {"key_frames": list(method.key_frames), "norm_scope": method.norm_scope}
        written = json.dumps({**recommendations(folder), **tuned}, indent=2) + "\n"
        (made / RECOMMENDATIONS).write_text(written, encoding="utf-8")
    return final


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Of a checkpoint: what is tuned, what describes the original, and what is neither file nor folder."""
    inside = Path(folder)
    odd = {name for name in names if not (inside / name).is_file() and not (inside / name).is_dir()}
    return odd | shutil.ignore_patterns("unet", "*.md", "*.jpg")(folder, names)
