"""`fatezero convert`: Tune-A-Video checkpoints in their authors' layouts become checkpoints that this project loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from fatezero.attention.temporal import inflate, is_temporal
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.data.foreign_manifests import DEFAULT_KEY_FRAMES, KEY_FRAMES, our_key_frames
from fatezero.diffusion.backbone import Backbone
from fatezero.diffusion.components import check_description
from fatezero.diffusion.recommendations import RECOMMENDATIONS, with_settings
from fatezero.diffusion.temporal_weights import check_rank, load_temporal_weights, save_inflated
from fatezero.diffusion.vetting import TOKENIZER_FILES, check_depth, read_config
from fatezero.errors import UserError, as_failure, out_of_memory
from fatezero.system.publishing import replacing
from fatezero.system.terminal import quoted

# Where weights lie: in diffusers' layout of the time, and the name that current diffusers and transformers give them.
PARTS = {"vae": "diffusion_pytorch_model", "text_encoder": "model"}
SETTINGS = {"scheduler": ("scheduler_config.json",), "tokenizer": TOKENIZER_FILES}
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
    config = read_config(_file(source, "unet/config.json"))
    video = config.get("model_config") or {}
    if not isinstance(video, dict):
        raise UserError(f"{source}/unet/config.json: model_config is {quoted(video)}: it holds settings.")
    tuned_with = _key_frames(video, source)
    unet, rank = _inflated_unet(source, config, video)
    with replacing(out) as made:
        for part in ("scheduler", "tokenizer", *PARTS):
            _copy_settings(source, made, part)
        for part, name in PARTS.items():
            weights = {name: value.clone().contiguous() for name, value in _read_weights(source, part).items()}
            save_file(weights, made / part / f"{name}.safetensors", {"format": "pt"})
        save_inflated(unet, rank, made)
        (made / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n", encoding="utf-8")
        written = json.dumps({"key_frames": tuned_with}, indent=2) + "\n"
        (made / RECOMMENDATIONS).write_text(written, encoding="utf-8")
        try:
            Backbone.load(str(made), RuntimeConfig(device="cpu", dtype="float32"))
        except UserError as error:  # what is wrong with the copy is wrong with the original
            raise UserError(str(error).replace(str(made), str(source))) from error
    return out


def _key_frames(video: dict[str, Any], source: Path) -> list[int | str]:
    """Those that the checkpoint was tuned with, in our names."""
    theirs = video.get(KEY_FRAMES, DEFAULT_KEY_FRAMES)
    where = f"{source}/unet/config.json: {KEY_FRAMES}"
    if not isinstance(theirs, list | tuple) or not all(type(frame) in (int, str) for frame in theirs):
        raise UserError(f"{where} is {quoted(theirs)}: it is a list of offsets and names.")
    ours = our_key_frames(theirs)
    with_settings(MethodConfig(), {"key_frames": ours}, where)
    return ours


def _inflated_unet(
    source: Path, config: dict[str, Any], video: dict[str, Any]
) -> tuple[UNet2DConditionModel, int | None]:
    """The image UNet with its temporal layers, and the rank of their convolutions."""
    path = source / "unet" / "config.json"
    if video.get("temporal_downsample"):
        raise UserError(f"{source} was tuned with temporal_downsample, which drops frames: it cannot be used here.")
    image = _image_config(config)
    weights = {_our_name(name): value for name, value in _read_weights(source, "unet").items()}
    check_depth(image, weights, path)
    empty = check_description("UNet2DConditionModel", image, str(path))
    spatial = {name: value for name, value in weights.items() if not is_temporal(name)}
    wanted = {name: value.shape for name, value in empty.state_dict().items()}
    if spatial.keys() != wanted.keys():
        different = sorted(spatial.keys() ^ wanted.keys())
        raise UserError(
            f"{source}/unet is not an inflated Stable Diffusion UNet: {quoted(different[0])} is on one side only."
        )
    for name, value in spatial.items():
        if value.shape != wanted[name]:
            raise UserError(f"{source}/unet has weights of other shapes than its config.json says: {name}.")
    unet = UNet2DConditionModel.from_config(image)
    unet.load_state_dict(spatial)
    rank = video.get("lora", _rank(weights))
    check_rank(rank, str(path))
    inflate(unet, rank)
    temporal = _complete({name: value for name, value in weights.items() if is_temporal(name)}, unet)
    load_temporal_weights(unet, temporal, str(source))
    return unet, rank


def _file(source: Path, name: str) -> Path:
    """A regular file of the checkpoint; links may lead about in it, and to the blobs of the hub's cache."""
    file, root = source / name, source.resolve()
    if not file.is_file():
        raise UserError(f"{file} is missing or no regular file: give a Tune-A-Video checkpoint's folder.")
    if not file.resolve().is_relative_to(root.parents[1] if root.parent.name == "snapshots" else root):
        raise UserError(f"{file} is a link that leads out of {source}: put the file itself there.")
    return file


def _copy_settings(source: Path, made: Path, part: str) -> None:
    """What a part has beside weights."""
    if not (source / part).is_dir():
        raise UserError(f"{source} has no folder {part}: give a whole Tune-A-Video checkpoint.")
    (made / part).mkdir(parents=True)
    for name in SETTINGS.get(part, ("config.json",)):
        if part != "tokenizer" or (source / part / name).exists():  # which of its files there are depends on its age
            shutil.copyfile(_file(source, f"{part}/{name}"), made / part / name)


def _read_weights(source: Path, part: str) -> dict[str, Tensor]:
    """The one file of weights in a part's folder, as tensors and nothing else."""
    folder = source / part
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if len(files) != 1:
        raise UserError(f"{folder} holds {len(files)} files of weights; one *.safetensors or *.bin is needed.")
    file = _file(source, f"{part}/{files[0].name}")
    try:
        weights = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # pickles can fail in any way
        if out_of_memory(error):
            raise as_failure(error) from error
        raise UserError(
            f"{file} does not read as tensors alone ({type(error).__name__}); anything else may run code and is not "
            "opened."
        ) from error
    _check_tensors(weights, file)
    return {name: value.detach() for name, value in weights.items()}


def _check_tensors(weights: Any, file: Path) -> None:
    """Refuse what is no mapping of names to plain numbers, or would take more memory than its file."""
    if not isinstance(weights, dict) or not weights:
        raise UserError(f"{file} holds {type(weights).__name__} in place of named tensors: give a state dict.")
    left = file.stat().st_size
    for name, value in weights.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(name, str) or not plain or not (value.is_floating_point() or name.endswith("position_ids")):
            raise UserError(f"{file}: {quoted(name)} is no tensor of floating-point numbers: give a state dict.")
        left -= value.numel() * value.element_size()
    if left < 0:
        raise UserError(f"{file} has tensors of more numbers than the file holds: save each whole, by torch.save.")


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
