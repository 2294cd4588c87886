"""Tune-A-Video checkpoints in their authors' layouts become checkpoints that this project loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from fatezero.attention.temporal import inflate, is_temporal
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.data.foreign_manifests.fatezero_manifests import DEFAULT_KEY_FRAMES, KEY_FRAMES, our_key_frames
from fatezero.diffusion.checkpoint import RECOMMENDATIONS
from fatezero.diffusion.components import check_description
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.pickles import copy_settings, file_inside, read_tensors
from fatezero.diffusion.recommendations import with_settings
from fatezero.diffusion.single_file import INDEX
from fatezero.diffusion.temporal_weights import check_rank, load_temporal_weights, save_inflated
from fatezero.diffusion.vetting import check_depth, read_config
from fatezero.errors import UserError
from fatezero.system.publishing import replacing
from fatezero.system.terminal import quoted

# Where weights lie: in diffusers' layout of the time, and the name that current diffusers and transformers give them.
PARTS = {"vae": "diffusion_pytorch_model", "text_encoder": "model"}
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
    config = read_config(file_inside(source, "unet/config.json"))
    video = config.get("model_config") or {}
    if not isinstance(video, dict):
        raise UserError(f"{source}/unet/config.json: model_config is {quoted(video)}: it holds settings.")
    tuned_with = _key_frames(video, source)
    unet, rank = _inflated_unet(source, config, video)
    with replacing(out) as made:
        for part in ("scheduler", "tokenizer", *PARTS):
            copy_settings(source, made, part)
        for part, name in PARTS.items():
            save_file(_read_weights(source, part), made / part / f"{name}.safetensors", {"format": "pt"})
        save_inflated(unet, rank, made)
        (made / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n", encoding="utf-8")
        written = json.dumps({"key_frames": tuned_with}, indent=2) + "\n"
        (made / RECOMMENDATIONS).write_text(written, encoding="utf-8")
        try:
            UNetBackbone.load(str(made), RuntimeConfig(device="cpu", dtype="float32"))
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


def _read_weights(source: Path, part: str) -> dict[str, Tensor]:
    """The one file of weights in a part's folder, as tensors and nothing else."""
    folder = source / part
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if len(files) != 1:
        raise UserError(f"{folder} holds {len(files)} files of weights; one *.safetensors or *.bin is needed.")
    return read_tensors(file_inside(source, f"{part}/{files[0].name}"))


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
