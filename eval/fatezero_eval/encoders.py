"""What turns frames and prompts into vectors: CLIP models, DINO keys, and the LPIPS network.

A frame is encoded in a batch of fixed size, filled up with black frames, at the place its index in the clip
gives it, and a prompt by itself, all the way to the vector of unit length: an embedding depends neither on the
length of the clip nor on how a long one was cut, nor on which prompts are asked for together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fatezero.errors import UserError
from fatezero.types import Frames
from fatezero_eval.cache import Arrays

if TYPE_CHECKING:
    from PIL import Image

BATCH = 8
FEW_WORDS = 4096  # a tokenizer of no more tokens belongs to a closed world, such as Picturebook


class ImageTextEncoder(Protocol):
    """A CLIP-like model.

    Attributes:
        id: names the model and its weights; part of every row and cache key.
        logit_scale: the learnt scale before the exponential.
    """

    id: str
    logit_scale: float

    def images(self, frames: Frames) -> Arrays:
        """`projected` F,D and, where the tower has a projection, `pooled` F,E before it; unit float32."""
        ...

    def texts(self, prompts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit float32 N,D.

        Raises:
            UserError: a prompt is longer than the model's context.
        """
        ...


def in_batches(
    frames: Frames, prepare: Callable[[Image.Image], Tensor], encode: Callable[[Tensor], tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """Encode frames in batches of `BATCH`, the last one filled up with black; float32, first axis F.

    Whatever is left to do with the result must work on one frame at a time: how a matrix product rounds depends
    on how many rows it has.

    Args:
        frames: uint8 F,H,W,3.
        prepare: makes one network input C,h,w of a picture.
        encode: network, B,C,h,w to what it gives, B,… each.
    """
    from PIL import Image  # noqa: PLC0415

    batches = []
    with torch.inference_mode():
        for start in range(0, len(frames), BATCH):
            inputs = torch.stack([prepare(Image.fromarray(f)) for f in frames[start : start + BATCH]])
            padding = inputs.new_zeros(BATCH - len(inputs), *inputs.shape[1:])
            encoded = encode(torch.cat([inputs, padding]))
            batches.append([each[: len(inputs)].float().cpu() for each in encoded])
    return tuple(torch.cat(each) for each in zip(*batches, strict=True))


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
                f"{self.id} does not know {', '.join(map(repr, unknown))} in the prompt {prompt!r}; judge with a "
                "model that does, such as --clip ViT-B-32/openai."
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
        f"the prompt {prompt!r} is longer than the {context} tokens {model} reads; shorten it, or judge "
        "with a model that knows its words (for example --clip ViT-B-32/openai)."
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
    if (folder / "open_clip_config.json").is_file():
        return _load_open_clip(f"local-dir:{folder}", None, _id_of(folder, "open_clip_model.safetensors"), device)
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


def _load_open_clip(model_name: str, tag: str | None, name: str, device: str) -> OpenClip:
    import open_clip  # noqa: PLC0415

    try:
        model, preprocess = open_clip.create_model_from_pretrained(model_name, pretrained=tag)
        return OpenClip(model, preprocess, open_clip.get_tokenizer(model_name), name, device)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"the CLIP {model_name!r} cannot be loaded ({_first_line(error)}).") from error


def load_transformers_clip(folder: Path, device: str = "cpu") -> TransformersClip:
    """A CLIP from a folder in transformers' layout, such as a copy of yuvalkirstain/PickScore_v1.

    Raises:
        UserError: the folder holds no CLIP with safetensors weights.
    """
    from transformers import CLIPModel, CLIPProcessor  # noqa: PLC0415

    try:
        model = CLIPModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
        processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no transformers CLIP with safetensors weights ({_first_line(error)}).") from error
    return TransformersClip(model, processor, _id_of(folder, "model.safetensors"), device)


def _id_of(folder: Path, weights: str) -> str:
    """Folder name and first digits of the weights' SHA-256: retrained weights are another model."""
    path = folder / weights
    if not path.is_file():
        raise UserError(f"{folder}: {weights} is missing; only safetensors weights are read.")
    with path.open("rb") as file:
        return f"{folder.resolve().name}:{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]


class DinoKeys:
    """Keys of the last block of a self-supervised ViT of timm, heads side by side.

    Frames are resized so that their shorter side is 224 pixels, the longer one to a whole number of patches,
    and normalised as [0, 1] pictures. (PnPInversion feeds 0–255 here.)
    """

    def __init__(self, model: Any, name: str, device: str = "cpu") -> None:
        self.id = name
        self._model = model.eval().requires_grad_(False).to(device)
        self._device = device

    def keys(self, frames: Frames) -> Tensor:
        """F,N,D float32 with the class token first."""
        (keys,) = in_batches(frames, self._prepare, self._encode)
        return keys

    def _prepare(self, picture: Image.Image) -> Tensor:
        from torchvision.transforms import functional as T  # noqa: PLC0415

        patch = self._model.patch_embed.patch_size[0]
        shorter = min(picture.size)
        size = [round(side * 224 / shorter / patch) * patch for side in reversed(picture.size)]
        pixels = T.to_tensor(T.resize(picture, size, T.InterpolationMode.BICUBIC, antialias=True))
        result: Tensor = T.normalize(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        return result

    def _encode(self, pixels: Tensor) -> tuple[Tensor]:
        kept: list[Tensor] = []
        hook = self._model.blocks[-1].attn.qkv.register_forward_hook(lambda _m, _i, output: kept.append(output))
        try:
            self._model.forward_features(pixels.to(self._device))
        finally:
            hook.remove()
        return (kept[0].chunk(3, dim=-1)[1],)


def load_dino(weights: Path, name: str = "vit_base_patch8_224.dino", device: str = "cpu") -> DinoKeys:
    """A DINO ViT with weights from a safetensors file.

    Raises:
        UserError: the file is missing or holds another network.
    """
    import timm  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    model = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
    try:
        model.load_state_dict(load_file(weights), strict=True)
    except Exception as error:
        raise UserError(f"{weights}: not the safetensors weights of timm's {name} ({_first_line(error)}).") from error
    return DinoKeys(model, _id_of(weights.parent, weights.name), device)


class Lpips:
    """LPIPS of torchmetrics for one pair of frames, as a number and as a map."""

    def __init__(self, network: Any, name: str, device: str = "cpu") -> None:
        self.id = name
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = device

    def of_frame(self, a_3HW: Tensor, b_3HW: Tensor) -> Tensor:
        """Distance of two frames in [0, 1], scalar."""
        return self._distance(a_3HW, b_3HW, spatial=False).squeeze()

    def of_pixels(self, a_3HW: Tensor, b_3HW: Tensor) -> Tensor:
        """Distance at every pixel of two frames in [0, 1], H,W: the layers' maps upsampled and summed."""
        return self._distance(a_3HW, b_3HW, spatial=True)[0, 0]

    def _distance(self, a_3HW: Tensor, b_3HW: Tensor, *, spatial: bool) -> Tensor:
        self._network.spatial = spatial
        with torch.inference_mode():
            pair = (x[None].float().to(self._device) for x in (a_3HW, b_3HW))
            distance: Tensor = self._network(*pair, normalize=True)
        return distance


LpipsNet = Literal["alex", "squeeze"]
LPIPS_BACKBONES: dict[LpipsNet, tuple[str, str]] = {  # torchvision's name and file
    "alex": ("alexnet", "alexnet-owt-7be5be79.pth"),
    "squeeze": ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
}


def lpips_remedy(net: LpipsNet) -> str:
    """What to do where LPIPS lacks its backbone; empty if torchvision's cache holds it."""
    name, file = LPIPS_BACKBONES[net]
    if torchvision_cached(file):
        return ""
    fetch = f"python -c \"import torchvision; torchvision.models.{name}(weights='DEFAULT')\""
    return f"LPIPS needs {file} in torchvision's cache; fetch it once with {fetch}."


def load_lpips(net: LpipsNet, device: str = "cpu") -> Lpips:
    """LPIPS with AlexNet or SqueezeNet, whose weights must lie in torchvision's cache.

    Raises:
        UserError: they are not there.
    """
    remedy = lpips_remedy(net)
    if remedy:
        raise UserError(remedy)
    from torchmetrics.functional.image.lpips import _LPIPS  # noqa: PLC0415

    return Lpips(_LPIPS(pretrained=True, net=net), f"lpips-{net}", device)


def torchvision_cached(file: str) -> bool:
    """Whether torchvision's cache holds the file."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / file).is_file()
