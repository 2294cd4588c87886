"""What a checkpoint's files say, checked before anything is made of them. Light: importing this needs no torch.

Classes come from the lists below and never from a file's own words; configurations are plain JSON; weights are regular
safetensors files, whose headers (names and shapes) say how large a network can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fatezero.data.files import read_json, read_text
from fatezero.errors import UserError
from fatezero.system.terminal import quoted, shortened

PIPELINES = (
    *("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
    "AnimateDiffPipeline",
)
SCHEDULERS = (
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler"),
    *("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler"),
    *("KDPM2AncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("DEISMultistepScheduler", "UniPCMultistepScheduler", "LCMScheduler", "TCDScheduler"),
)
MOTION_ADAPTER = "MotionAdapter"
# Library and classes of the parts that are loaded, and of those that a checkpoint may have beside them.
PARTS = {
    "unet": ("diffusers", ("UNet2DConditionModel", "UNetMotionModel")),
    "vae": ("diffusers", ("AutoencoderKL", "AutoencoderTiny")),
    "text_encoder": ("transformers", ("CLIPTextModel",)),
    "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
    "scheduler": ("diffusers", SCHEDULERS),
}
LEFT_ASIDE = {
    "safety_checker": ("stable_diffusion", ("StableDiffusionSafetyChecker",)),
    "feature_extractor": ("transformers", ("CLIPFeatureExtractor", "CLIPImageProcessor", "CLIPImageProcessorFast")),
    "image_encoder": ("transformers", ("CLIPVisionModelWithProjection",)),
    "motion_adapter": ("diffusers", (MOTION_ADAPTER,)),
}
STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
ADAPTER_STEM = "diffusion_pytorch_model"
ARCHITECTURES = ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel")
TOKENIZER_FILES = (
    *("tokenizer_config.json", "tokenizer.json", "vocab.json", "special_tokens_map.json", "added_tokens.json"),
    "merges.txt",
)
# What makes a library import, download or run something.
CODE = ("auto_map", "custom_pipeline", "custom_pipelines", "_module", "quantization_config", "trust_remote_code")
CODE_FILES = ("adapter_config.json",)
COUNTS = ("_dim", "_size", "_channels", "_groups", "_heads", "_embeds")
MAX_LAYERS = 256  # of a kind, in networks of today fewer than 50
MAX_LEVELS = 16  # resolutions of a network; lists in a configuration give a value for each
MAX_NOISE_LEVELS = 10_000  # trainings take 1000


@dataclass(frozen=True)
class Layout:
    """What a checkpoint is made of.

    Attributes:
        pipeline: class of diffusers.
        classes: class by part.
    """

    pipeline: str
    classes: Mapping[str, str]


def vet_checkpoint(folder: Path) -> Layout:
    """Check all that a checkpoint's files say before its weights are read.

    Raises:
        UserError: naming the file that is missing, or says what no checkpoint of this project says.
    """
    layout = _read_layout(folder / "model_index.json")
    configs = {part: vet_network(folder / part, stem, PARTS[part][1]) for part, stem in STEMS.items()}
    if configs["unet"].get("addition_embed_type") is not None:
        raise UserError(f"{folder} is not a Stable Diffusion 1.x or 2.x checkpoint: its UNet is of another kind.")
    for name in TOKENIZER_FILES:
        _vet_tokenizer_file(folder / "tokenizer" / name)
    config = read_config(folder / "scheduler" / "scheduler_config.json")
    _check_class(config.get("_class_name"), SCHEDULERS, folder / "scheduler" / "scheduler_config.json")
    for name, value in config.items():
        long = isinstance(value, list) and len(value) > MAX_NOISE_LEVELS
        if long or any(abs(number) > MAX_NOISE_LEVELS for number in whole_numbers(value)):
            raise UserError(
                f"{folder}/scheduler/scheduler_config.json: {name} is {quoted(value)}: a schedule has at most "
                f"{MAX_NOISE_LEVELS} noise levels; get the checkpoint again."
            )
    return layout


def vet_adapter(folder: Path) -> None:
    """Check all that a motion adapter's files say before its weights are read.

    Raises:
        UserError: as `vet_checkpoint`.
    """
    vet_network(folder, ADAPTER_STEM, (MOTION_ADAPTER,))


def vet_network(folder: Path, stem: str, classes: Sequence[str]) -> dict[str, Any]:
    """Check a network's configuration against its weights' headers.

    Args:
        folder: holds both.
        stem: name of the weights' file before ".safetensors".
        classes: that the configuration may name.

    Returns:
        The configuration.

    Raises:
        UserError: naming the file and what it says.
    """
    path = folder / "config.json"
    config = read_config(path)
    _check_class(config.get("_class_name"), classes, path)
    named = config.get("architectures")
    for name in named if isinstance(named, list) else [named]:
        _check_class(name, ARCHITECTURES, path)
    for name in CODE_FILES:
        if (folder / name).exists():
            raise UserError(f"{folder}/{name} belongs to another kind of checkpoint: merge it into the weights.")
    check_depth(config, tensor_shapes(weight_files(folder, stem)), path)
    return config


def check_depth(config: Mapping[str, Any], names: Iterable[str], path: Path) -> None:
    """Refuse a configuration of more layers than there are weights for, before a network is built.

    Args:
        config: of a network.
        names: of its weights.
        path: names the configuration in errors.

    Raises:
        UserError: naming what is too many.
    """
    depth = _depth(names)
    for name, value in _items(config):
        long = isinstance(value, list) and len(value) > max(depth, MAX_LEVELS)
        if value is True and name.endswith(COUNTS):
            raise UserError(f"{path}: {name} is true: it is a number; get the checkpoint again.")
        many = "layers" in name or "blocks" in name  # of either kind, by the names that both libraries give them
        if long or (many and any(not 0 <= number <= depth for number in whole_numbers(value))):
            raise UserError(
                f"{path}: {name} is {quoted(value)}, but the weights beside it have at most {depth} layers of a kind: "
                "they do not belong together; get the checkpoint again."
            )


def read_config(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object, in which nothing names code.

    Raises:
        UserError: if it cannot be read, holds something else, or names code.
    """
    values = read_object(path)
    for name, value in _items(values):
        if name in CODE or "attn_implementation" in name or (isinstance(value, str) and value.endswith(".py")):
            raise UserError(
                f"{path}: {quoted(name)} is {quoted(value)}, which would run code that a checkpoint names: take it "
                "away, or use another checkpoint."
            )
    return values


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        UserError: if it cannot be read, or holds something else.
    """
    try:
        values = read_json(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): restore it.") from error
    except ValueError as error:
        raise UserError(f"{path} is not readable JSON ({shortened(str(error), 200)}): mend it.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds {quoted(values)} in place of a JSON object: mend it.")
    return values


def weight_files(folder: Path, stem: str) -> list[Path]:
    """The safetensors files of a network, one or those that an index lists; links to files are followed.

    Raises:
        UserError: if there is none, one is no regular file, or the index leads elsewhere.
    """
    index, whole = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
    files = [whole] if whole.exists() or not index.exists() else []
    if index.exists():
        named = read_object(index).get("weight_map")
        names = named.values() if isinstance(named, dict) else [named]
        for name in names:
            if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
                raise UserError(
                    f"{index}: {quoted(name)} is not the name of a safetensors file beside it; get the checkpoint "
                    "again."
                )
        files += sorted({folder / str(name) for name in names})
    for file in files:
        if not file.is_file():
            raise UserError(
                f"{folder.parent} has no safetensors weights in {folder.name}/ ({file.name} is missing or no regular "
                "file); other formats can run code and are not read. Save it again with "
                "save_pretrained(..., safe_serialization=True)."
            )
    return files


def tensor_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in safetensors files, by their headers alone.

    Raises:
        UserError: if a file is torn or something else, or a tensor holds no floating-point numbers.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, framework="numpy") as opened:
                names = opened.keys()
                for name in names:
                    tensor = opened.get_slice(name)
                    shapes[name] = tuple(tensor.get_shape())
                    if not tensor.get_dtype().startswith(("F", "BF")) and not name.endswith("position_ids"):
                        raise UserError(
                            f"{file}: {quoted(name)} holds {tensor.get_dtype()}, not floating-point numbers: "
                            "quantised weights are not read."
                        )
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{file} does not read as safetensors ({shortened(str(error), 200)}): get it again."
            ) from error
    return shapes


def whole_numbers(value: Any) -> Iterator[int]:
    """Those in a value of JSON, in lists and mappings too."""
    if isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from whole_numbers(inner)
    elif isinstance(value, int):
        yield value


def _read_layout(path: Path) -> Layout:
    index = read_config(path)
    _check_class(index.get("_class_name"), PIPELINES, path, needed=True)
    for part, named in index.items():
        if part in PARTS or part in LEFT_ASIDE or isinstance(named, list | dict):
            _check_part(part, named, path)
    missing = PARTS.keys() - index.keys()
    if missing:
        raise UserError(f"{path} names no {min(missing)}: give a folder in diffusers' Stable Diffusion layout.")
    return Layout(index["_class_name"], {part: index[part][1] for part in PARTS})


def _check_part(part: str, named: Any, path: Path) -> None:
    if part in LEFT_ASIDE and named == [None, None]:
        return
    library, classes = (PARTS | LEFT_ASIDE).get(part, ("", ()))
    if not isinstance(named, list) or len(named) != 2 or named[0] != library or named[1] not in classes:
        allowed = f"it is {library}'s {' or '.join(classes)}" if classes else "Stable Diffusion has no such part"
        raise UserError(f"{path}: {quoted(part)} is {quoted(named)}; {allowed}.")


def _check_class(name: Any, classes: Sequence[str], path: Path, *, needed: bool = False) -> None:
    if (name is None and not needed) or name in classes:
        return
    raise UserError(
        f"{path} is of the class {quoted(name)}, which is not a Stable Diffusion 1.x or 2.x checkpoint's; known are "
        f"{', '.join(classes)}."
    )


def _vet_tokenizer_file(path: Path) -> None:
    if not path.exists():  # which of them there are depends on the tokenizer's age; loading says what is missing
        return
    if path.suffix == ".json":
        read_config(path)
        return
    try:
        read_text(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({shortened(str(error), 200)}): get the checkpoint again.") from error


def _depth(names: Iterable[str]) -> int:
    """Most layers of a kind, by the numbers in tensors' names."""
    parts = (part for name in names for part in name.split("."))
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 4]
    return min(max(numbers, default=0) + 1, MAX_LAYERS)


def _items(values: Any) -> Iterator[tuple[str, Any]]:
    """All keys with their values, at any depth."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield name, value
            yield from _items(value)
    elif isinstance(values, list):
        for value in values:
            yield from _items(value)
