"""DINO, a self-supervised ViT: its keys tell the layout of a frame, its class token the subject."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fatezero.types import Frames
from fatezero_eval.networks.batching import in_batches
from fatezero_eval.networks.weight_files import digest_of, read_weights, reading

if TYPE_CHECKING:
    from PIL import Image

ARCHITECTURES = {  # timm's names by width, patch, whether layers are scaled (DINO v2), and number of register tokens
    (width, patch, False, 0): f"vit_{size}_patch{patch}_224.dino"
    for width, size in ((384, "small"), (768, "base"))
    for patch in (8, 16)
} | {
    (width, 14, True, registers): f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2"
    for width, size in ((384, "small"), (768, "base"), (1024, "large"))
    for registers in (0, 4)
}


class Dino:
    """A self-supervised ViT of timm.

    Frames are resized so that their shorter side is 224 pixels, the longer one to a whole number of patches,
    and normalised as [0, 1] pictures. (PnPInversion feeds 0–255 for its keys.)
    """

    def __init__(self, model: Any, name: str, device: str = "cpu") -> None:
        self.id = name
        self._model = model.eval().requires_grad_(False).to(device)
        self._device = device

    def keys(self, frames: Frames) -> Tensor:
        """Keys of the last block, heads side by side, F,N,D float32 with the class token first."""
        keys, _ = in_batches(frames, self._prepare, self._encode)
        return keys

    def subjects(self, frames: Frames) -> Tensor:
        """The class token after the last norm, of unit length, F,D float32."""
        _, subjects = in_batches(frames, self._prepare, self._encode)
        return subjects

    def _prepare(self, picture: Image.Image) -> Tensor:
        from torchvision.transforms import functional as T  # noqa: PLC0415

        patch = self._model.patch_embed.patch_size[0]
        shorter = min(picture.size)
        size = [round(side * 224 / shorter / patch) * patch for side in reversed(picture.size)]
        pixels = T.to_tensor(T.resize(picture, size, T.InterpolationMode.BICUBIC, antialias=True))
        result: Tensor = T.normalize(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        return result

    def _encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        from torch.nn.functional import normalize  # noqa: PLC0415

        kept: list[Tensor] = []
        hook = self._model.blocks[-1].attn.qkv.register_forward_hook(lambda _m, _i, output: kept.append(output))
        try:
            tokens = self._model.forward_features(pixels.to(self._device))
        finally:
            hook.remove()
        return kept[0].chunk(3, dim=-1)[1], normalize(tokens[:, 0].float(), dim=-1)


def architecture_of(weights: Mapping[str, Tensor]) -> str:
    """Timm's name of the DINO that weights belong to.

    Raises:
        KeyError, ValueError: they belong to none that is known here.
    """
    width, _, patch, _ = weights["patch_embed.proj.weight"].shape
    registers = weights["reg_token"].shape[1] if "reg_token" in weights else 0
    name = ARCHITECTURES.get((width, patch, "blocks.0.ls1.gamma" in weights, registers))
    if name is None:
        raise ValueError(f"none has the width {width}, patches of {patch} and {registers} registers")
    return name


def load_dino(file: Path, device: str = "cpu") -> Dino:
    """A DINO of version 1 or 2 with weights from a safetensors file, which tell its architecture.

    Raises:
        UserError: the file is missing or holds another network.
    """
    import timm  # noqa: PLC0415

    remedy = (
        "give those of timm/vit_base_patch8_224.dino, vit_base_patch16_224.dino or vit_base_patch14_dinov2.lvd142m."
    )
    with reading(file, "the safetensors weights of a DINO of timm's", remedy):
        weights = read_weights(file)
        name = architecture_of(weights)
        model = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
        model.load_state_dict(weights, strict=True)
    return Dino(model, f"{name}:{digest_of(file)}", device)
