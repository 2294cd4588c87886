"""Picturebook-CLIP as a zero-shot classifier of objects, backgrounds, colours and styles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from fatezero.picturebook.models.fitting import to_pixels
from fatezero.picturebook.models.judge import CHANGES, IMAGE
from fatezero.picturebook.world.scenes import COLOURS, Scene

ATTRIBUTES: dict[str, Sequence[str | None]] = {**CHANGES, "colour": tuple(COLOURS)}  # a plain object has no name


class AttributeClassifier:
    """Names one attribute of a picture at a time, by the best of the captions that differ in that attribute alone."""

    def __init__(self, folder: Path) -> None:
        """Load the model.

        Args:
            folder: an open_clip `local-dir:` folder.
        """
        self.model = open_clip.create_model(f"local-dir:{folder}").eval()
        self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")

    def accuracy(self, images: npt.NDArray[np.uint8], scenes: Sequence[Scene]) -> dict[str, float]:
        """Share of pictures whose own caption beats those with another object (background, colour, style).

        Args:
            images: uint8 N,SIZE,SIZE,3 RGB.
            scenes: N, what they should show; colours are asked only where one is named.

        Returns:
            Accuracy 0..1 by attribute.
        """
        seen = self._seen(images)
        return {name: self._share(seen, scenes, name, values) for name, values in ATTRIBUTES.items()}

    @torch.no_grad()
    def _seen(self, images: npt.NDArray[np.uint8]) -> Tensor:
        pixels = F.interpolate(to_pixels(images), size=IMAGE, mode="area")
        return F.normalize(torch.cat([self.model.encode_image(batch) for batch in pixels.split(64)]), dim=-1)

    @torch.no_grad()
    def _share(self, seen: Tensor, scenes: Sequence[Scene], name: str, values: Sequence[str | None]) -> float:
        changes: list[dict[str, Any]] = [{name: value} for value in values]
        right = []
        for picture, scene in zip(seen, scenes, strict=True):
            wanted = getattr(scene, name)
            if wanted in values:
                captions = [replace(scene, **change).caption for change in changes]
                said = F.normalize(self.model.encode_text(self.tokenizer(captions)), dim=-1)
                right.append(values[int((said @ picture).argmax())] == wanted)
        return float(np.mean(right))
