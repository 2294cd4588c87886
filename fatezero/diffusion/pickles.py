"""Pickles of weights as safetensors: read as tensors and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fatezero.config import RuntimeConfig
from fatezero.diffusion.layouts import LEFT_ASIDE, STEMS
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.vetting import TOKENIZER_FILES, is_no_weight, read_config
from fatezero.errors import UserError, as_failure, out_of_memory
from fatezero.system.publishing import replacing
from fatezero.system.terminal import quoted

PICKLED_STEMS = {
    **{"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"},
    **{"text_encoder": "pytorch_model", "text_encoder_2": "pytorch_model"},
}
TOKENIZERS = ("tokenizer", "tokenizer_2")
SETTINGS = {"scheduler": ("scheduler_config.json",), **dict.fromkeys(TOKENIZERS, TOKENIZER_FILES)}
WRAPPED = "state_dict"  # under which trainers save the weights, beside what they count
PARALLEL = "module."  # before all names, where a model was trained on several devices
EMBEDDING = "string_to_param"  # under which textual inversions of the authors' own code lie


class _Beside:
    """Stands for what trainers save beside the weights: takes whatever it is given, and does nothing with it."""

    def __new__(cls, *_: object) -> _Beside:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class _Parameters(dict[str, Tensor]):
    """Stands for torch's ParameterDict, of which it takes the tensors alone."""

    def __setstate__(self, state: Any) -> None:
        self.update(state["_parameters"])


# What checkpoints of PyTorch Lightning and of the authors of textual inversion name beside tensors. None of it is
# imported, called or kept.
STANDS_FOR: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *(
        (_Beside, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
    *((_Beside, f"numpy.{name}") for name in ("dtype", "ndarray")),
    (_Beside, "_codecs.encode"),
    (_Beside, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    (_Parameters, "torch.nn.modules.container.ParameterDict"),
]


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors file or a pickle.

    Raises:
        UserError: if it holds anything that could run code, or no plain tensors.
    """
    try:
        with torch.serialization.safe_globals(STANDS_FOR):
            weights = (
                load_file(file)
                if file.suffix == ".safetensors"
                else torch.load(file, map_location="cpu", weights_only=True)
            )
    except Exception as error:  # pickles can fail in any way
        if out_of_memory(error):
            raise as_failure(error) from error
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it names {quoted(named[1])}" if named else type(error).__name__
        raise UserError(
            f"{file} does not read as tensors alone ({what}); anything else may run code and is not opened."
        ) from error
    return _plain_tensors(weights, file)


def _plain_tensors(weights: Any, file: Path) -> dict[str, Tensor]:
    """Named tensors, out of what trainers wrap them in; never more memory than their file has."""
    weights = _unwrapped(weights)
    if not isinstance(weights, dict) or not weights:
        raise UserError(f"{file} holds {type(weights).__name__} in place of named tensors: give a state dict.")
    left = file.stat().st_size
    for name, value in weights.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        named = isinstance(name, str) and name != "__metadata__"  # which safetensors files keep for themselves
        if not named or not plain or not (value.is_floating_point() or is_no_weight(name, value.shape)):
            raise UserError(f"{file}: {quoted(name)} is no tensor of floating-point numbers: give a state dict.")
        left -= value.numel() * value.element_size()
    if left < 0:
        raise UserError(f"{file} has tensors of more numbers than the file holds: save each whole, by torch.save.")
    front = PARALLEL if all(name.startswith(PARALLEL) for name in weights) else ""
    return {name.removeprefix(front): value.detach().clone().contiguous() for name, value in weights.items()}


def _unwrapped(weights: Any) -> Any:
    while isinstance(weights, dict) and isinstance(weights.get(WRAPPED), dict):
        weights = weights[WRAPPED]
    embeddings = weights.get(EMBEDDING) if isinstance(weights, dict) else None
    if isinstance(embeddings, dict) and len(embeddings) == 1:
        return {"emb_params": next(iter(embeddings.values()))}
    return weights


def convert_pickle(source: Path, out: Path) -> Path:
    """Write a pickle's tensors, under the names they have but for "module." before all, into a safetensors file.

    Args:
        source: a file of weights: a checkpoint, an autoencoder, a motion module, a LoRA, an embedding.
        out: the file to make, ending in ".safetensors".

    Returns:
        `out`.

    Raises:
        UserError: if there is anything but tensors in it, or `out` exists or is named otherwise.
    """
    if out.suffix != ".safetensors" or out.exists():
        raise UserError(f"{out} is not the name of a new *.safetensors file, which {source} becomes: name one.")
    if source.suffix == out.suffix:
        raise UserError(f"{source} is a safetensors file already: give it as it is.")
    weights = read_tensors(source)
    with replacing(out) as made:
        save_file(weights, made, {"format": "pt"})
    return out


def convert_pickled_folder(source: Path, out: Path) -> Path:
    """Write a checkpoint some of whose weights are pickles as one of safetensors.

    Args:
        source: a folder in diffusers' layout with `*.bin` files, in full or of one variant.
        out: the folder to make.

    Returns:
        `out`.

    Raises:
        UserError: if something is missing or does not load, or `out` exists.
    """
    if out.exists():
        raise UserError(f"{out} exists: name another folder, or take it away.")
    index = read_config(source / "model_index.json")
    files = {part: _weights_of(source, part) for part in PICKLED_STEMS if part in index}
    if all(file.suffix == ".safetensors" for file in files.values()):
        raise UserError(f"{source} holds safetensors files already: give it as it is.")
    with replacing(out) as made:
        for part in (*files, *(part for part in SETTINGS if part in index)):
            copy_settings(source, made, part)
        for part, file in files.items():
            save_file(read_tensors(file), made / part / f"{STEMS[part]}.safetensors", {"format": "pt"})
        kept = {name: [None, None] if name in LEFT_ASIDE else value for name, value in index.items()}
        (made / "model_index.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        try:
            UNetBackbone.load(str(made), RuntimeConfig(device="cpu", dtype="float32"))
        except UserError as error:  # what is wrong with the copy is wrong with the original
            raise UserError(str(error).replace(str(made), str(source))) from error
    return out


def _weights_of(source: Path, part: str) -> Path:
    """A network's file of weights: safetensors before a pickle, the full weights before the only variant.

    Raises:
        UserError: if there is none, or several and none in full.
    """
    safe, pickled = STEMS[part], PICKLED_STEMS[part]
    names = (f"{safe}.safetensors", f"{safe}.*.safetensors", f"{pickled}.bin", f"{pickled}.*.bin")
    found = next(filter(None, (sorted((source / part).glob(name)) for name in names)), [])
    if len(found) != 1:
        several = f"{len(found)} variants" if found else "no single file"
        raise UserError(f"{source}/{part} holds {several} of the weights: leave one {pickled}.bin in it.")
    return file_inside(source, f"{part}/{found[0].name}")


def is_image_folder(source: Path) -> bool:
    """Whether a folder is an image model in diffusers' layout."""
    config = source / "unet" / "config.json"
    return config.is_file() and read_config(config).get("_class_name") == "UNet2DConditionModel"


def copy_settings(source: Path, made: Path, part: str) -> None:
    """Copy what a part of a checkpoint has beside weights.

    Raises:
        UserError: if the part, or a file of it, is missing.
    """
    if not (source / part).is_dir():
        raise UserError(f"{source} has no folder {part}: give a whole checkpoint.")
    (made / part).mkdir(parents=True)
    for name in SETTINGS.get(part, ("config.json",)):
        if part not in TOKENIZERS or (source / part / name).exists():  # which of its files there are depends on its age
            shutil.copyfile(file_inside(source, f"{part}/{name}"), made / part / name)


def file_inside(source: Path, name: str) -> Path:
    """A regular file of a checkpoint; links may lead about in it, and to the blobs of the hub's cache.

    Raises:
        UserError: if it is missing, or elsewhere.
    """
    file, root = source / name, source.resolve()
    if not file.is_file():
        raise UserError(f"{file} is missing or no regular file: give a whole checkpoint's folder.")
    if not file.resolve().is_relative_to(root.parents[1] if root.parent.name == "snapshots" else root):
        raise UserError(f"{file} is a link that leads out of {source}: put the file itself there.")
    return file
