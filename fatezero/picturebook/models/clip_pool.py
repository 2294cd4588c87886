"""Training clips rendered once, in numbered shards, and read back as memory maps."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from fatezero.picturebook.benchmark.recipes import ClipRecipe, render_clip
from fatezero.picturebook.models.pool import COVERAGE
from fatezero.picturebook.world.scenes import SIZE, Scene, training_scene
from fatezero.system.publishing import replacing

CLIPS = 100  # per shard
FRAMES = 17  # of a clip: the first, and four for each further latent frame
PAN = 30.0  # the camera turns at most this far either way


@dataclass(frozen=True)
class ClipShard:
    """Rendered clips.

    Attributes:
        frames: uint8 N,FRAMES,SIZE,SIZE,3 RGB.
        coverage: uint8 N,FRAMES,COVERAGE,COVERAGE, share of each cell that the object covers, 0..255.
        scenes: what each clip shows.
    """

    frames: npt.NDArray[np.uint8]
    coverage: npt.NDArray[np.uint8]
    scenes: tuple[Scene, ...]

    def __deepcopy__(self, _: object) -> ClipShard:
        """Itself: weight averaging copies a whole training, but never its clips."""
        return self


def draw_recipe(series: int, index: int, frames: int = FRAMES) -> ClipRecipe:
    """Clip number `index` of an endless series of clips that training may see."""
    rng = np.random.default_rng([series, frames, index])
    seed, pan = int(rng.integers(2**31)), float(rng.uniform(-PAN, PAN)) if rng.random() < 0.5 else 0.0
    return ClipRecipe(scene=training_scene(rng), seed=seed, frames=frames, pan=pan)


def cell_coverage(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Share of each cell that the object covers, of F,H,W: uint8 F,COVERAGE,COVERAGE, 0..255."""
    shares = [cv2.resize(mask.astype(np.float32), (COVERAGE, COVERAGE), interpolation=cv2.INTER_AREA) for mask in masks]
    return np.round(255 * np.stack(shares)).astype(np.uint8)


def render_clips(series: int, number: int) -> ClipShard:
    """Render shard `number` of an endless series."""
    frames = np.empty((CLIPS, FRAMES, SIZE, SIZE, 3), np.uint8)
    coverage = np.empty((CLIPS, FRAMES, COVERAGE, COVERAGE), np.uint8)
    scenes = []
    for row in range(CLIPS):
        recipe = draw_recipe(series, number * CLIPS + row)
        clip = render_clip(recipe)
        frames[row], coverage[row] = clip.frames, cell_coverage(clip.mask)
        scenes.append(recipe.scene)
    return ClipShard(frames, coverage, tuple(scenes))


def stored_clips(folder: Path, series: int, number: int) -> ClipShard:
    """One shard, rendered into a folder of `folder` unless it is there, its frames as a memory map."""
    stored = folder / f"clips-{series}-{number:03d}"
    if not stored.exists():
        shard = render_clips(series, number)
        with replacing(stored) as partial:
            partial.mkdir(exist_ok=True)
            np.save(partial / "frames.npy", shard.frames)
            np.save(partial / "coverage.npy", shard.coverage)
            scenes = json.dumps([asdict(scene) for scene in shard.scenes])
            (partial / "scenes.json").write_text(scenes, encoding="utf-8")
    scenes = json.loads((stored / "scenes.json").read_text(encoding="utf-8"))
    return ClipShard(
        frames=np.load(stored / "frames.npy", mmap_mode="r"),
        coverage=np.load(stored / "coverage.npy"),
        scenes=tuple(Scene(**scene) for scene in scenes),
    )
