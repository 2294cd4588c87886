"""A checkpoint's text encoders as their configurations describe them, and its tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fatezero.diffusion.layouts import Layout
from fatezero.errors import UserError, first_line
from fatezero.system.terminal import quoted

_CLIP_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "hidden_act", "layer_norm_eps", "pad_token_id", "bos_token_id", "eos_token_id"),
    "use_attention_mask",
)
_T5_FIELDS = (
    *("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads", "relative_attention_num_buckets"),
    *("relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj", "pad_token_id", "eos_token_id"),
)
_LLAMA_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim"),
    *("num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling"),
    *("rope_parameters", "attention_bias", "mlp_bias", "pad_token_id", "bos_token_id", "eos_token_id"),
)
# By class of a text encoder: that of its configuration, and of its fields those that say how it computes; the rest is
# for training and for other libraries.
TEXT_ENCODERS = {
    "CLIPTextModel": ("CLIPTextConfig", _CLIP_FIELDS),
    "CLIPTextModelWithProjection": ("CLIPTextConfig", _CLIP_FIELDS),
    "T5EncoderModel": ("T5Config", _T5_FIELDS),
    "UMT5EncoderModel": ("UMT5Config", _T5_FIELDS),
    "LlamaModel": ("LlamaConfig", _LLAMA_FIELDS),
}
READERS_OF_SENTENCEPIECE = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}  # package: its module
LEAST_CONTEXT = 3  # a token between begin and end


def text_config(class_name: str, values: Mapping[str, Any], folder: Path) -> Any:
    """The configuration of a text encoder, by what a vetted config.json says of how it computes.

    Args:
        class_name: of transformers.
        values: of the config.json.
        folder: named in errors.

    Raises:
        UserError: if they describe none.
    """
    import transformers  # noqa: PLC0415  (seconds to import)

    if values.get("model_type") == "clip" and isinstance(values.get("text_config"), dict):
        values = values["text_config"]
    config, fields = TEXT_ENCODERS[class_name]
    try:
        return getattr(transformers, config)(**{name: values[name] for name in fields if name in values})
    except Exception as error:  # a value of any wrong type
        raise UserError(f"{folder}/config.json describes no text encoder ({first_line(error)}).") from error


def load_tokenizers(folder: Path, layout: Layout, networks: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizers of a vetted checkpoint by part.

    Args:
        folder: the checkpoint's.
        layout: what it is made of.
        networks: its text encoders by part, each with a `config`.

    Raises:
        UserError: naming the one that does not load, or does not go with its text encoder.
    """
    made = {}
    for part, encoder in layout.tokenizers.items():
        config = networks[encoder].config
        clip = layout.classes[encoder].startswith("CLIP")
        made[part] = (_clip_tokenizer if clip else _other_tokenizer)(folder / part, config)
        _check_tokens(made[part], config, folder / part)
    both_clip = all(layout.classes.get(one, "").startswith("CLIP") for one in ("tokenizer", "tokenizer_2"))
    if both_clip:
        _check_same_words(made["tokenizer"], made["tokenizer_2"], folder)
    return made


def _clip_tokenizer(folder: Path, config: Any) -> Any:
    from transformers import CLIPTokenizer  # noqa: PLC0415

    tokenizer = _loaded(CLIPTokenizer, folder)
    context = tokenizer.model_max_length
    if type(context) is not int or not LEAST_CONTEXT <= context <= config.max_position_embeddings:
        raise UserError(
            f"{folder}/tokenizer_config.json: model_max_length is {quoted(context)}, the text encoder reads at "
            f"most {config.max_position_embeddings} tokens: set it to that."
        )
    return tokenizer


def _other_tokenizer(folder: Path, config: Any) -> Any:
    """T5's or Llama's, as its tokenizer.json says, or the SentencePiece model where there is none.

    From a tokenizer.json the classes of these names make a tokenizer with splitting and unknown tokens of their own,
    which UMT5 and Llama 3 do not share.
    """
    from transformers import PreTrainedTokenizerFast, T5Tokenizer  # noqa: PLC0415

    whole = (folder / "tokenizer.json").exists() or config.model_type == "llama"
    if not whole and not _reads_sentencepiece():
        raise UserError(
            f"{folder} has a SentencePiece model and no tokenizer.json: install what reads it with "
            f"`pip install {' '.join(READERS_OF_SENTENCEPIECE)}`."
        )
    tokenizer = _loaded(PreTrainedTokenizerFast if whole else T5Tokenizer, folder)
    if tokenizer.pad_token_id is None:
        raise UserError(f"{folder} names no pad_token, which fills up prompts: get the checkpoint again.")
    return tokenizer


def _reads_sentencepiece() -> bool:
    """Whether the packages are there that transformers reads SentencePiece's models with."""
    try:
        return all(find_spec(module) is not None for module in READERS_OF_SENTENCEPIECE.values())
    except ModuleNotFoundError:  # of the package that a module lies in
        return False


def _loaded(tokenizer: Any, folder: Path) -> Any:
    try:
        return tokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises a dozen kinds
        raise UserError(f"{folder} does not load as a {tokenizer.__name__} ({first_line(error)}).") from error


def _check_tokens(tokenizer: Any, config: Any, folder: Path) -> None:
    """All tokens are known to the text encoder, and their places in a text are told."""
    try:
        length = min(tokenizer.model_max_length, LEAST_CONTEXT + 1)
        read = tokenizer("a", padding="max_length", max_length=length, return_offsets_mapping=True)
        largest = max(*read["input_ids"], *tokenizer.get_vocab().values())
    except Exception as error:  # the library raises a dozen kinds
        raise UserError(f"{folder} does not load as a {type(tokenizer).__name__} ({first_line(error)}).") from error
    if largest >= config.vocab_size:
        raise UserError(
            f"{folder} has a token {largest}, the text encoder knows {config.vocab_size}: they do not belong "
            "together; get the checkpoint again."
        )


def _check_same_words(first: Any, second: Any, folder: Path) -> None:
    """Both tokenizers read the same tokens, so that a word's places are the same for both encoders."""
    if first.get_vocab() != second.get_vocab() or first.model_max_length != second.model_max_length:
        raise UserError(
            f"{folder}: tokenizer and tokenizer_2 know other words or lengths than each other: they do not belong "
            "together; get the checkpoint again."
        )
