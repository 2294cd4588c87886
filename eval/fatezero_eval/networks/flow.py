"""Optical flow between two frames, estimated.

A flow is float32 2,H,W in pixels, x then y: the pixel p of `before` is found at p + flow(p) in `after`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from fatezero.errors import UserError
from fatezero.types import Frames
from fatezero_eval.networks.given_flow import Flow
from fatezero_eval.networks.weight_files import digest_of, read_weights, reading, torchvision_cache


class FlowEstimator(Protocol):
    """Estimates the flow of one pair of frames.

    Attributes:
        id: names the estimator, its settings and weights; part of every row and cache key.
    """

    @property
    def id(self) -> str: ...  # noqa: D102

    def __call__(self, before: Frames, after: Frames) -> Flow:
        """Flow of two uint8 H,W,3 frames."""
        ...


class Dis:
    """OpenCV's Dense Inverse Search: no weights, runs everywhere. Kroeger et al. 2016.

    The medium preset, refined to full resolution rather than half of it: on clips whose motion is known that
    brings the error of unedited clips closer to the true flow's than any preset does.
    """

    id = "dis-full"

    def __call__(self, before: Frames, after: Frames) -> Flow:
        """Flow of two uint8 H,W,3 frames.

        Raises:
            UserError: they are smaller than its patches.
        """
        import cv2  # noqa: PLC0415

        if min(before.shape[:2]) < 8 or max(before.shape[:2]) < 12:
            raise _too_small("DIS", "8x12", before, "farneback")

        estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        estimator.setFinestScale(0)
        return _channels_first(estimator.calc(_grey(before), _grey(after), None))


@dataclass(frozen=True)
class Farneback:
    """OpenCV's Farnebäck flow: no weights; smoother than DIS. Farnebäck 2003.

    Attributes:
        id: names the settings.
        levels: of the pyramid, each half the size of the one before.
        neighbourhood: pixels across, to which a polynomial is fitted.
        sigma: of the Gaussian that weighs them.
    """

    id: str = "farneback"
    levels: int = 5
    neighbourhood: int = 7
    sigma: float = 1.5

    def __call__(self, before: Frames, after: Frames) -> Flow:
        """Flow of two uint8 H,W,3 frames."""
        import cv2  # noqa: PLC0415

        # pyramid scale, levels, window, iterations, neighbourhood, its sigma, flags
        settings = (0.5, self.levels, 15, 3, self.neighbourhood, self.sigma, 0)
        return _channels_first(cv2.calcOpticalFlowFarneback(_grey(before), _grey(after), None, *settings))


EDITBOARD_FLOW = Farneback(id="farneback-editboard", levels=3, neighbourhood=5, sigma=1.2)  # its test_optflow.py


class Raft:
    """torchvision's RAFT, frames padded to multiples of 8 by repeating their border. Teed, Deng 2020."""

    def __init__(self, network: Any, name: str, device: str = "cpu") -> None:
        self.id = name
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = device

    def __call__(self, before: Frames, after: Frames) -> Flow:
        """Flow of two uint8 H,W,3 frames.

        Raises:
            UserError: they are smaller than its pyramid takes.
        """
        if min(before.shape[:2]) <= 120:  # padded to multiples of 8, of which it needs 16
            raise _too_small("RAFT", "121x121", before, "dis")
        height, width = before.shape[:2]
        pair = [self._input(frame) for frame in (before, after)]
        with torch.inference_mode():
            flow = self._network(*pair)[-1][0, :, :height, :width]
        result: Flow = flow.float().cpu().numpy()
        return result

    def _input(self, frame: Frames) -> torch.Tensor:
        pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 127.5 - 1
        padding = (0, -frame.shape[1] % 8, 0, -frame.shape[0] % 8)
        return torch.nn.functional.pad(pixels, padding, mode="replicate").to(self._device)


RAFT_FILES = {
    "raft_small": "raft_small_C_T_V2-01064c6d.pth",
    "raft_large": "raft_large_C_T_SKHT_V2-ff5fadd5.pth",
}


def raft_remedy(name: str) -> str:
    """What to do where a RAFT lacks its weights; empty if torchvision's cache holds them, or it is no RAFT."""
    if name not in RAFT_FILES or torchvision_cache(RAFT_FILES[name]).is_file():
        return ""
    fetch = f"python -c \"from torchvision.models.optical_flow import *; {name}(weights='DEFAULT')\""
    return (
        f"{name} needs {RAFT_FILES[name]} in torchvision's cache; fetch it once with {fetch}, "
        "give --raft a safetensors file, or use --flow dis."
    )


def load_flow(name: str, weights: Path | None = None, device: str = "cpu") -> FlowEstimator:
    """An estimator by name.

    Args:
        name: dis, farneback, raft_small or raft_large.
        weights: a safetensors file with RAFT's weights; None takes torchvision's cache.
        device: where RAFT runs.

    Raises:
        UserError: no such estimator, weights for one that has none, or its weights are not here.
    """
    if weights is not None and name not in RAFT_FILES:
        raise UserError(f"--raft holds RAFT's weights, and --flow is {name}: add --flow {' or '.join(RAFT_FILES)}.")
    if name == "dis":
        return Dis()
    if name == "farneback":
        return Farneback()
    if name not in RAFT_FILES:
        raise UserError(f"{name!r} is no flow estimator; choose dis, farneback, raft_small or raft_large.")
    from torchvision.models import optical_flow  # noqa: PLC0415

    build = getattr(optical_flow, name)
    if weights is not None:
        network = build(weights=None)
        with reading(weights, f"the safetensors weights of torchvision's {name}", "leave --raft out, or give those."):
            network.load_state_dict(read_weights(weights))
        return Raft(network, f"{name}:{digest_of(weights)}", device)
    remedy = raft_remedy(name)
    if remedy:
        raise UserError(remedy)
    with reading(torchvision_cache(RAFT_FILES[name]), f"torchvision's {name}", "delete it, and fetch it again."):
        network = build(weights="DEFAULT")
    return Raft(network, f"{name}:torchvision", device)


def _too_small(estimator: str, least: str, frame: Frames, other: str) -> UserError:
    height, width = frame.shape[:2]
    return UserError(
        f"{estimator} estimates no flow of frames below {least} pixels, and these are {width}x{height}: use --flow "
        f"{other}."
    )


def _grey(frame: Frames) -> npt.NDArray[np.uint8]:
    import cv2  # noqa: PLC0415

    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _channels_first(flow: Any) -> Flow:
    return np.ascontiguousarray(np.asarray(flow, dtype=np.float32).transpose(2, 0, 1))
