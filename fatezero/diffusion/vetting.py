"""What a checkpoint's files say, checked before anything is made of them. Light: importing this needs no torch.

Classes come from the lists below and never from a file's own words; configurations are plain JSON; weights are regular
safetensors files, whose headers (names and shapes) say how large a network can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fatezero.data.files import read_json, read_text
from fatezero.diffusion.schedule_fields import SCHEDULER_FILE, check_no_flow, vet_schedule
from fatezero.diffusion.weight_sets import WeightsChoice, check_variant, chosen_variant, original_file
from fatezero.errors import UserError
from fatezero.system.terminal import quoted, shortened

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
TWO_ENCODERS = {
    "text_encoder_2": ("transformers", ("CLIPTextModelWithProjection",)),
    "tokenizer_2": PARTS["tokenizer"],
}
LEFT_ASIDE = {
    "safety_checker": ("stable_diffusion", ("StableDiffusionSafetyChecker",)),
    "feature_extractor": ("transformers", ("CLIPFeatureExtractor", "CLIPImageProcessor", "CLIPImageProcessorFast")),
    "image_encoder": ("transformers", ("CLIPVisionModelWithProjection",)),
    "motion_adapter": ("diffusers", (MOTION_ADAPTER,)),
}
STEMS = {
    **{"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"},
    **{"text_encoder": "model", "text_encoder_2": "model"},
}
ADAPTER_STEM = "diffusion_pytorch_model"
ARCHITECTURES = ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel")
TOKENIZER_FILES = (
    *("tokenizer_config.json", "tokenizer.json", "vocab.json", "special_tokens_map.json", "added_tokens.json"),
    "merges.txt",
)
# What makes a library import, download or run something.
CODE = ("auto_map", "custom_pipeline", "custom_pipelines", "_module", "quantization_config", "trust_remote_code")
CODE_FILES = ("adapter_config.json",)
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
MAX_LAYERS = 256  # of a kind, in networks of today fewer than 50
MAX_LEVELS = 16  # resolutions of a network; lists in a configuration give a value for each
MAX_NOISE_LEVELS = 10_000  # trainings take 1000


@dataclass(frozen=True)
class Family:
    """Checkpoints of one layout.

    Attributes:
        name: as people say it.
        pipelines: diffusers' classes of image models.
        animated: that of video models.
        parts: library and classes of the parts that are loaded.
        addition: what the UNet is told beside prompt and timestep: its `addition_embed_type`.
    """

    name: str
    pipelines: tuple[str, ...]
    animated: str
    parts: Mapping[str, tuple[str, tuple[str, ...]]]
    addition: str | None

    @property
    def two_encoders(self) -> bool:
        """Whether it has two text encoders."""
        return "text_encoder_2" in self.parts


FAMILIES = (
    Family(
        "Stable Diffusion 1.x or 2.x",
        (
            *("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
            *("LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline"),
        ),
        "AnimateDiffPipeline",
        PARTS,
        None,
    ),
    Family(
        "SDXL",
        ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"),
        "AnimateDiffSDXLPipeline",
        PARTS | TWO_ENCODERS,
        "text_time",
    ),
)
FAMILY_OF = {pipeline: family for family in FAMILIES for pipeline in (*family.pipelines, family.animated)}
# Their transformers join text and image in one attention, where no map of the words stands apart to be fused.
JOINT_ATTENTION = ("StableDiffusion3", "Flux")
JOINT_TRANSFORMERS = ("SD3Transformer", "FluxTransformer", "Flux2Transformer")


@dataclass(frozen=True)
class Layout:
    """What a checkpoint is made of.

    Attributes:
        pipeline: class of diffusers.
        classes: class by part.
        zeros_for_empty_prompt: SDXL's unconditional branch is told zeros.
    """

    pipeline: str
    classes: Mapping[str, str]
    zeros_for_empty_prompt: bool = True

    @property
    def family(self) -> Family:
        """The family that the pipeline is of."""
        return FAMILY_OF[self.pipeline]

    @property
    def animated(self) -> bool:
        """Whether it is a video model."""
        return self.pipeline == self.family.animated

    @property
    def stems(self) -> dict[str, str]:
        """Of its networks, the name of the weights' file before ".safetensors"."""
        return {part: stem for part, stem in STEMS.items() if part in self.classes}


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
    configs = {part: vet_network(folder / part, stem, family.parts[part][1], choice) for part, stem in stems.items()}
    check_variant(folder, stems.items(), choice)
    if configs["unet"].get("addition_embed_type") != family.addition:
        raise UserError(f"{folder} is no {family.name} checkpoint: its UNet is of another kind.")
    for tokenizer in ("tokenizer", "tokenizer_2") if family.two_encoders else ("tokenizer",):
        for name in TOKENIZER_FILES:
            _vet_tokenizer_file(folder / tokenizer / name)
    read_scheduler(folder / SCHEDULER_FILE)
    return layout


def read_scheduler(path: Path) -> dict[str, Any]:
    """The configuration of a noise schedule that DDIM reproduces.

    Raises:
        UserError: naming the file and what it says.
    """
    config = read_config(path, infinite=True)  # diffusers writes lambda_min_clipped as -Infinity
    check_no_flow(config, path)
    _check_class(config.get("_class_name"), SCHEDULERS, path)
    for name, value in config.items():
        long = isinstance(value, list) and len(value) > MAX_NOISE_LEVELS
        if long or any(abs(number) > MAX_NOISE_LEVELS for number in whole_numbers(value)):
            raise UserError(
                f"{path}: {name} is {quoted(value)}: a schedule has at most {MAX_NOISE_LEVELS} noise levels; get the "
                "checkpoint again."
            )
    vet_schedule(config, path)
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
        long = isinstance(value, list) and len(value) > max(depth, MAX_LEVELS)
        if value is True and name.endswith(COUNTS):
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
        if name in CODE or "attn_implementation" in name or (isinstance(value, str) and value.endswith(".py")):
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
    pipeline = index.get("_class_name")
    _refuse_other_models(index, path)
    _check_class(pipeline, tuple(FAMILY_OF), path, needed=True)
    parts = FAMILY_OF[str(pipeline)].parts
    scheduler = index.get("scheduler")
    if isinstance(scheduler, list):
        check_no_flow({"_class_name": scheduler[-1] if scheduler else None}, path)
    for part, named in index.items():
        if part in parts or part in LEFT_ASIDE or isinstance(named, list | dict):
            _check_part(part, named, parts, path)
    missing = parts.keys() - index.keys()
    if missing:
        raise UserError(f"{path} names no {min(missing)}: give a folder in diffusers' Stable Diffusion layout.")
    zeros = index.get("force_zeros_for_empty_prompt", True)
    if not isinstance(zeros, bool):
        raise UserError(f"{path}: force_zeros_for_empty_prompt is {quoted(zeros)}: it is true or false.")
    return Layout(str(pipeline), {part: index[part][1] for part in parts}, zeros)


def _refuse_other_models(index: Mapping[str, Any], path: Path) -> None:
    """Say of models that people have, and that FateZero does not edit with, what they are."""
    named = index.get("transformer")
    transformer = named[-1] if isinstance(named, list) and named else None
    for name, starts in ((index.get("_class_name"), JOINT_ATTENTION), (transformer, JOINT_TRANSFORMERS)):
        if isinstance(name, str) and name.startswith(starts):
            raise UserError(
                f"{path} is of the class {quoted(name)}, a transformer that joins text and image in one attention, "
                "while FateZero edits by cross-attention of its own: give a Stable Diffusion 1.x, 2.x or SDXL "
                "checkpoint."
            )
    if index.get("requires_aesthetics_score") is True or (
        "text_encoder_2" in index and index.get("text_encoder") == [None, None]
    ):
        raise UserError(
            f"{path} describes SDXL's refiner, which only finishes what the base model began and has one text encoder: "
            "give the base model or a fine-tune of it."
        )


def _check_part(part: str, named: Any, parts: Mapping[str, tuple[str, tuple[str, ...]]], path: Path) -> None:
    if part in LEFT_ASIDE and named == [None, None]:
        return
    library, classes = {**parts, **LEFT_ASIDE}.get(part, ("", ()))
    if not isinstance(named, list) or len(named) != 2 or named[0] != library or named[1] not in classes:
        allowed = f"it is {library}'s {' or '.join(classes)}" if classes else "Stable Diffusion has no such part"
        raise UserError(f"{path}: {quoted(part)} is {quoted(named)}; {allowed}.")


def _check_class(name: Any, classes: Sequence[str], path: Path, *, needed: bool = False) -> None:
    if (name is None and not needed) or name in classes:
        return
    raise UserError(
        f"{path} is of the class {quoted(name)}, which is not a Stable Diffusion 1.x, 2.x or SDXL checkpoint's; known "
        f"are {', '.join(classes)}."
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
