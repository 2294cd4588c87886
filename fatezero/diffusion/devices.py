"""Which device and number format networks run on."""

from __future__ import annotations

import torch

from fatezero.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device asked for; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: if the device is not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in present.items() if there)
    if not present[name]:
        raise UserError(f"device '{name}' is not available here: use device 'auto' or 'cpu'.")
    return torch.device(name)


def choose_dtype(name: str, device: torch.device, half: str = "float16") -> torch.dtype:
    """The dtype asked for; "auto" is, on CUDA, the half precision that the networks are made for, else float32."""
    if name == "auto":
        name = half if device.type == "cuda" else "float32"
    if name == "float64" and device.type == "mps":
        raise UserError("MPS has no float64: use dtype float32, or device 'cpu'.")
    dtype: torch.dtype = getattr(torch, name)
    return dtype
