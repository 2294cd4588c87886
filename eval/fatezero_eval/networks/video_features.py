"""Networks for which a whole clip is one vector, as distances between sets of clips need it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fatezero.data.files import read_json
from fatezero.types import Frames
from fatezero_eval.networks.transformers_folders import model_type_of
from fatezero_eval.networks.video_folders import load_video_folder, pixels_of

VIDEO_NETWORK_REMEDY = (
    "give --video-network the folder of a VideoMAE, V-JEPA 2, X-CLIP or VideoPrism of transformers' with safetensors "
    "weights, such as hf download facebook/vjepa2-vitl-fpc16-256-ssv2."
)


class _Kind(NamedTuple):
    """How one of transformers' model types is asked.

    Attributes:
        shown: from its configuration, how many frames it reads.
        summary: from the network and pixels 1,F,3,h,w to 1,D.
    """

    shown: Callable[[Any], int]
    summary: Callable[[Any, Tensor], Tensor]


_BESIDE_TEXT = _Kind(
    lambda config: config.vision_config.num_frames, lambda net, clip: net.get_video_features(clip).pooler_output
)
_KINDS = {
    "videomae": _Kind(lambda config: config.num_frames, lambda net, clip: net(clip).last_hidden_state.mean(1)),
    "vjepa2": _Kind(lambda config: config.frames_per_clip, lambda net, clip: net.get_vision_features(clip).mean(1)),
    "xclip": _BESIDE_TEXT,
    "videoprism": _BESIDE_TEXT,
}


class VideoNetwork:
    """A VideoMAE, V-JEPA 2, X-CLIP or VideoPrism (with its text model) of transformers.

    One that was tuned to name actions gives what its classifier reads; X-CLIP and VideoPrism their embedding of the
    video; the others the mean of their tokens.

    Attributes:
        id: names the network and its weights.
        shown: how many frames of a clip it reads.
    """

    def __init__(self, model: Any, processor: Any, name: str, device: str = "cpu") -> None:
        kind = _KINDS[model.config.model_type]
        self.id = name
        self.shown = kind.shown(model.config)
        self._summary = kind.summary
        if hasattr(model, "classifier"):
            model.classifier = torch.nn.Identity()
            self._summary = lambda net, clip: net(clip).logits
        self._model = model.eval().requires_grad_(False).to(device)
        self._processor = processor
        self._device = device

    def features(self, frames: Frames) -> npt.NDArray[np.float32]:
        """Float32 D of frames uint8 N,H,W,3, as many as are `shown`."""
        with torch.inference_mode():
            found = self._summary(self._model, pixels_of(self._processor, frames).to(self._device))
        array: npt.NDArray[np.float32] = found[0].float().cpu().numpy()
        return array


def load_video_network(folder: Path, device: str = "cpu") -> VideoNetwork:
    """A video network from a folder in transformers' layout.

    Raises:
        UserError: the folder holds none that is known here and whole, with safetensors weights.
    """
    from transformers import AutoModel, AutoModelForVideoClassification  # noqa: PLC0415

    model_type_of(folder)  # so there is a configuration
    classifies = "ForVideoClassification" in str(read_json(folder / "config.json").get("architectures"))
    network = AutoModelForVideoClassification if classifies else AutoModel
    return VideoNetwork(*load_video_folder(folder, network, tuple(_KINDS)), device)
