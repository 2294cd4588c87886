"""Following pixels along a flow: backward warping and what cannot be followed.

Shapes: H rows, W columns. A flow is 2,H,W in pixels, first x (right), then y (down): the pixel p of one frame
is found at p + flow(p) in the other. Everything is done one frame at a time, so that no number depends on
which frames share a batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def sample_points(flow_2HW: Tensor) -> Tensor:
    """Where each pixel goes: its own coordinates plus the flow, 2,H,W (x, y)."""
    _, height, width = flow_2HW.shape
    rows = torch.arange(height, dtype=flow_2HW.dtype, device=flow_2HW.device)
    columns = torch.arange(width, dtype=flow_2HW.dtype, device=flow_2HW.device)
    return torch.stack([flow_2HW[0] + columns, flow_2HW[1] + rows[:, None]])


def in_bounds(flow_2HW: Tensor) -> Tensor:
    """True where the flow's end lies inside the frame, H,W bool."""
    x, y = sample_points(flow_2HW)
    inside: Tensor = (x >= 0) & (x <= x.shape[1] - 1) & (y >= 0) & (y <= x.shape[0] - 1)
    return inside


def warp(image_CHW: Tensor, flow_2HW: Tensor, outside: Literal["border", "zeros"] = "border") -> Tensor:
    """The image seen through the flow: result(p) = image(p + flow(p)), bilinear, C,H,W.

    Exact for whole-pixel flows, because nothing is normalised to [-1, 1] and back.

    Args:
        image_CHW: any floating dtype.
        flow_2HW: pixels, same H and W.
        outside: what lies beyond the frame: its border repeated (FlowNet2's Resample2d), or zeros
            (`grid_sample`'s default, used by GMFlow).
    """
    _, height, width = image_CHW.shape
    x, y = sample_points(flow_2HW.to(image_CHW.dtype))
    left, top = x.floor(), y.floor()
    result = torch.zeros_like(image_CHW)
    for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            weight = weight_y * weight_x
            if outside == "zeros":
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                weight = weight * inside
            rows = row.clamp(0, height - 1).long()
            columns = column.clamp(0, width - 1).long()
            result += weight * image_CHW[:, rows, columns]
    return result


def occluded(flow_2HW: Tensor, back_2HW: Tensor) -> Tensor:
    """True where the flow and its counterpart disagree, or at a motion boundary, H,W bool.

    |F̂_bw + F|² > 0.01 (|F̂_bw|² + |F|²) + 0.5, or |∇u|² + |∇v|² > 0.01 |F|² + 0.002, with F̂_bw the
    counterpart warped by the flow and forward differences for the gradient.

    Args:
        flow_2HW: from this frame to the other.
        back_2HW: from the other frame to this one.

    Source: Lai et al. 2018, `detect_occlusion`, after Ruder et al. 2016.
    """
    flow, back = flow_2HW.double(), back_2HW.double()
    returned = warp(back, flow)
    strength = flow.square().sum(0)
    disagree = (returned + flow).square().sum(0) > 0.01 * (returned.square().sum(0) + strength) + 0.5
    gradient = torch.zeros_like(strength)
    gradient[:, :-1] += (flow[:, :, :-1] - flow[:, :, 1:]).square().sum(0)
    gradient[:-1, :] += (flow[:, :-1, :] - flow[:, 1:, :]).square().sum(0)
    return disagree | (gradient > 0.01 * strength + 0.002)


def inconsistent(flow_2HW: Tensor, back_2HW: Tensor) -> Tensor:
    """True where |F̂_bw + F| > 0.01 (|F| + |F_bw|) + 0.5, H,W bool: norms not squared, F_bw not warped.

    Source: GMFlow's `forward_backward_consistency_check` in Rerender-A-Video (zeros beyond the frame).
    """
    flow, back = flow_2HW.double(), back_2HW.double()
    returned = warp(back, flow, outside="zeros")
    allowed: Tensor = 0.01 * (torch.hypot(*flow) + torch.hypot(*back)) + 0.5
    mismatch: Tensor = torch.hypot(*(flow + returned)) > allowed
    return mismatch
