"""Linear layers through oneDNN on the CPU, as PyTorch's convolutions are, in place of MKL.

MKL leaves AVX-512 unused on processors of other makers than Intel's: on an AMD Zen 5 oneDNN takes less than half of its
time, which is a tenth of a UNet call.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class OneDnnLinear(nn.Linear):
    """A Linear whose float32 arithmetic on the CPU is oneDNN's where no gradient is asked for."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (its name in Linear, by which diffusers gives it)
        """As in Linear."""
        plain = input.device.type == "cpu" and input.dtype == self.weight.dtype == torch.float32 and input.numel()
        if torch.is_grad_enabled() or not plain:
            return super().forward(input)
        return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")  # type: ignore[no-any-return]


def use_onednn(network: nn.Module) -> None:
    """Let a network's Linear layers be OneDnnLinear where PyTorch was built with oneDNN; weights and names stay."""
    if torch.backends.mkldnn.is_available():
        for module in network.modules():
            if type(module) is nn.Linear:
                module.__class__ = OneDnnLinear
