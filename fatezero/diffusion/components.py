"""A checkpoint's networks, tokenizer and schedule, each by its own class, and whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fatezero.diffusion.ddim import as_ddim
from fatezero.diffusion.layouts import ADAPTER_STEM, MOTION_ADAPTER, PARTS, STEMS, Layout
from fatezero.diffusion.original_weights import original_weights
from fatezero.diffusion.schedule_fields import SCHEDULER_FILE
from fatezero.diffusion.schedule_trial import check_steps
from fatezero.diffusion.text_parts import TEXT_ENCODERS, load_tokenizers, text_config
from fatezero.diffusion.trial_calls import gives_what_it_takes
from fatezero.diffusion.vetting import read_object, read_scheduler, tensor_shapes, vet_network, weight_files
from fatezero.diffusion.weight_sets import WeightsChoice, chosen_variant, original_file, variants_in
from fatezero.errors import UserError, as_failure, first_line, out_of_memory
from fatezero.system.terminal import quoted

HALVES = (torch.float16, torch.bfloat16)
# Numbers, such as places, that a network may compute of its configuration beyond as many as it has weights.
SPARE_BUFFERS = 2**22
# In files of whole CLIP models, and of older versions: not weights of these networks.
NOT_OURS = ("position_ids", "text_projection.weight", "logit_scale")
NOT_OURS_PARTS = ("vision_model.", "visual_projection.")
_SOUND: set[tuple[str, str]] = set()  # descriptions of networks that have given what they took, in this process


def load_parts(
    folder: Path, layout: Layout, dtype: torch.dtype, *, variant: str | None = None, vae: Path | None = None
) -> dict[str, Any]:
    """The parts of a vetted checkpoint by name, on the CPU.

    Args:
        folder: the checkpoint's.
        layout: what it is made of.
        dtype: of the networks.
        variant: of the weights, where a network has several.
        vae: folder of another autoencoder than the checkpoint's own.

    Raises:
        UserError: naming the part, and the tensor where one is missing, of another shape or not finite.
    """
    sources = _sources(folder, layout, vae)
    dtypes = {"vae": _autoencoder_dtype(*sources["vae"], layout, dtype)}
    networks = {
        part: _load_network(place, name, STEMS[part], dtypes.get(part, dtype), variant)
        for part, (place, name) in sources.items()
    }
    tokenizers = load_tokenizers(folder, layout, networks)
    return {**networks, **tokenizers, "scheduler": load_schedule(folder, layout)}


def load_schedule(folder: Path, layout: Layout) -> Any:
    """The schedule of a vetted checkpoint: of a transformer its own, of a UNet its noise levels under DDIM.

    An image model of Stable Diffusion 1.x or 2.x whose file is outdated gets what diffusers' pipeline gives it: nothing
    is clipped, and steps are placed one level up.

    Raises:
        UserError: if there is no such schedule, or DDIM has no such levels.
    """
    import diffusers  # noqa: PLC0415  (seconds to import)

    path = folder / SCHEDULER_FILE
    config = read_scheduler(path, layout.family)
    try:
        scheduler = getattr(diffusers, layout.classes["scheduler"]).from_config(config)
    except Exception as error:  # a value of any wrong type
        raise UserError(f"{path} describes no noise schedule ({first_line(error)}): get it again.") from error
    if not layout.has_unet:
        check_steps(scheduler, path)
        return scheduler
    ddim = as_ddim(scheduler, path)
    if layout.animated or layout.family.two_encoders:
        return ddim
    return diffusers.DDIMScheduler.from_config(ddim.config, clip_sample=False, steps_offset=1)


def _autoencoder_dtype(folder: Path, class_name: str, layout: Layout, dtype: torch.dtype) -> torch.dtype:
    """Float32 for an autoencoder that loses too much in the networks' dtype.

    bfloat16 holds 8 bits of a number, no more than a pixel has. In float16 SDXL's own autoencoder overflows, and its
    configuration says so; a mended one says that it does not. Stable Diffusion 1.x and 2.x have one that does not
    overflow, whatever the default of `force_upcast` says of it. Beside transformers diffusers advises float32 for
    Wan's, and says of most others nothing: all of them are read in float32.
    """
    if not layout.has_unet:
        return torch.float32 if dtype in HALVES else dtype
    overflows = read_object(folder / "config.json").get("force_upcast", class_name == "AutoencoderKL")
    if dtype == torch.bfloat16 or (dtype == torch.float16 and layout.family.two_encoders and overflows):
        return torch.float32
    return dtype


def autoencoder_class(folder: Path, classes: Sequence[str] = PARTS["vae"][1]) -> str:
    """The class that an autoencoder's configuration names.

    Args:
        folder: the autoencoder's.
        classes: that it may be of.

    Raises:
        UserError: if it names none, or another.
    """
    name = vet_network(folder, STEMS["vae"], classes).get("_class_name")
    if name is None:
        raise UserError(f"{folder}/config.json names no class: it is {' or '.join(classes)}.")
    return str(name)


def load_motion_adapter(folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """A vetted motion adapter, on the CPU.

    Raises:
        UserError: naming the tensor where one is missing, of another shape or not finite.
    """
    return _load_network(folder, MOTION_ADAPTER, ADAPTER_STEM, dtype, variant)


def check_finite(tensors: Iterable[tuple[str, Tensor]], where: str) -> None:
    """Refuse weights that are no numbers.

    Raises:
        UserError: naming the first tensor with NaN or infinity.
    """
    for name, value in tensors:
        if not bool(value.isfinite().all()):
            raise UserError(
                f"{where}: {name} holds NaN or infinity in {value.dtype}: use dtype float32, or get the weights again."
            )


@dataclass(frozen=True)
class EmptyNetwork:
    """A network as its files describe it, none of its weights read.

    Attributes:
        network: on the "meta" device.
        config: what describes it, a mapping or transformers' own.
        files: that hold the weights.
        variant: of these.
        original: the single file in its authors' layout that they are in; None where they are in diffusers'.
        origin: names the weights in errors.
    """

    network: Any
    config: Any
    files: tuple[Path, ...]
    variant: str | None
    original: Path | None
    origin: str


def empty_network(folder: Path, class_name: str, stem: str, choice: WeightsChoice) -> EmptyNetwork:
    """A network without weights, checked against their headers.

    Args:
        folder: holds its configuration.
        class_name: of diffusers or transformers.
        stem: beginning of the weights' file names.
        choice: of its sets of weights.

    Raises:
        UserError: naming what is wrong with the files.
    """
    variant = chosen_variant(folder, stem, choice)
    config: Any = vet_network(folder, stem, (class_name,), choice)
    if class_name in TEXT_ENCODERS:
        config = text_config(class_name, config, folder)
    files = tuple(weight_files(folder, stem, variant))
    network = check_description(class_name, config, f"{folder}/config.json")
    _check_size(network, folder, files)
    original = None if variants_in(folder, stem) else original_file(folder)
    origin = str(folder) if original is None else f"{original.resolve()}, {class_name},"
    if original is not None and class_name not in TEXT_ENCODERS:  # whose names transformers knows several of
        weights = _read_original(class_name, config, original, origin)  # in their file until they are looked at
        _check_complete(_differences(network, weights), origin)
    return EmptyNetwork(network, config, files, variant, original, origin)


def empty_parts(
    folder: Path, layout: Layout, choice: WeightsChoice, vae: Path | None = None
) -> tuple[dict[str, EmptyNetwork], dict[str, Any]]:
    """The networks of a vetted checkpoint without weights, and its tokenizers, by part.

    Raises:
        UserError: naming what is wrong with the files.
    """
    sources = _sources(folder, layout, vae)
    parts = {part: empty_network(place, name, STEMS[part], choice) for part, (place, name) in sources.items()}
    return parts, load_tokenizers(folder, layout, parts)


def _sources(folder: Path, layout: Layout, vae: Path | None) -> dict[str, tuple[Path, str]]:
    """Folder and class of each network."""
    own = {part: (folder / part, layout.classes[part]) for part in layout.stems}
    return own if vae is None else {**own, "vae": (vae, autoencoder_class(vae, layout.family.parts["vae"][1]))}


def _load_network(folder: Path, class_name: str, stem: str, dtype: torch.dtype, asked: str | None) -> Any:
    empty = empty_network(folder, class_name, stem, WeightsChoice(asked, str(dtype).removeprefix("torch.")))
    try:
        if empty.original is not None:
            weights = _read_original(class_name, empty.config, empty.original, empty.origin)
            made, info = _filled(class_name, empty.config, weights, dtype)
        else:
            own = {"config": empty.config} if class_name in TEXT_ENCODERS else {}
            made, info = _class(class_name).from_pretrained(
                folder, variant=empty.variant, use_safetensors=True, local_files_only=True, **_strict(dtype), **own
            )
    except UserError:
        raise
    except Exception as error:  # the libraries raise a dozen kinds
        if out_of_memory(error):
            raise as_failure(error) from error
        raise UserError(f"{empty.origin} does not load as a {class_name} ({first_line(error)}).") from error
    _check_complete(info, empty.origin)
    check_finite(made.state_dict().items(), empty.origin)
    # Beside half precision the libraries keep some layers in float32 (T5's last ones, Wan's norms); beside float64 too,
    # which serves nobody.
    return made if dtype in HALVES else made.to(dtype)


def _strict(dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of either library's `from_pretrained`: what does not fit is listed, and refused by name."""
    return {"dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True}


def _read_original(class_name: str, config: Any, file: Path, origin: str) -> dict[str, Tensor]:
    try:
        return original_weights(class_name, config, file)
    except UserError:
        raise
    except Exception as error:  # diffusers' conversions raise whatever a name that they do not know leads to
        raise UserError(f"{origin} does not load as a {class_name} ({first_line(error)}).") from error


def _filled(class_name: str, config: Any, weights: dict[str, Tensor], dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """A network filled with weights, and which of them do not fit, as `from_pretrained` lists them."""
    if class_name in TEXT_ENCODERS:
        made, info = _class(class_name).from_pretrained(None, config=config, state_dict=weights, **_strict(dtype))
        return made, info
    from accelerate import init_empty_weights  # noqa: PLC0415

    with init_empty_weights(include_buffers=False):
        made = _class(class_name).from_config(config)
    made.load_state_dict({name: value.to(dtype) for name, value in weights.items()}, strict=False, assign=True)
    return made.to(dtype), _differences(made, weights)


def _differences(network: Any, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Which weights do not fit a network, as `from_pretrained` lists them."""
    own = network.state_dict()
    computed = {name for name, _ in network.named_buffers()}  # such as places in time
    return {
        "missing_keys": own.keys() - weights.keys() - computed,
        "unexpected_keys": weights.keys() - own.keys(),
        "mismatched_keys": [
            (name, weights[name].shape, own[name].shape)
            for name in weights.keys() & own.keys()
            if weights[name].shape != own[name].shape
        ],
    }


def _class(name: str) -> Any:
    import diffusers  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    return getattr(transformers if name in TEXT_ENCODERS else diffusers, name)


def check_description(class_name: str, config: Any, where: str) -> nn.Module:
    """Make a network without weights and call it once, neither of which takes memory or time to speak of.

    Args:
        class_name: of diffusers or transformers.
        config: what describes it.
        where: names the configuration in errors.

    Returns:
        The network on the "meta" device.

    Raises:
        UserError: if no such network can be made, or it does not give what it takes.
    """
    network = _class(class_name)
    try:
        with torch.device("meta"), torch.no_grad():
            empty = network(config) if class_name in TEXT_ENCODERS else network.from_config(config)
            described = (class_name, str(empty.config))
            sound = described in _SOUND or gives_what_it_takes(empty, class_name)
    except Exception as error:  # whatever a wrong value leads to
        raise UserError(f"{where} describes no working {class_name} ({first_line(error)}): get it again.") from error
    if not sound:
        raise UserError(f"{where} describes a {class_name} that changes the size of what it is given: get it again.")
    _SOUND.add(described)
    return empty  # type: ignore[no-any-return]


def _check_size(empty: nn.Module, folder: Path, files: Iterable[Path]) -> None:
    """Refuse a configuration of more numbers than the weights hold, before they take any memory."""
    shapes = tensor_shapes(files)
    needed, held = sum(value.numel() for value in empty.parameters()), sum(map(prod, shapes.values()))
    computed = sum(value.numel() for value in empty.buffers())
    if computed > held + SPARE_BUFFERS:
        raise UserError(
            f"{folder}/config.json describes {computed} numbers of places, the weights beside it hold {held}: they do "
            "not belong together; get the checkpoint again."
        )
    if needed > held:
        missing = sorted(name for name in empty.state_dict() if not any(one.endswith(name) for one in shapes))
        example = f"; {missing[0]} is not among them" if missing else ""
        raise UserError(
            f"{folder}/config.json describes {needed} numbers, the weights beside it hold {held}{example}: "
            "they do not belong together; get the checkpoint again."
        )


def _check_complete(info: dict[str, Any], origin: str) -> None:
    again = "the configuration and the weights do not belong together; get the checkpoint again."
    for name in sorted(info["missing_keys"]):
        raise UserError(f"{origin} has no weight {name}: {again}")
    for name, found, wanted in sorted(info["mismatched_keys"], key=str):
        shapes = f"shape {tuple(found)}, the configuration asks for {tuple(wanted)}"
        raise UserError(f"{origin}: the weight {name} is of {shapes}: {again}")
    for name in sorted(info["unexpected_keys"]):
        if not name.endswith(NOT_OURS) and not any(part in name for part in NOT_OURS_PARTS):
            raise UserError(f"{origin} has a weight {quoted(name)} that its configuration has no layer for: {again}")
