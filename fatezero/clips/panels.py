"""Clips side by side, each under its label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fatezero.clips.source import Frame
from fatezero.errors import UserError
from fatezero.types import Frames

_GAP = 4


def side_by_side(panels: Sequence[tuple[str, Frames]]) -> Frames:
    """Joins clips left to right at the height of the tallest, each under its label; both sizes come out even.

    Args:
        panels: labels with uint8 frames F,H,W,3 RGB of one common F.

    Raises:
        UserError: the panels differ in their number of frames, or there is none.
    """
    if len({len(frames) for _, frames in panels}) != 1:
        stated = ", ".join(f"{label} {len(frames)}" for label, frames in panels) or "none"
        raise UserError(f"clips side by side need the same number of frames, but these have: {stated}.")
    height = max(frames.shape[1] for _, frames in panels)
    widths = [round(frames.shape[2] * height / frames.shape[1]) for _, frames in panels]
    band = _label_band([label for label, _ in panels], widths, max(16, height // 20))
    top, bottom, right = band.shape[0], band.shape[0] + height, band.shape[1]
    size = (bottom + bottom % 2, right + right % 2)
    joined = np.full((len(panels[0][1]), *size, 3), 255, dtype=np.uint8)
    joined[:, :top, :right] = band
    left = 0
    for (_, frames), width in zip(panels, widths, strict=True):
        for target, frame in zip(joined, frames, strict=True):
            target[top:bottom, left : left + width] = _scaled(frame, height, width)
        left += width + _GAP
    return joined


def _label_band(labels: Sequence[str], widths: Sequence[int], height: int) -> Frame:
    band = Image.new("RGB", (sum(widths) + _GAP * (len(widths) - 1), height), "white")
    font = ImageFont.load_default(size=height * 0.7)
    left = 0
    for label, width in zip(labels, widths, strict=True):
        panel = Image.new("RGB", (width, height), "white")
        text = _shortened(label, font, width - 6)
        ImageDraw.Draw(panel).text((3, height / 2), text, "black", font, anchor="lm")
        band.paste(panel, (left, 0))
        left += width + _GAP
    return np.asarray(band)


def _shortened(label: str, font: Any, width: int) -> str:
    text = " ".join(label.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _scaled(frame: Frame, height: int, width: int) -> Frame:
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))
