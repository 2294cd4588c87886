"""DINO keys, by which the structure distance compares the layout of two frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fatezero.errors import UserError
from fatezero.types import Frames
from fatezero_eval.networks.batching import in_batches
from fatezero_eval.networks.weight_files import first_line, identity_of

if TYPE_CHECKING:
    from PIL import Image


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
        raise UserError(f"{weights}: not the safetensors weights of timm's {name} ({first_line(error)}).") from error
    return DinoKeys(model, identity_of(weights.parent, weights.name), device)
