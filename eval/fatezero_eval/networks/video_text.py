"""Models that see a whole clip beside a prompt: X-CLIP and VideoPrism."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from fatezero.errors import UserError
from fatezero.system.terminal import quoted
from fatezero.types import Frames
from fatezero_eval.networks.array_cache import Arrays
from fatezero_eval.networks.transformers_folders import check_tokenizer
from fatezero_eval.networks.video_folders import load_video_folder, pixels_of
from fatezero_eval.networks.weight_files import short_message

VIDEO_TEXT_REMEDY = (
    "give --video-text the folder of an X-CLIP or a VideoPrism of transformers' with safetensors weights, such as hf "
    "download microsoft/xclip-base-patch32."
)


class _Calling(NamedTuple):
    """How one of transformers' model types is called.

    Attributes:
        pixels: name of the argument for the frames.
        padding: what is done to prompts that are shorter than the context.
    """

    pixels: str
    padding: str | bool


_CALLING = {"xclip": _Calling("pixel_values", False), "videoprism": _Calling("pixel_values_videos", "max_length")}


class VideoText:
    """An X-CLIP, which reads the prompt in the light of the clip, or the video-text model of VideoPrism.

    Attributes:
        id: names the model and its weights.
        shown: how many frames of a clip it reads.
    """

    def __init__(self, model: Any, processor: Any, tokenizer: Any, name: str, device: str = "cpu") -> None:
        self.id = name
        self.shown: int = model.config.vision_config.num_frames
        self._calling = _CALLING[model.config.model_type]
        self._model = model.eval().requires_grad_(False).to(device)
        self._processor = processor
        self._tokenizer = tokenizer
        self._device = device

    def embeddings(self, frames: Frames, prompt: str) -> Arrays:
        """`video` and `text`, unit float32 D each; the text's depends on the video with X-CLIP.

        Args:
            frames: uint8 N,H,W,3, as many as are `shown`.
            prompt: what the video may show.

        Raises:
            UserError: the prompt is longer than the model's context.
        """
        context = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            [prompt], return_tensors="pt", padding=self._calling.padding, max_length=context, truncation=False
        )
        if tokens["input_ids"].shape[1] > context:
            raise UserError(
                f"the prompt {quoted(prompt)} is longer than the {context} tokens {self.id} reads: shorten it."
            )
        given = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        given[self._calling.pixels] = pixels_of(self._processor, frames)
        with torch.inference_mode():
            found = self._model(**{name: tensor.to(self._device) for name, tensor in given.items()})
        pair = {"video": found.video_embeds, "text": found.text_embeds}
        return {
            name: torch.nn.functional.normalize(each.float().flatten(), dim=0).cpu().numpy()
            for name, each in pair.items()
        }


def load_video_text(folder: Path, device: str = "cpu") -> VideoText:
    """An X-CLIP or a VideoPrism from a folder in transformers' layout.

    Raises:
        UserError: the folder holds none that is whole, with safetensors weights.
    """
    from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415

    model, processor, name = load_video_folder(folder, AutoModel, tuple(_CALLING))
    check_tokenizer(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"{folder}: its tokenizer cannot be read ({short_message(error)}): get it again.") from error
    return VideoText(model, processor, tokenizer, name, device)
