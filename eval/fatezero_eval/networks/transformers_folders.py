"""Folders in transformers' layout: what lies in them, whole and without running any code of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fatezero.data.files import read_json
from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero_eval.networks.weight_files import check_finite, short_message


def load_whole(folder: Path, what: str, network: Any, processor: Any, **more: Any) -> tuple[Any, Any]:
    """A network of transformers with what prepares its input; no code of the folder is run.

    Args:
        folder: with safetensors weights.
        what: the kind of model, for messages, such as CLIP.
        network: transformers' class of the network, or one that chooses it.
        processor: likewise, of what prepares its input.
        more: further arguments for the network.

    Raises:
        UserError: there is no such network, or some of its weights are missing, of other shapes, infinite or NaN.
    """
    from safetensors import SafetensorError  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what it warns of is refused
    safely = {"local_files_only": True, "trust_remote_code": False}  # by default the user is asked
    try:
        model, info = network.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **safely, **more
        )
        prepares = processor.from_pretrained(folder, **safely)
        check_finite(model.state_dict())
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise UserError(f"{folder}: no {what} with safetensors weights ({short_message(error)}).") from error
    _check_complete(folder, info, what)
    return model, prepares


def model_type_of(folder: Path) -> str:
    """What transformers calls the kind of model in a folder.

    Raises:
        UserError: it has no config.json, or that does not say.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"{folder}: no folder of one of transformers' models, since it has no config.json.")
    try:
        return str(read_json(config)["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{config} does not say which model it is ({short_message(error)}): get it again.") from error


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder without a vocabulary: transformers would make one that knows no word, without a warning.

    Raises:
        UserError: there is none.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "tokenizer.model")):
        raise UserError(
            f"{folder} has no tokenizer (tokenizer.json, or vocab.json and merges.txt): get the folder again."
        )


def _check_complete(folder: Path, info: Mapping[str, Any], what: str) -> None:
    """Refuse a model of which some weights are missing, and would be random, by transformers' loading info."""
    wrong = sorted({*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])})
    if wrong:
        raise UserError(
            f"{folder} lacks weights of a {what}, or has them in other shapes ({len(wrong)}, among them "
            f"{quoted(wrong[0])}): get the folder again."
        )
