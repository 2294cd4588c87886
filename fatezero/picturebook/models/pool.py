"""Training pictures rendered once, in numbered shards, and read back as memory maps."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from fatezero.picturebook.world.scenes import SIZE, Scene, random_pose, render, training_scene
from fatezero.system.publishing import replacing

SHARD = 2000  # pictures per shard
COVERAGE = 16  # side of the stored object masks, those of the finest attention map


@dataclass(frozen=True)
class Shard:
    """Rendered pictures.

    Attributes:
        images: uint8 N,SIZE,SIZE,3 RGB.
        coverage: uint8 N,COVERAGE,COVERAGE, share of each cell that the object covers, 0..255.
        scenes: what each picture shows.
    """

    images: npt.NDArray[np.uint8]
    coverage: npt.NDArray[np.uint8]
    scenes: tuple[Scene, ...]

    def __deepcopy__(self, _: object) -> Shard:
        """Itself: weight averaging copies a whole training, but never its pictures."""
        return self


def draw_sample(series: int, index: int) -> tuple[Scene, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Picture number `index` of an endless series: scene, image, mask."""
    rng = np.random.default_rng([series, index])
    scene = training_scene(rng)
    return scene, *render(scene, random_pose(rng), int(rng.integers(2**31)))


def render_shard(folder: Path, series: int, number: int) -> Path:
    """Render one shard unless it exists.

    Args:
        folder: holds one folder per shard.
        series: names the series of pictures; series never overlap.
        number: which shard of the series.

    Returns:
        The shard's folder.
    """
    shard = folder / f"{series}-{number:03d}"
    if shard.exists():
        return shard
    images = np.empty((SHARD, SIZE, SIZE, 3), np.uint8)
    coverage = np.empty((SHARD, COVERAGE, COVERAGE), np.uint8)
    scenes = []
    for row in range(SHARD):
        scene, images[row], mask = draw_sample(series, number * SHARD + row)
        share = cv2.resize(mask.astype(np.float32), (COVERAGE, COVERAGE), interpolation=cv2.INTER_AREA)
        coverage[row] = np.round(255 * share)
        scenes.append(asdict(scene))
    with replacing(shard) as partial:
        partial.mkdir(exist_ok=True)
        np.save(partial / "images.npy", images)
        np.save(partial / "coverage.npy", coverage)
        (partial / "scenes.json").write_text(json.dumps(scenes))
    return shard


def read_shard(shard: Path) -> Shard:
    """A shard written by `render_shard`, its images as a memory map."""
    return Shard(
        images=np.load(shard / "images.npy", mmap_mode="r"),
        coverage=np.load(shard / "coverage.npy"),
        scenes=tuple(Scene(**scene) for scene in json.loads((shard / "scenes.json").read_text())),
    )
