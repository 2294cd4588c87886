"""LPIPS, the perceptual distance of two frames, as a number and as a map."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from fatezero.errors import UserError
from fatezero_eval.networks.weight_files import reading, torchvision_cache

LEAST = 31  # pixels; of less, AlexNet's pooling leaves nothing


class Lpips:
    """torchmetrics' LPIPS of two frames, as a number and as a map."""

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
        _, height, width = a_3HW.shape
        if min(height, width) < LEAST:
            raise UserError(f"LPIPS needs frames of at least {LEAST}x{LEAST} pixels, and these are {width}x{height}.")
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
    if torchvision_cache(file).is_file():
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

    name, file = LPIPS_BACKBONES[net]
    with reading(torchvision_cache(file), f"torchvision's {name}", "delete it, and fetch it again."):
        network = _LPIPS(pretrained=True, net=net)
    return Lpips(network, f"lpips-{net}", device)
