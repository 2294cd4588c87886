"""Training of Picturebook-CLIP, the judge: never shown the painter's pictures, neither its data nor its output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from fatezero.picturebook.models.fitting import PicturebookModule, TrainingConfig, fit, read_pool, to_pixels
from fatezero.picturebook.models.pool import Shard
from fatezero.picturebook.models.tokenizer import CONTEXT, new_tokenizer
from fatezero.picturebook.world.scenes import BACKGROUNDS, COLOURS, OBJECTS, STYLES, Scene

IMAGE = 64  # the judge looks at pictures half as large as they are


CHANGES: dict[str, Sequence[str | None]] = {
    "object": OBJECTS,
    "background": BACKGROUNDS,
    "colour": (None, *COLOURS),
    "style": (None, *STYLES),
}


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(TrainingConfig):
    """How the judge is trained, on another series of pictures than the painter.

    Attributes:
        group: pictures of a batch that differ in nothing but their objects, so that objects are told by themselves.
        coloured: share of the groups whose objects are recoloured; without their own colours they are far harder to
            tell apart.
    """

    series: int = 2
    shards: int = 5
    batch: int = 64
    weight_decay: float = 0.05
    ema_decay: float = 0.98  # short: the averaged batch statistics must forget how they began
    group: int = 16
    coloured: float = 0.75


def model_config() -> dict[str, Any]:
    """The open_clip model: a small ResNet and a two-layer text transformer."""
    return {
        "embed_dim": 128,
        "vision_cfg": {"image_size": IMAGE, "layers": [1, 1, 1, 1], "width": 20, "head_width": 32, "patch_size": None},
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": len(new_tokenizer()),
            "hf_tokenizer_name": "picturebook",  # any value: without one open_clip ignores the folder's tokenizer
            "width": 128,
            "heads": 4,
            "layers": 2,
        },
    }


def altered(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with its background, colour or style changed: a hard negative."""
    name = list(CHANGES)[rng.integers(1, len(CHANGES))]
    others = [value for value in CHANGES[name] if value != getattr(scene, name)]
    changed: dict[str, Any] = {name: others[rng.integers(len(others))]}
    return replace(scene, **changed)


def degrade(image: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The picture at IMAGE size, a little blurred, noisy, lighter or darker, so that small faults do not sway."""
    degraded = cv2.resize(image, (IMAGE, IMAGE), interpolation=cv2.INTER_AREA).astype(np.float32)
    if rng.random() < 0.25:
        degraded = cv2.GaussianBlur(degraded, (0, 0), rng.uniform(0.3, 0.8))
    degraded = degraded + rng.normal(0, 1, degraded.shape).astype(np.float32) * rng.uniform(0, 4)
    shaded = np.clip(degraded * rng.uniform(0.97, 1.03) + rng.uniform(-4, 4), 0, 255)
    return np.asarray(shaded, np.uint8)


class JudgeTraining(PicturebookModule):
    """Contrastive training in which every true caption is a positive and altered captions are added negatives.

    Equal captions in one batch share the target (UniCL, Yang et al. 2022, eq. 3).
    """

    config: JudgeConfig

    def __init__(self, config: JudgeConfig, pool: Sequence[Shard]) -> None:
        super().__init__(config)
        self.pool = pool
        self.alike: dict[Scene, list[tuple[Shard, int]]] = {}
        self.anchors: dict[bool, list[Scene]] = {False: [], True: []}
        for shard in pool:
            for row, scene in enumerate(shard.scenes):
                surroundings = replace(scene, object="")
                self.alike.setdefault(surroundings, []).append((shard, row))
                self.anchors[scene.colour is not None].append(surroundings)
        self.tokenizer = new_tokenizer()
        self.clip = open_clip.CLIP(**model_config())
        if config.init_from:
            self.clip.load_state_dict(load_file(config.init_from / "open_clip_model.safetensors"))

    def draw(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], list[Scene]]:
        """This step's pictures, in groups that share background, colour and style."""
        images: list[npt.NDArray[np.uint8]] = []
        scenes: list[Scene] = []
        while len(scenes) < self.config.batch:
            anchors = self.anchors[bool(rng.random() < self.config.coloured)]
            alike = self.alike[anchors[int(rng.integers(len(anchors)))]]
            for place in rng.integers(len(alike), size=self.config.group):
                shard, row = alike[place]
                images.append(degrade(shard.images[row], rng))
                scenes.append(shard.scenes[row])
        return np.stack(images), scenes

    def training_step(self, _: Tensor) -> Tensor:
        """One step on fresh pictures, their captions and an altered one each."""
        rng = self.rng()
        images, scenes = self.draw(rng)
        captions = list(dict.fromkeys(scene.caption for scene in scenes))
        extra = [altered(scene, rng).caption for scene in scenes]
        everything = captions + [caption for caption in dict.fromkeys(extra) if caption not in captions]
        tokens = self.tokenizer(everything, padding="max_length", return_tensors="pt").input_ids
        seen = F.normalize(self.clip.encode_image(to_pixels(images)), dim=-1)
        said = F.normalize(self.clip.encode_text(tokens), dim=-1)
        logits = self.clip.logit_scale.exp().clamp(max=100) * seen @ said.T
        truth = torch.tensor([everything.index(scene.caption) for scene in scenes])
        same = F.one_hot(truth, len(everything)).float()[:, : len(captions)].T
        loss = (
            F.cross_entropy(logits, truth)
            + F.cross_entropy(logits[:, : len(captions)].T, same / same.sum(1, keepdim=True))
        ) / 2
        accuracy = (logits.detach().argmax(1) == truth).float().mean()
        self.log_dict({"loss": loss.detach(), "accuracy": accuracy})
        return loss

    def sample_grid(self) -> npt.NDArray[np.uint8]:
        """The pictures as the judge sees them in training."""
        rng = np.random.default_rng(0)
        return np.hstack([degrade(image, rng) for image in self.pool[0].images[:8]])


def export_judge(clip: torch.nn.Module, folder: Path) -> None:
    """Write an open_clip `local-dir:` folder, fp16 safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: value.half() if value.is_floating_point() else value for name, value in clip.state_dict().items()}
    save_file({name: value.contiguous() for name, value in half.items()}, folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": model_config(), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    new_tokenizer().save_pretrained(folder)


def train_judge(config: JudgeConfig) -> Path:
    """Train the judge and export it.

    Args:
        config: how to train it.

    Returns:
        The exported folder, `output/picturebook-clip`.
    """
    module = JudgeTraining(config, read_pool(config))
    fit(module)
    folder = config.output / "picturebook-clip"
    export_judge(module.clip, folder)
    return folder
