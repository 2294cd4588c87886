"""Optical flow between two frames, estimated or given.

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
from fatezero_eval.networks.array_cache import check_archive
from fatezero_eval.networks.weight_files import torchvision_cached

Flow = npt.NDArray[np.float32]  # 2,H,W, or P,2,H,W for P pairs of neighbouring frames


class FlowEstimator(Protocol):
    """Estimates the flow of one pair of frames.

    Attributes:
        id: names the estimator, its settings and weights; part of every row and cache key.
    """

    id: str

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
        """Flow of two uint8 H,W,3 frames of at least 16x16 pixels."""
        import cv2  # noqa: PLC0415

        estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        estimator.setFinestScale(0)
        return _channels_first(estimator.calc(_grey(before), _grey(after), None))


class Farneback:
    """OpenCV's Farnebäck flow: no weights; smoother than DIS. Farnebäck 2003."""

    id = "farneback"

    def __call__(self, before: Frames, after: Frames) -> Flow:
        """Flow of two uint8 H,W,3 frames."""
        import cv2  # noqa: PLC0415

        # pyramid scale, levels, window, iterations, neighbourhood, its sigma, flags
        settings = (0.5, 5, 15, 3, 7, 1.5, 0)
        return _channels_first(cv2.calcOpticalFlowFarneback(_grey(before), _grey(after), None, *settings))


class Raft:
    """torchvision's RAFT, frames padded to multiples of 8 by repeating their border. Teed, Deng 2020."""

    def __init__(self, network: Any, name: str, device: str = "cpu") -> None:
        self.id = name
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = device

    def __call__(self, before: Frames, after: Frames) -> Flow:
        """Flow of two uint8 H,W,3 frames of at least 128x128 pixels."""
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


MAX_BYTES = 2**32  # of a flow file's arrays: a thousand pairs of 512x512 pixels
RAFT_FILES = {
    "raft_small": "raft_small_C_T_V2-01064c6d.pth",
    "raft_large": "raft_large_C_T_SKHT_V2-ff5fadd5.pth",
}


def raft_remedy(name: str) -> str:
    """What to do where a RAFT lacks its weights; empty if torchvision's cache holds them, or it is no RAFT."""
    if name not in RAFT_FILES or torchvision_cached(RAFT_FILES[name]):
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
        UserError: no such estimator, or its weights are not here.
    """
    if name == "dis":
        return Dis()
    if name == "farneback":
        return Farneback()
    if name not in RAFT_FILES:
        raise UserError(f"{name!r} is no flow estimator; choose dis, farneback, raft_small or raft_large.")
    from torchvision.models import optical_flow  # noqa: PLC0415

    build = getattr(optical_flow, name)
    if weights is not None:
        from safetensors.torch import load_file  # noqa: PLC0415

        network = build(weights=None)
        try:
            network.load_state_dict(load_file(weights))
        except Exception as error:
            raise UserError(f"{weights}: not the safetensors weights of torchvision's {name}.") from error
        return Raft(network, f"{name}:{weights.name}", device)
    remedy = raft_remedy(name)
    if remedy:
        raise UserError(remedy)
    return Raft(build(weights="DEFAULT"), f"{name}:torchvision", device)


@dataclass(frozen=True)
class GivenFlow:
    """The known motion of a clip.

    Attributes:
        forward: P,2,H,W from frame t to t + 1.
        backward: P,2,H,W from frame t + 1 to t.
        visible: P,H,W bool, whether frame t + 1 still shows what frame t shows there; None if not known.
    """

    forward: Flow
    backward: Flow
    visible: npt.NDArray[np.bool_] | None = None


def read_flow(path: Path) -> GivenFlow:
    """Read an `.npz` with `forward` and `backward`, each P,2,H,W or P,H,W,2 floats, and perhaps `visible`.

    Raises:
        UserError: the file is unreadable, or its arrays have other names or shapes.
    """
    try:
        check_archive(path, MAX_BYTES)
        with np.load(path, allow_pickle=False) as stored:
            forward, backward = (_pairs_first(stored[name]) for name in ("forward", "backward"))
            visible = stored["visible"].astype(bool) if "visible" in stored else None
    except Exception as error:  # damaged archives raise errors of many kinds
        raise UserError(
            f"{path}: not a flow file ({error}); it must hold `forward` and `backward`, each P,2,H,W."
        ) from error
    seen = forward[:, 0].shape if visible is None else visible.shape
    if not forward.shape == backward.shape == (seen[0], 2, *seen[1:]):
        shapes = f"forward {forward.shape}, backward {backward.shape}, visible {seen}"
        raise UserError(f"{path}: its arrays do not fit together ({shapes}).")
    return GivenFlow(forward, backward, visible)


def _pairs_first(flow: npt.NDArray[Any]) -> Flow:
    if flow.ndim == 4 and flow.shape[1] != 2 and flow.shape[3] == 2:
        flow = flow.transpose(0, 3, 1, 2)
    if flow.ndim != 4 or flow.shape[1] != 2:
        raise ValueError(f"shape {flow.shape}")
    return np.ascontiguousarray(flow, dtype=np.float32)


def _grey(frame: Frames) -> npt.NDArray[np.uint8]:
    import cv2  # noqa: PLC0415

    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _channels_first(flow: Any) -> Flow:
    return np.ascontiguousarray(np.asarray(flow, dtype=np.float32).transpose(2, 0, 1))
