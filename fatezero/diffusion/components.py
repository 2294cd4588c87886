"""A checkpoint's networks, tokenizer and schedule, each by its own class, and whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fatezero.diffusion.checkpoint import pixels_per_latent
from fatezero.diffusion.vetting import (
    ADAPTER_STEM,
    MOTION_ADAPTER,
    STEMS,
    Layout,
    read_object,
    tensor_shapes,
    vet_network,
    weight_files,
)
from fatezero.errors import UserError, as_failure, first_line, out_of_memory
from fatezero.system.terminal import quoted

TEXT_ENCODER = "CLIPTextModel"
TRIAL_SIDE = 64  # of latents: a multiple of every level's
# Of a text encoder's configuration, what says how it computes; the rest is for training and for other libraries.
TEXT_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "hidden_act", "layer_norm_eps", "pad_token_id", "bos_token_id", "eos_token_id"),
    "use_attention_mask",
)
# In files of whole CLIP models, and of older versions: not weights of these networks.
NOT_OURS = ("position_ids", "text_projection.weight", "logit_scale")
NOT_OURS_PARTS = ("vision_model.", "visual_projection.")


def load_parts(folder: Path, layout: Layout, dtype: torch.dtype) -> dict[str, Any]:
    """The parts of a vetted checkpoint by name, on the CPU.

    Raises:
        UserError: naming the part, and the tensor where one is missing, of another shape or not finite.
    """
    import diffusers  # noqa: PLC0415  (seconds to import)

    networks = {part: _load_network(folder / part, layout.classes[part], STEMS[part], dtype) for part in STEMS}
    tokenizer = _load_tokenizer(folder / "tokenizer", networks["text_encoder"].config)
    path = folder / "scheduler" / "scheduler_config.json"
    try:
        scheduler = getattr(diffusers, layout.classes["scheduler"]).from_config(read_object(path))
    except Exception as error:  # a value of any wrong type
        raise UserError(f"{path} describes no noise schedule ({first_line(error)}): get it again.") from error
    return {**networks, "tokenizer": tokenizer, "scheduler": scheduler}


def load_motion_adapter(folder: Path, dtype: torch.dtype) -> Any:
    """A vetted motion adapter, on the CPU.

    Raises:
        UserError: naming the tensor where one is missing, of another shape or not finite.
    """
    return _load_network(folder, MOTION_ADAPTER, ADAPTER_STEM, dtype)


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


def _load_network(folder: Path, class_name: str, stem: str, dtype: torch.dtype) -> Any:
    config = vet_network(folder, stem, (class_name,))
    own = {"config": _text_config(config, folder)} if class_name == TEXT_ENCODER else {}
    _check_size(check_description(class_name, own.get("config", config), f"{folder}/config.json"), folder, stem)
    try:
        made, info = _class(class_name).from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # below, by name
            **own,
        )
    except Exception as error:  # the libraries raise a dozen kinds
        if out_of_memory(error):
            raise as_failure(error) from error
        raise UserError(f"{folder} does not load as a {class_name} ({first_line(error)}).") from error
    _check_complete(info, folder)
    check_finite(made.state_dict().items(), str(folder))
    return made


def _class(name: str) -> Any:
    import diffusers  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    return getattr(transformers if name == TEXT_ENCODER else diffusers, name)


def _text_config(values: dict[str, Any], folder: Path) -> Any:
    from transformers import CLIPTextConfig  # noqa: PLC0415

    if values.get("model_type") == "clip" and isinstance(values.get("text_config"), dict):
        values = values["text_config"]
    try:
        return CLIPTextConfig(**{name: values[name] for name in TEXT_FIELDS if name in values})
    except Exception as error:  # a value of any wrong type
        raise UserError(f"{folder}/config.json describes no text encoder ({first_line(error)}).") from error


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
            empty = network(config) if class_name == TEXT_ENCODER else network.from_config(config)
            sound = _gives_what_it_takes(empty, class_name)
    except Exception as error:  # whatever a wrong value leads to
        raise UserError(f"{where} describes no working {class_name} ({first_line(error)}): get it again.") from error
    if not sound:
        raise UserError(f"{where} describes a {class_name} that changes the size of what it is given: get it again.")
    return empty  # type: ignore[no-any-return]


def _gives_what_it_takes(empty: Any, class_name: str) -> bool:
    """Call a network on the "meta" device; whether rows and columns come out as they went in."""
    if class_name == TEXT_ENCODER:
        return bool(empty(torch.zeros(1, 2, dtype=torch.long))[0].shape[1] == 2)
    if class_name.startswith("Autoencoder"):
        unit = pixels_per_latent(empty.config)
        given = torch.zeros(1, 3, unit * TRIAL_SIDE, unit * TRIAL_SIDE)
        encoded = empty.encode(given)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        return bool(latents.shape[-1] == TRIAL_SIDE and empty.decode(latents).sample.shape == given.shape)
    if class_name == MOTION_ADAPTER:  # has no call of its own
        return True
    frames = (1,) if class_name == "UNetMotionModel" else ()
    given = torch.zeros(1, empty.config.in_channels, *frames, TRIAL_SIDE, TRIAL_SIDE)
    text = torch.zeros(1, 2, empty.config.encoder_hid_dim or empty.config.cross_attention_dim)
    return bool(empty(given, 1, text).sample.shape[2:] == given.shape[2:])


def _check_size(empty: nn.Module, folder: Path, stem: str) -> None:
    """Refuse a configuration of more numbers than the weights hold, before they take any memory."""
    shapes = tensor_shapes(weight_files(folder, stem))
    needed, held = sum(value.numel() for value in empty.parameters()), sum(map(prod, shapes.values()))
    if needed > held:
        missing = sorted(name for name in empty.state_dict() if not any(one.endswith(name) for one in shapes))
        example = f"; {missing[0]} is not among them" if missing else ""
        raise UserError(
            f"{folder}/config.json describes {needed} numbers, the weights beside it hold {held}{example}: "
            "they do not belong together; get the checkpoint again."
        )


def _check_complete(info: dict[str, Any], folder: Path) -> None:
    again = "the configuration and the weights do not belong together; get the checkpoint again."
    for name in sorted(info["missing_keys"]):
        raise UserError(f"{folder} has no weight {name}: {again}")
    for name, found, wanted in sorted(info["mismatched_keys"], key=str):
        shapes = f"shape {tuple(found)}, the configuration asks for {tuple(wanted)}"
        raise UserError(f"{folder}: the weight {name} is of {shapes}: {again}")
    for name in sorted(info["unexpected_keys"]):
        if not name.endswith(NOT_OURS) and not any(part in name for part in NOT_OURS_PARTS):
            raise UserError(f"{folder} has a weight {quoted(name)} that its configuration has no layer for: {again}")


def _load_tokenizer(folder: Path, text_config: Any) -> Any:
    from transformers import CLIPTokenizer  # noqa: PLC0415

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        context = tokenizer.model_max_length
        if not 3 <= context <= text_config.max_position_embeddings:
            raise UserError(
                f"{folder}/tokenizer_config.json: model_max_length is {quoted(context)}, the text encoder reads at "
                f"most {text_config.max_position_embeddings} tokens: set it to that."
            )
        ids = tokenizer("a", padding="max_length", max_length=context, return_offsets_mapping=True)["input_ids"]
        largest = max(*ids, *tokenizer.get_vocab().values())
    except UserError:
        raise
    except Exception as error:  # the library raises a dozen kinds
        raise UserError(f"{folder} does not load as a CLIPTokenizer ({first_line(error)}).") from error
    if largest >= text_config.vocab_size:
        raise UserError(
            f"{folder} has a token {largest}, the text encoder knows {text_config.vocab_size}: they do not belong "
            "together; get the checkpoint again."
        )
    return tokenizer
