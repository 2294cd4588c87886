"""CLIP models: what turns frames and prompts into vectors of unit length.

A prompt is encoded by itself, all the way to the vector of unit length, and frames as in `batching`: an embedding
does not depend on which prompts or frames are asked for together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero.types import Frames
from fatezero_eval.networks.array_cache import Arrays
from fatezero_eval.networks.batching import in_batches
from fatezero_eval.networks.transformers_folders import check_tokenizer, load_whole, model_type_of
from fatezero_eval.networks.weight_files import check_finite, identity_of, short_message

if TYPE_CHECKING:
    from PIL import Image

_HERE = "local-dir:"  # open_clip's prefix of a folder
OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
TRANSFORMERS_WEIGHTS = "model.safetensors"
FEW_WORDS = 4096  # a tokenizer of no more tokens belongs to a closed world, such as Picturebook


class ImageTextEncoder(Protocol):
    """A CLIP-like model.

    Attributes:
        id: names the model and its weights; part of every row and cache key.
    """

    id: str

    @property
    def logit_scale(self) -> float:
        """The logarithm of the learnt scale of the logits."""
        ...

    def images(self, frames: Frames) -> Arrays:
        """`projected` F,D and, where the tower has a projection, `pooled` F,E before it; unit float32."""
        ...

    def texts(self, prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit float32 N,D.

        Raises:
            UserError: a prompt is longer than the model's context.
        """
        ...


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=-1)


def _array(vectors: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = vectors.numpy()
    return array


def _named(encoded: tuple[Tensor, ...]) -> Arrays:
    """What `ImageTextEncoder.images` promises: the projected vectors, then the pooled ones where there are any."""
    return {name: _array(vectors) for name, vectors in zip(("projected", "pooled"), encoded, strict=False)}


class OpenClip:
    """A model of open_clip, by name, hub id or local folder (see `load_clip`)."""

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, name: str, device: str = "cpu") -> None:
        self.id = name
        self.logit_scale = model.logit_scale.item()
        self._model = model.eval().requires_grad_(False).to(device)
        self._preprocess = preprocess
        self._tokenizer = tokenizer
        self._device = device
        # Without its projection the tower returns what comes before it, so that one pass yields both.
        self._projection: Tensor | None = getattr(model.visual, "proj", None)
        if self._projection is not None:
            model.visual.proj = None

    def images(self, frames: Frames) -> Arrays:
        """See `ImageTextEncoder.images`."""

        def encode(pixels: Tensor) -> tuple[Tensor, ...]:
            features = self._model.encode_image(pixels.to(self._device)).float()
            if self._projection is None:
                return (_unit(features),)
            return _unit(features @ self._projection.float()), _unit(features)

        return _named(in_batches(frames, self._preprocess, encode))

    def texts(self, prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        """See `ImageTextEncoder.texts`."""
        with torch.inference_mode():
            rows = [_unit(self._model.encode_text(self._tokens(p).to(self._device))).cpu() for p in prompts]
        return _array(torch.cat(rows))

    def _tokens(self, prompt: str) -> Tensor:
        unknown = [word for word in prompt.split() if self._spelled(word)]
        if unknown:
            raise UserError(
                f"{self.id} does not know {', '.join(map(repr, unknown))} in the prompt {quoted(prompt)}; judge with a "
                "model that does, such as --judge ViT-B-32/openai."
            )
        context = self._model.context_length
        tokens: Tensor = self._tokenizer([prompt], context_length=context)
        if not torch.equal(self._tokenizer([prompt], context_length=4 * context)[:, :context], tokens):
            raise _too_long(prompt, context, self.id)
        return tokens

    def _spelled(self, word: str) -> bool:
        """Whether a model of few words would spell this one letter by letter, having never learnt it."""
        words = getattr(self._tokenizer, "tokenizer", None)  # Hugging Face's, inside open_clip's
        if words is None or len(words) > FEW_WORDS or len(word) == 1:
            return False
        return all(len(piece.removesuffix("</w>")) == 1 for piece in words.tokenize(word))


class TransformersClip:
    """A CLIP in transformers' layout, such as PickScore."""

    def __init__(self, model: Any, processor: Any, name: str, device: str = "cpu") -> None:
        self.id = name
        self.logit_scale = model.logit_scale.item()
        self._model = model.eval().requires_grad_(False).to(device)
        self._processor = processor
        self._device = device

    def images(self, frames: Frames) -> Arrays:
        """See `ImageTextEncoder.images`."""

        def prepare(picture: Image.Image) -> Tensor:
            pixels: Tensor = self._processor(images=picture, return_tensors="pt")["pixel_values"][0]
            return pixels

        def encode(pixels: Tensor) -> tuple[Tensor, ...]:
            pooled = self._model.vision_model(pixel_values=pixels.to(self._device)).pooler_output
            return _unit(self._model.visual_projection(pooled)), _unit(pooled)

        return _named(in_batches(frames, prepare, encode))

    def texts(self, prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        """See `ImageTextEncoder.texts`."""
        context = self._model.config.text_config.max_position_embeddings
        rows = []
        with torch.inference_mode():
            for prompt in prompts:
                tokens = self._processor(text=[prompt], return_tensors="pt")
                if tokens["input_ids"].shape[1] > context:
                    raise _too_long(prompt, context, self.id)
                output = self._model.text_model(**{k: v.to(self._device) for k, v in tokens.items()})
                rows.append(_unit(self._model.text_projection(output.pooler_output)).cpu())
        return _array(torch.cat(rows))


def _too_long(prompt: str, context: int, model: str) -> UserError:
    return UserError(
        f"the prompt {quoted(prompt)} is longer than the {context} tokens that {model} reads; shorten it, or judge "
        "with a model that knows its words (for example --judge ViT-B-32/openai)."
    )


def load_clip(model: str, device: str = "cpu") -> ImageTextEncoder:
    """A CLIP by the name the user gives.

    Args:
        model: a local folder (open_clip's or transformers' layout, weights in safetensors), an open_clip
            `name/tag` such as `ViT-B-32/openai`, or a hub id `hf-hub:owner/name`.
        device: where it runs.

    Raises:
        UserError: there is no such model here.
    """
    folder = Path(model)
    if (folder / OPEN_CLIP_CONFIG).is_file():
        return _load_open_clip(f"{_HERE}{folder}", None, _name_of(model), device)
    if (folder / "config.json").is_file():
        return load_transformers_clip(folder, device)
    if model.startswith("hf-hub:"):
        return _load_open_clip(model, None, model, device)
    name, _, tag = model.partition("/")
    import open_clip  # noqa: PLC0415

    if tag and tag in open_clip.list_pretrained_tags_by_model(name):
        return _load_open_clip(name, tag, model, device)
    raise UserError(
        f"{model!r} is no CLIP known here: give a folder with open_clip_config.json or a transformers CLIP, "
        "an open_clip name and tag such as ViT-B-32/openai, or hf-hub:owner/name."
    )


class NamedClip:
    """A CLIP whose weights are known by their digest, and loaded when something is asked of it."""

    def __init__(self, model: str, device: str = "cpu") -> None:
        self.id = _name_of(model)
        self._model, self._device = model, device

    @cached_property
    def loaded(self) -> ImageTextEncoder:
        """The model itself.

        Raises:
            UserError: it cannot be loaded; see `load_clip`.
        """
        return load_clip(self._model, self._device)

    @property
    def logit_scale(self) -> float:
        """See `ImageTextEncoder.logit_scale`."""
        return self.loaded.logit_scale

    def images(self, frames: Frames) -> Arrays:
        """See `ImageTextEncoder.images`."""
        return self.loaded.images(frames)

    def texts(self, prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        """See `ImageTextEncoder.texts`."""
        return self.loaded.texts(prompts)


def _name_of(model: str) -> str:
    """The name and weights of what `load_clip` gives for a model."""
    folder = Path(model)
    if (folder / OPEN_CLIP_CONFIG).is_file():
        return identity_of(folder, OPEN_CLIP_WEIGHTS)
    return identity_of(folder, TRANSFORMERS_WEIGHTS) if (folder / "config.json").is_file() else model


def _load_open_clip(model_name: str, tag: str | None, name: str, device: str) -> OpenClip:
    import open_clip  # noqa: PLC0415
    from safetensors import SafetensorError  # noqa: PLC0415

    try:
        with _unlogged():
            model, preprocess = open_clip.create_model_from_pretrained(model_name, pretrained=tag)
            tokenizer = open_clip.get_tokenizer(model_name)
        check_finite(model.state_dict())
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        shown = quoted(model_name.removeprefix(_HERE) + (f"/{tag}" if tag else ""))
        raise UserError(
            f"the CLIP {shown} cannot be loaded ({short_message(error)}): get it again, or give another --judge."
        ) from error
    return OpenClip(model, preprocess, tokenizer, name, device)


@contextmanager
def _unlogged() -> Iterator[None]:
    """Log nothing meanwhile: libraries log what they also raise, and every try to reach the hub."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


def load_transformers_clip(folder: Path, device: str = "cpu") -> TransformersClip:
    """A CLIP from a folder in transformers' layout, such as a copy of yuvalkirstain/PickScore_v1.

    Raises:
        UserError: the folder holds no CLIP with safetensors weights.
    """
    from transformers import CLIPModel, CLIPProcessor  # noqa: PLC0415

    kind = model_type_of(folder)
    if kind != "clip":
        raise UserError(
            f"{folder} is of the type {quoted(kind)}, and of transformers' models CLIP alone is read: give a CLIP, or "
            "the model's open_clip name and tag, such as ViT-B-16-SigLIP/webli."
        )
    identity = identity_of(folder, TRANSFORMERS_WEIGHTS)
    check_tokenizer(folder)
    model, processor = load_whole(folder, "CLIP", CLIPModel, CLIPProcessor)
    return TransformersClip(model, processor, identity, device)
