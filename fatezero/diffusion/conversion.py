"""`fatezero convert`: Tune-A-Video checkpoints in their authors' layouts become checkpoints that this project loads."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fatezero.attention.temporal import inflate, is_temporal
from fatezero.data.files import replacing
from fatezero.data.foreign_manifests import DEFAULT_KEY_FRAMES, KEY_FRAMES, our_key_frames
from fatezero.diffusion.recommendations import RECOMMENDATIONS
from fatezero.diffusion.temporal_weights import load_temporal_weights, save_inflated
from fatezero.errors import UserError

# Where weights lie: in diffusers' layout of the time, and the name that current diffusers and transformers give them.
PARTS = {"vae": "diffusion_pytorch_model", "text_encoder": "model"}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
NAMES = {"attn_temp.": "attn_temporal.", "norm_temp.": "norm_temporal."}  # showlab's names by FateZero's


def convert_tune_a_video(source: Path, out: Path) -> Path:
    """Convert a published Tune-A-Video checkpoint.

    Args:
        source: folder in the layout of FateZero's or Tune-A-Video's authors, its weights in `*.bin` (read as tensors
            and nothing else) or safetensors.
        out: the folder to make.

    Returns:
        `out`.

    Raises:
        UserError: if the folder is of another layout, its weights are not plain tensors, or `out` exists.
    """
    if out.exists():
        raise UserError(f"{out} exists: name another folder, or take it away.")
    config = _read_json(source / "unet" / "config.json")
    video = config.get("model_config") or {}
    unet, rank = _inflated_unet(source, config, video)
    tuned_with = our_key_frames(video.get(KEY_FRAMES, DEFAULT_KEY_FRAMES))
    with replacing(out) as made:
        for part in ("scheduler", "tokenizer", *PARTS):
            shutil.copytree(source / part, made / part, ignore=shutil.ignore_patterns("*.bin", "*.safetensors"))
        for part, name in PARTS.items():
            save_file(_read_weights(source / part), made / part / f"{name}.safetensors", {"format": "pt"})
        save_inflated(unet, rank, made)
        (made / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
        (made / RECOMMENDATIONS).write_text(json.dumps({"key_frames": tuned_with}, indent=2) + "\n")
    return out


def _inflated_unet(
    source: Path, config: dict[str, Any], video: dict[str, Any]
) -> tuple[UNet2DConditionModel, int | None]:
    """The image UNet with its temporal layers, and the rank of their convolutions."""
    if video.get("temporal_downsample"):
        raise UserError(f"{source} was tuned with temporal_downsample, which drops frames: it cannot be used here.")
    weights = {_our_name(name): value for name, value in _read_weights(source / "unet").items()}
    try:
        unet = UNet2DConditionModel.from_config(_image_config(config))
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}/unet is not an inflated Stable Diffusion UNet: {error}") from error
    spatial = {name: value for name, value in weights.items() if not is_temporal(name)}
    if spatial.keys() != unet.state_dict().keys():
        different = sorted(spatial.keys() ^ unet.state_dict().keys())
        raise UserError(f"{source}/unet is not an inflated Stable Diffusion UNet: {different[0]} is on one side only.")
    missing = [part for part in ("scheduler", "tokenizer", *PARTS) if not (source / part).is_dir()]
    if missing:
        raise UserError(f"{source} has no folder {missing[0]}: give a whole Tune-A-Video checkpoint.")
    try:
        unet.load_state_dict(spatial)
    except RuntimeError as error:
        raise UserError(f"{source}/unet has weights of other shapes than its config.json says.") from error
    rank = video.get("lora", _rank(weights))
    inflate(unet, rank)
    temporal = _complete({name: value for name, value in weights.items() if is_temporal(name)}, unet)
    load_temporal_weights(unet, temporal, str(source))
    return unet, rank


def _read_json(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): give a Tune-A-Video checkpoint's folder.") from error
    return config


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """The one file of weights in a folder, as tensors and nothing else."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if len(files) != 1:
        raise UserError(f"{folder} holds {len(files)} files of weights; one *.safetensors or *.bin is needed.")
    try:
        weights = (
            load_file(files[0])
            if files[0].suffix == ".safetensors"
            else torch.load(files[0], map_location="cpu", weights_only=True)
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise UserError(
            f"{files[0]} does not read as tensors alone ({type(error).__name__}); anything else may run code and is "
            "not opened."
        ) from error
    return {name: value.detach().clone().contiguous() for name, value in weights.items()}


def _our_name(name: str) -> str:
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


def _image_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the image UNet that was inflated."""

    def image_name(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("Pseudo3D", "2D").replace("3D", "2D")
        return [image_name(item) for item in value] if isinstance(value, list) else value

    image = {name: image_name(value) for name, value in config.items() if name != "model_config"}
    return {**image, "_class_name": "UNet2DConditionModel"}


def _rank(weights: dict[str, Tensor]) -> int | None:
    """Of the temporal convolutions, where the configuration does not say it; None where they are full."""
    ranks = [len(value) for name, value in weights.items() if name.endswith("conv_temporal.down.weight")]
    return max(ranks, default=None)


def _complete(weights: dict[str, Tensor], unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """With temporal convolutions that change nothing, where the checkpoint has none (Tune-A-Video's own)."""
    if any("conv_temporal" in name for name in weights):
        return weights
    own = unet.state_dict()
    return weights | {name: value for name, value in own.items() if "conv_temporal" in name}
