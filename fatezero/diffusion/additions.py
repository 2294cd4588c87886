"""What is added to a checkpoint's networks: its files, and what they say unloaded. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

from safetensors import safe_open

from fatezero.config import MAX_FACTOR, ModelOptions, check_number
from fatezero.data.files import json_digest
from fatezero.diffusion.vetting import read_config, tensor_shapes
from fatezero.errors import UserError
from fatezero.system.terminal import quoted

NETWORKS = ("unet", "transformer", "transformer_2", "text_encoder", "text_encoder_2")  # that a LoRA may change
PEFT_WEIGHTS, PEFT_SETTINGS = "adapter_model.safetensors", "adapter_config.json"
DIFFUSERS_WEIGHTS = "pytorch_lora_weights.safetensors"
LORA = "lora"  # folder of the LoRA that tuning puts beside a transformer's files
PEFT_FRONT = "base_model.model."  # of its layers' names
HEADER_SETTINGS = "lora_adapter_metadata"  # where diffusers keeps PEFT's settings, "unet." or "text_encoder." in front
# Names of a layer's parts in the layouts of diffusers (of several ages), kohya and PEFT.
LORA_PART = re.compile(r"(?P<layer>.+?)(?:[._]lora(?:_linear_layer)?[._](?P<half>A|B|down|up)\.weight|\.alpha)")
# Other ways to change weights, by what their layers' names hold.
OTHER_KINDS = {"hada_": "LoHa", "lokr_": "LoKr", "dora_scale": "DoRA", "lora_magnitude": "DoRA", "lora_mid": "Tucker"}
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")  # which leave the checkpoint's own weights alone
PLAIN_PATTERN = re.compile(r"\^?[A-Za-z0-9_.]{1,300}")
# Names of a textual inversion's tensors that are no word: A1111's, of both its layouts, and those of pivotal tuning.
BARE_KEYS = ("emb_params", "clip_l", "clip_g", "text_encoders_0", "text_encoders_1")
KEY_PAIRS = (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))  # for the two text encoders of SDXL
MAX_VECTORS = 75  # that a prompt of one window can hold


@dataclass(frozen=True)
class LoraSettings:
    """How PEFT scales the layers of one network.

    Attributes:
        alpha: of all layers; None is each layer's rank.
        patterns: other alphas, by the end of a layer's name (all of it after "^").
        by_root: whether alpha is divided by the rank's square root in place of the rank.
    """

    alpha: float | None = None
    patterns: tuple[tuple[str, float], ...] = ()
    by_root: bool = False

    def factor(self, layer: str, rank: int) -> float:
        """What a layer of a rank is multiplied by."""
        alpha = self.alpha
        for pattern, own in self.patterns:
            name = pattern.removeprefix("^").removeprefix("text_model.")
            if layer == name or (not pattern.startswith("^") and layer.endswith(f".{name}")):
                alpha = own
                break
        return 1.0 if alpha is None else float(alpha / (rank**0.5 if self.by_root else rank))


@dataclass(frozen=True)
class LoraFile:
    """A LoRA as it was asked for.

    Attributes:
        weights: its safetensors file.
        scale: what its change is multiplied by.
    """

    weights: Path
    scale: float

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its weights and PEFT's settings beside them."""
        return _files_digest(self.weights, *([self.peft_settings] if self.peft_settings else []))

    @property
    def peft_settings(self) -> Path | None:
        """PEFT's settings beside the weights; None in another layout."""
        return self.weights.with_name(PEFT_SETTINGS) if self.weights.name == PEFT_WEIGHTS else None

    def settings(self, network: str) -> LoraSettings:
        """How the layers of a network ("unet", "text_encoder") are scaled.

        Raises:
            UserError: for settings that this project does not compute.
        """
        if self.peft_settings:
            return _settings(read_config(self.peft_settings), str(self.peft_settings))
        with safe_open(self.weights, framework="numpy") as opened:
            written = (opened.metadata() or {}).get(HEADER_SETTINGS, "{}")
        try:
            values = json.loads(written)
            front = f"{network}."
            own = {name.removeprefix(front): value for name, value in values.items() if name.startswith(front)}
        except (ValueError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{self.weights}: {HEADER_SETTINGS} in its header is no JSON object: get it again."
            ) from error
        return _settings(own, f"{self.weights}: {HEADER_SETTINGS}")


@dataclass(frozen=True)
class EmbeddingFile:
    """A textual inversion as it was asked for.

    Attributes:
        weights: its safetensors file.
        keys: names of its tensors, one for each text encoder.
        token: the word that stands for it.
    """

    weights: Path
    keys: tuple[str, ...]
    token: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its file."""
        return _files_digest(self.weights)

    def vectors_for(self, widths: Sequence[int]) -> int:
        """How many vectors each text encoder learns.

        Args:
            widths: of the checkpoint's text encoders.

        Raises:
            UserError: if it was made for more of them, for fewer, or for others.
        """
        if len(self.keys) != len(widths):
            kind = "one text encoder (Stable Diffusion 1.x, 2.x)" if len(self.keys) == 1 else "SDXL's two text encoders"
            raise UserError(
                f"{self.weights} is a textual inversion for {kind}, the checkpoint has {len(widths)}: use one of its "
                "kind."
            )
        shapes = tensor_shapes([self.weights])
        for key, width in zip(self.keys, widths, strict=True):
            if shapes[key][-1] != width:
                raise UserError(
                    f"{self.weights} has vectors of width {shapes[key][-1]}, the text encoder's are {width} wide: use "
                    "a textual inversion of its kind."
                )
        return _vector_count(shapes[self.keys[0]])


@dataclass(frozen=True)
class Additions:
    """What is added to a checkpoint's networks.

    Attributes:
        loras: added to the weights in this order.
        embeddings: words that the text encoder learns.
        clip_skip: layers of the text encoder that are left out at its end.
    """

    loras: tuple[LoraFile, ...] = ()
    embeddings: tuple[EmbeddingFile, ...] = ()
    clip_skip: int = 0

    def digest_with(self, checkpoint: str) -> str:
        """The digest of a checkpoint with all of this; the checkpoint's own where nothing is added."""
        if self == NOTHING_ADDED:
            return checkpoint
        loras = [(lora.digest, float(lora.scale)) for lora in self.loras]
        embeddings = [(embedding.digest, embedding.token) for embedding in self.embeddings]
        return json_digest([checkpoint, loras, embeddings, self.clip_skip], 32)

    def record(self) -> dict[str, Any]:
        """What `meta.json` says of it."""
        return {
            "loras": [{"name": one.weights.name, "digest": one.digest, "scale": one.scale} for one in self.loras],
            "embeddings": [
                {"name": one.weights.name, "digest": one.digest, "token": one.token} for one in self.embeddings
            ],
            "clip_skip": self.clip_skip,
        }


NOTHING_ADDED = Additions()


def find_additions(networks: ModelOptions) -> Additions:
    """What is added to a checkpoint, its files checked.

    Raises:
        UserError: naming the file that is missing, or is something else.
    """
    return Additions(
        tuple(_find_lora(text) for text in networks.lora),
        tuple(_find_embedding(text) for text in networks.embedding),
        networks.clip_skip,
    )


def tuned_lora(checkpoint: Path) -> tuple[LoraFile, ...]:
    """The LoRA that `fatezero tune` has put into a checkpoint's folder; () where there is none.

    Raises:
        UserError: if it is something else.
    """
    folder = checkpoint / LORA
    if not folder.is_dir():
        return ()
    tuned = LoraFile(folder / DIFFUSERS_WEIGHTS, 1.0)
    _check_safetensors(tuned.weights, str(folder))
    _check_layers(tuned)
    return (tuned,)


def _there(text: str) -> Path | None:
    """The path of a file or folder; None where there is none of that name, or can be none."""
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # too long for a name; of a home that is not known
        return None


def _find_lora(text: str) -> LoraFile:
    path, scale = _there(text), 1.0
    if path is None:
        name, colon, number = text.rpartition(":")
        path = _there(name) if colon else None
        if path is None:
            raise UserError(f"--lora {quoted(text)}: there is no such file; give FILE, or FILE:0.7 with a scale.")
        scale = _scale(number, text)
    if path.is_dir():
        inside = [path / name for name in (PEFT_WEIGHTS, DIFFUSERS_WEIGHTS)]
        found = [file for file in inside if file.is_file()]
        if len(found) != 1:
            held = " and ".join(file.name for file in found) or f"neither {PEFT_WEIGHTS} nor {DIFFUSERS_WEIGHTS}"
            raise UserError(f"--lora {quoted(text)}: this folder holds {held}: give the file that is meant.")
        path = found[0]
    _check_safetensors(path, f"--lora {quoted(text)}")
    _check_layers(LoraFile(path, scale))
    return LoraFile(path, scale)


def _check_layers(lora: LoraFile) -> None:
    names = tensor_shapes([lora.weights])
    if not names:
        raise UserError(f"{lora.weights} holds no tensors: get the LoRA again.")
    for name in names:
        kind = next((kind for mark, kind in OTHER_KINDS.items() if mark in name), None)
        if kind or not LORA_PART.fullmatch(name):
            what = f"a layer of {kind}" if kind else "no LoRA's"
            raise UserError(
                f"{lora.weights} holds {quoted(name)}, which is {what}: give a LoRA of diffusers, kohya or PEFT."
            )
    if not lora.peft_settings and any(name.startswith(PEFT_FRONT) for name in names):
        raise UserError(
            f"{lora.weights} is of PEFT's layout, whose {PEFT_SETTINGS} says how it is scaled: give the folder of "
            f"both, the weights named {PEFT_WEIGHTS}."
        )
    said = [lora.settings(network).alpha for network in NETWORKS]
    if any(name.endswith(".alpha") for name in names) and any(alpha is not None for alpha in said):
        raise UserError(f"{lora.weights} says alpha twice, beside its layers and in its settings: get it again.")


def _scale(number: str, text: str) -> float:
    try:
        scale = float(number)
    except ValueError:
        scale = float("nan")
    if not isfinite(scale):
        raise UserError(f"--lora {quoted(text)}: the scale {quoted(number)} is no number; write FILE:0.7.")
    check_number(f"--lora {quoted(text)}: the scale", scale, -MAX_FACTOR, MAX_FACTOR)
    return scale


def _settings(values: Mapping[str, Any], where: str) -> LoraSettings:
    """PEFT's settings, of which only the scaling of layers may differ from a plain LoRA's.

    Raises:
        UserError: naming the setting.
    """
    plain = {
        "peft_type": ("LORA", None),
        **dict.fromkeys(("use_dora", "use_qalora", "fan_in_fan_out", "lora_bias"), (False, None)),
        "bias": ("none", None),
        "modules_to_save": (None, []),
        "layer_replication": (None,),
        "init_lora_weights": PLAIN_STARTS,
    }
    for name, known in plain.items():
        if values.get(name) not in known:
            raise UserError(
                f"{where}: {name} is {quoted(values[name])}, which is no plain LoRA: merge it into the weights where "
                "it was trained."
            )
    if values and values.get("lora_alpha") is None:
        raise UserError(f"{where} has no lora_alpha, by which PEFT scales its layers: get it again.")
    by_root, patterns = values.get("use_rslora") or False, values.get("alpha_pattern") or {}
    if not isinstance(by_root, bool) or not isinstance(patterns, dict):
        raise UserError(f"{where}: use_rslora or alpha_pattern is of another type than PEFT writes: get it again.")
    check_number(f"{where}: lora_alpha", values.get("lora_alpha"), -1e6, 1e6)
    for pattern, alpha in patterns.items():
        if not PLAIN_PATTERN.fullmatch(pattern) or alpha is None:
            raise UserError(f"{where}: alpha_pattern has {quoted(pattern)}, which is no layer's name: get it again.")
        check_number(f"{where}: alpha_pattern[{quoted(pattern)}]", alpha, -1e6, 1e6)
    return LoraSettings(values.get("lora_alpha"), tuple(patterns.items()), by_root)


def _find_embedding(text: str) -> EmbeddingFile:
    path, token = Path(text).expanduser(), None
    if not path.exists():
        name, equals, word = text.rpartition("=")
        if not equals or not Path(name).expanduser().exists():
            raise UserError(
                f"--embedding {quoted(text)}: there is no such file; give FILE, or FILE=<word> with the word that "
                "stands for it."
            )
        path, token = Path(name).expanduser(), word
    _check_safetensors(path, f"--embedding {quoted(text)}")
    keys = _embedding_keys(path)
    if token is None:
        token = path.stem if keys[0] in BARE_KEYS else keys[0]
    if not token or token.split() != [token]:
        raise UserError(f"{path}: {quoted(token)} is no single word: name one as --embedding FILE=<word>.")
    return EmbeddingFile(path, keys, token)


def _embedding_keys(path: Path) -> tuple[str, ...]:
    """The tensors of a textual inversion, in the order of the text encoders."""
    shapes = tensor_shapes([path])
    keys = next((pair for pair in KEY_PAIRS if {*pair} == {*shapes}), tuple(shapes)[:1])
    counts = {_vector_count(shape) for shape in shapes.values()}
    sound = all(len(shape) in {1, 2} and 0 not in shape for shape in shapes.values())
    if len(keys) != len(shapes) or not sound or len(counts) != 1 or max(counts) > MAX_VECTORS:
        raise UserError(
            f"{path} holds {quoted({name: list(one) for name, one in shapes.items()})}: a textual inversion is one "
            f"tensor of 1 to {MAX_VECTORS} vectors, for SDXL two of as many (clip_l and clip_g)."
        )
    return keys


def _vector_count(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 2 else 1


def _check_safetensors(path: Path, where: str) -> None:
    if path.suffix != ".safetensors" or not path.is_file():
        raise UserError(
            f"{where}: {path} is no safetensors file; other formats can run code and are not read. Save it as "
            "safetensors."
        )


def _files_digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
