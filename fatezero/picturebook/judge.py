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

from fatezero.picturebook.clip import CHANGES, IMAGE
from fatezero.picturebook.training import to_pixels
from fatezero.picturebook.world import COLOURS, Scene, random_scene

ATTRIBUTES: dict[str, Sequence[str | None]] = {**CHANGES, "colour": tuple(COLOURS)}  # a plain object has no name
ENSEMBLE = 48  # captions averaged for each class


class Judge:
    """Names what it sees, each attribute by itself, with averaged captions a class (CLIP's prompt ensembling)."""

    @torch.no_grad()
    def __init__(self, folder: Path) -> None:
        """Load the model and embed the classes.

        Args:
            folder: an open_clip `local-dir:` folder.
        """
        self.model = open_clip.create_model(f"local-dir:{folder}").eval()
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        rng = np.random.default_rng(0)
        scenes = [random_scene(rng) for _ in range(ENSEMBLE)]
        self.classes = {}
        for attribute, values in ATTRIBUTES.items():
            changes: list[dict[str, Any]] = [{attribute: value} for value in values]
            captions = [replace(scene, **change).caption for change in changes for scene in scenes]
            said = F.normalize(self.model.encode_text(tokenizer(captions)), dim=-1)
            self.classes[attribute] = F.normalize(said.unflatten(0, (len(values), ENSEMBLE)).mean(dim=1), dim=-1)

    @torch.no_grad()
    def accuracy(self, images: npt.NDArray[np.uint8], scenes: Sequence[Scene]) -> dict[str, float]:
        """Share of pictures named as their scenes say, for each attribute.

        Args:
            images: uint8 N,SIZE,SIZE,3 RGB.
            scenes: N, what they should show; colours are asked only where one is named.

        Returns:
            Accuracy 0..1 by attribute.
        """
        pixels = F.interpolate(to_pixels(images), size=IMAGE, mode="area")
        seen = torch.cat([self.model.encode_image(batch) for batch in pixels.split(64)])
        shares = {}
        for attribute, values in ATTRIBUTES.items():
            named = [values[number] for number in (seen @ self.classes[attribute].T).argmax(dim=1)]
            asked = [(getattr(scene, attribute), name) for scene, name in zip(scenes, named, strict=True)]
            asked = [pair for pair in asked if attribute != "colour" or pair[0] is not None]
            shares[attribute] = float(np.mean([wanted == name for wanted, name in asked]))
        return shares
