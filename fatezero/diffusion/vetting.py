"""What a checkpoint's files say, checked before anything is made of them. Light: importing this needs no torch.

Classes come from the lists below and never from a file's own words; configurations are plain JSON; weights are regular
safetensors files, whose headers (names and shapes) say how large a network can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fatezero.data.files import read_json, read_text
from fatezero.diffusion.layouts import (
    ADAPTER_STEM,
    FAMILY_OF,
    MOTION_ADAPTER,
    SDXL,
    STABLE_DIFFUSION,
    Family,
    Layout,
    Parts,
)
from fatezero.diffusion.schedule_fields import SCHEDULER_FILE, check_no_flow, vet_flow, vet_schedule
from fatezero.diffusion.weight_sets import WeightsChoice, check_variant, chosen_variant, original_file
from fatezero.errors import UserError
from fatezero.system.terminal import quoted, shortened

ARCHITECTURES = (
    *("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel", "T5EncoderModel", "T5ForConditionalGeneration"),
    *("UMT5EncoderModel", "UMT5ForConditionalGeneration", "LlamaModel", "LlamaForCausalLM"),
)
TOKENIZER_FILES = (
    *("tokenizer_config.json", "tokenizer.json", "vocab.json", "special_tokens_map.json", "added_tokens.json"),
    "merges.txt",
)
SENTENCEPIECE = "spiece.model"  # of T5, where there is no tokenizer.json
# What makes a library import, download or run something.
CODE = ("auto_map", "custom_pipeline", "custom_pipelines", "_module", "quantization_config", "trust_remote_code")
CODE_FILES = ("adapter_config.json",)
# Written by some versions of transformers, and read by none: whether attention was chosen by itself.
HARMLESS = ("_attn_implementation_autoset",)
NOT_WEIGHTS = (
    "position_ids",
    "v_pred",
    "ztsnr",
)  # whole numbers and marks beside weights; those of one number are counters
_PICKLE = "it is a pickle, as of a *.ckpt: name it so, and make safetensors of it with `fatezero convert`"
# Files that people have under the name of safetensors.
FIRST_BYTES = {
    b"PK\x03\x04": _PICKLE,
    b"\x80": _PICKLE,
    b"version https://git-lfs": "it is a pointer of Git LFS and not the file: fetch that with `git lfs pull`",
    b"<": "it is a web page: download the file again, logged in where that is asked for",
}
ANY_WEIGHTS = WeightsChoice()
COUNTS = ("_dim", "_size", "_channels", "_groups", "_heads", "_embeds")
FLAGS = ("guidance_embeds",)  # that are named like counts
MAX_LAYERS = 256  # of a kind, in networks of today fewer than 50
MAX_LEVELS = 16  # resolutions of a network; lists in a configuration give a value for each
BY_CHANNEL = ("latents_mean", "latents_std")  # lists that give a value for each channel of the latents
MAX_CHANNELS = 1024  # of latents; 128 in LTX-Video
MAX_NOISE_LEVELS = 10_000  # trainings take 1000
# By what is in a pipeline's name, what it asks for beside a text.
CONDITIONED = {
    **dict.fromkeys(("ImageToVideo", "Image2Video"), "makes a video of an image"),
    **dict.fromkeys(("Control", "VACE", "Animate"), "is led by other videos or images"),
    **dict.fromkeys(("Fill", "Kontext", "Redux"), "is given an image beside the text"),
}


def vet_checkpoint(folder: Path, choice: WeightsChoice = ANY_WEIGHTS) -> Layout:
    """Check all that a checkpoint's files say before its weights are read.

    Args:
        folder: holds them.
        choice: of a network's sets of weights.

    Raises:
        UserError: naming the file that is missing, or says what no checkpoint of this project says.
    """
    layout = _read_layout(folder / "model_index.json")
    family, stems = layout.family, layout.stems
    known = {**family.parts, **family.optional}
    configs = {part: vet_network(folder / part, stem, known[part][1], choice) for part, stem in stems.items()}
    check_variant(folder, stems.items(), choice)
    if layout.has_unet and configs["unet"].get("addition_embed_type") != family.addition:
        raise UserError(f"{folder} is no {family.name} checkpoint: its UNet is of another kind.")
    for tokenizer in layout.tokenizers:
        for name in (*TOKENIZER_FILES, SENTENCEPIECE):
            _vet_tokenizer_file(folder / tokenizer / name)
    config = read_scheduler(folder / SCHEDULER_FILE, family)
    named = config.get("_class_name")
    # Of flows, whose shift has one name in one class and another in the other.
    if family.flow and named not in {None, layout.classes["scheduler"]}:
        raise UserError(
            f"{folder / SCHEDULER_FILE} is of the class {quoted(named)}, model_index.json names "
            f"{layout.classes['scheduler']}: name the same in both."
        )
    return layout


def read_scheduler(path: Path, family: Family = STABLE_DIFFUSION) -> dict[str, Any]:
    """The configuration of a schedule that is reproduced: DDIM's noise levels, or a flow's.

    Args:
        path: its file.
        family: whose schedule it is.

    Raises:
        UserError: naming the file and what it says.
    """
    config = read_config(path, infinite=True)  # diffusers writes lambda_min_clipped as -Infinity
    if not family.flow:
        check_no_flow(config, path)
    _check_class(config.get("_class_name"), family.parts["scheduler"][1], path)
    for name, value in config.items():
        long = isinstance(value, list) and len(value) > MAX_NOISE_LEVELS
        if long or any(abs(number) > MAX_NOISE_LEVELS for number in whole_numbers(value)):
            raise UserError(
                f"{path}: {name} is {quoted(value)}: a schedule has at most {MAX_NOISE_LEVELS} noise levels; get the "
                "checkpoint again."
            )
    if not family.flow:
        vet_schedule(config, path)
        return config
    vet_flow(config, path)
    if config.get("use_dynamic_shifting") and not family.dynamic_shift:
        raise UserError(
            f"{path}: use_dynamic_shifting is true, which diffusers' {family.pipelines[0]} does not do: set it to "
            "false, and shift to a number."
        )
    return config


def vet_adapter(folder: Path, choice: WeightsChoice = ANY_WEIGHTS) -> None:
    """Check all that a motion adapter's files say before its weights are read.

    Raises:
        UserError: as `vet_checkpoint`.
    """
    vet_network(folder, ADAPTER_STEM, (MOTION_ADAPTER,), choice)
    if (folder / SCHEDULER_FILE).exists():
        read_scheduler(folder / SCHEDULER_FILE)


def vet_network(folder: Path, stem: str, classes: Sequence[str], choice: WeightsChoice = ANY_WEIGHTS) -> dict[str, Any]:
    """Check a network's configuration against its weights' headers.

    Args:
        folder: holds both.
        stem: name of the weights' file before ".safetensors".
        classes: that the configuration may name.
        choice: of its sets of weights.

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
    check_depth(config, tensor_shapes(weight_files(folder, stem, chosen_variant(folder, stem, choice))), path)
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
        most = MAX_CHANNELS if name in BY_CHANNEL else max(depth, MAX_LEVELS)
        long = isinstance(value, list) and len(value) > most
        if value is True and name.endswith(COUNTS) and name not in FLAGS:
            raise UserError(f"{path}: {name} is true: it is a number; get the checkpoint again.")
        many = "layers" in name or "blocks" in name  # of either kind, by the names that both libraries give them
        if long or (many and any(not 0 <= number <= depth for number in whole_numbers(value))):
            raise UserError(
                f"{path}: {name} is {quoted(value)}, but the weights beside it have at most {depth} layers of a kind: "
                "they do not belong together; get the checkpoint again."
            )


def read_config(path: Path, *, infinite: bool = False) -> dict[str, Any]:
    """A file that holds one JSON object, in which nothing names code.

    Args:
        path: its file.
        infinite: let it hold infinite numbers.

    Raises:
        UserError: if it cannot be read, holds something else, or names code.
    """
    values = read_object(path, infinite=infinite)
    for name, value in _items(values):
        kernel = "attn_implementation" in name and name not in HARMLESS
        if name in CODE or kernel or (isinstance(value, str) and value.endswith(".py")):
            raise UserError(
                f"{path}: {quoted(name)} is {quoted(value)}, which would run code that a checkpoint names: take it "
                "away, or use another checkpoint."
            )
    return values


def read_object(path: Path, *, infinite: bool = False) -> dict[str, Any]:
    """A file that holds one JSON object.

    Args:
        path: its file.
        infinite: let it hold infinite numbers.

    Raises:
        UserError: if it cannot be read, or holds something else.
    """
    try:
        values = read_json(path, infinite=infinite)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): restore it.") from error
    except ValueError as error:
        raise UserError(f"{path} is not readable JSON ({shortened(str(error), 200)}): mend it.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds {quoted(values)} in place of a JSON object: mend it.")
    return values


def weight_files(folder: Path, stem: str, variant: str | None = None) -> list[Path]:
    """The safetensors files of a network, one or those that an index lists; links to files are followed.

    Args:
        folder: the network's.
        stem: name of the files before what tells them apart.
        variant: the one to read; None is the set without a variant.

    Raises:
        UserError: if there is none, one is no regular file, or the index leads elsewhere.
    """
    dotted = f".{variant}" if variant else ""
    index, whole = folder / f"{stem}.safetensors.index{dotted}.json", folder / f"{stem}{dotted}.safetensors"
    if not whole.exists() and not index.exists() and (original := original_file(folder)):
        whole = original
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
            raise _not_there(file, indexed=index.exists())
    return files


def _not_there(file: Path, *, indexed: bool) -> UserError:
    """Why a file of weights cannot be read."""
    folder = file.parent
    if indexed:
        return UserError(f"{file} is missing or no regular file, and the index beside it names it: get it again.")
    others = ", ".join(sorted(path.name for path in folder.glob("*.safetensors"))[:3])
    if others:
        return UserError(
            f"{folder} has no {file.name} but {shortened(others, 200)}, names that diffusers does not read: give the "
            "file the first name, or save the checkpoint again with save_pretrained."
        )
    return UserError(
        f"{folder.parent} has no safetensors weights in {folder.name}/ ({file.name} is missing or no regular "
        "file); other formats can run code and are not read. Save it again with "
        "save_pretrained(..., safe_serialization=True), or make it safe with `fatezero convert`."
    )


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
                    if not (tensor.get_dtype().startswith(("F", "BF")) or is_no_weight(name, shapes[name])):
                        raise UserError(
                            f"{file}: {quoted(name)} holds {tensor.get_dtype()}, not floating-point numbers: "
                            "quantised weights are not read."
                        )
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{file} does not read as safetensors ({shortened(str(error), 200)}): {_way_in(file)}."
            ) from error
    return shapes


def is_no_weight(name: str, shape: Sequence[int]) -> bool:
    """Whether whole numbers of this name and shape stand beside weights: places, marks and counters."""
    return prod(shape) <= 1 or name.endswith(NOT_WEIGHTS)


def _way_in(file: Path) -> str:
    """What to do with a file that is named *.safetensors and is something else, by its first bytes."""
    try:
        with file.open("rb") as opened:
            start = opened.read(max(map(len, FIRST_BYTES)))
    except OSError:
        return "make it readable, or get it again"
    return next((mend for first, mend in FIRST_BYTES.items() if start.startswith(first)), "get it again")


def whole_numbers(value: Any) -> Iterator[int]:
    """Those in a value of JSON, in lists and mappings too."""
    if isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from whole_numbers(inner)
    elif isinstance(value, int):
        yield value


def _read_layout(path: Path) -> Layout:
    index = read_config(path)
    _refuse_other_models(index, path)
    pipeline = index.get("_class_name")
    _check_class(pipeline, tuple(FAMILY_OF), path, needed=True)
    family = FAMILY_OF[str(pipeline)]
    scheduler = index.get("scheduler")
    if isinstance(scheduler, list) and not family.flow:
        check_no_flow({"_class_name": scheduler[-1] if scheduler else None}, path)
    known = {*family.parts, *family.optional, *family.left_aside}
    for part, named in index.items():
        if part in known or isinstance(named, list | dict):
            _check_part(part, named, family, path)
    missing = family.parts.keys() - index.keys()
    if missing:
        raise UserError(f"{path} names no {min(missing)}: give a folder in diffusers' layout of {family.name}.")
    there = [part for part in family.optional if index.get(part, [None, None]) != [None, None]]
    classes = {part: index[part][1] for part in (*family.parts, *there)}
    return _with_settings(Layout(str(pipeline), classes), index, path)


def _with_settings(layout: Layout, index: Mapping[str, Any], path: Path) -> Layout:
    """What a model_index.json says beside parts."""
    zeros, expand = index.get("force_zeros_for_empty_prompt", True), index.get("expand_timesteps", False)
    for name, value in (("force_zeros_for_empty_prompt", zeros), ("expand_timesteps", expand)):
        if not isinstance(value, bool):
            raise UserError(f"{path}: {name} is {quoted(value)}: it is true or false.")
    boundary = index.get("boundary_ratio")
    if boundary is not None and (not isinstance(boundary, float) or not 0 < boundary < 1):
        raise UserError(f"{path}: boundary_ratio is {quoted(boundary)}: it is a share of the noise levels, as 0.875.")
    if (boundary is not None) != ("transformer_2" in layout.classes):
        raise UserError(
            f"{path} has boundary_ratio without transformer_2, or the second without the first: a model of two stages "
            "has both; get the checkpoint again."
        )
    for one, two in (("text_encoder_3", "tokenizer_3"), ("tokenizer_3", "text_encoder_3")):
        if one in layout.classes and two not in layout.classes:
            raise UserError(f"{path} names {one} and no {two}, which it works with: get the checkpoint again.")
    return replace(layout, zeros_for_empty_prompt=zeros, boundary_ratio=boundary, expand_timesteps=expand)


def _refuse_other_models(index: Mapping[str, Any], path: Path) -> None:
    """Say of models that people have, and that FateZero does not edit with, what they are."""
    pipeline = index.get("_class_name")
    if isinstance(pipeline, str) and pipeline not in FAMILY_OF:
        wants = next((said for part, said in CONDITIONED.items() if part in pipeline), None)
        if wants is not None:
            raise UserError(f"{path} is of the class {quoted(pipeline)}, which {wants}: use one of text alone.")
    if pipeline in SDXL.pipelines and (
        index.get("requires_aesthetics_score") is True or index.get("text_encoder") == [None, None]
    ):
        raise UserError(
            f"{path} describes SDXL's refiner, which only finishes what the base model began and has one text encoder: "
            "give the base model or a fine-tune of it."
        )


def _check_part(part: str, named: Any, family: Family, path: Path) -> None:
    if (part in family.optional or part not in family.parts) and named == [None, None]:
        return
    library, classes = _known_parts(family).get(part, ("", ()))
    if not isinstance(named, list) or len(named) != 2 or named[0] != library or named[1] not in classes:
        allowed = f"it is {library}'s {' or '.join(classes)}" if classes else f"{family.name} has no such part"
        raise UserError(f"{path}: {quoted(part)} is {quoted(named)}; {allowed}.")


def _known_parts(family: Family) -> Parts:
    return {**family.parts, **family.optional, **family.left_aside}


def _check_class(name: Any, classes: Sequence[str], path: Path, *, needed: bool = False) -> None:
    if (name is None and not needed) or name in classes:
        return
    raise UserError(
        f"{path} is of the class {quoted(name)}, which is not one of a checkpoint that FateZero edits with; known are "
        f"{', '.join(classes)}."
    )


def _vet_tokenizer_file(path: Path) -> None:
    if not path.exists():  # which of them there are depends on the tokenizer's age; loading says what is missing
        return
    if path.suffix == ".json":
        read_config(path)
        return
    if path.name == SENTENCEPIECE:
        if not path.is_file():
            raise UserError(f"{path} is no regular file: get the checkpoint again.")
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
