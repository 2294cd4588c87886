"""Clips with known truth: frames, masks, exact motion, and the edit as it should be."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fatezero.picturebook.world.scenes import OBJECTS, SIZE, Pose, Scene, draw, finish, placement, view
from fatezero.types import Frames

DISTRACTOR_SIZE = 34.0


@dataclass(frozen=True, kw_only=True)
class ClipRecipe:
    """Everything that determines a clip.

    Attributes:
        scene: what it shows.
        seed: decides the motion and the background's details, independently of the scene.
        frames: length of the clip; the motion is stretched over it.
        pan: how far the camera turns right over the clip, pixels, within ±40.
        distractor: a second, small object that stands behind the first and that no caption names, or None.
    """

    scene: Scene
    seed: int
    frames: int = 16
    pan: float = 0.0
    distractor: str | None = None

    def edited(self, scene: Scene) -> ClipRecipe:
        """The same motion, background seed and camera with another scene: the true edit."""
        return replace(self, scene=scene)


@dataclass(frozen=True)
class TrueClip:
    """A rendered clip.

    Attributes:
        frames: uint8 F,H,W,3 RGB.
        mask: bool F,H,W, where the object is.
        flow: float32 F-1,H,W,2, where each pixel of a frame goes in the next, (columns right, rows down).
        visible: bool F-1,H,W, whether that place is inside the picture and shows the same surface.
    """

    frames: Frames
    mask: npt.NDArray[np.bool_]
    flow: npt.NDArray[np.float32]
    visible: npt.NDArray[np.bool_]


def object_poses(recipe: ClipRecipe) -> list[Pose]:
    """The object's smooth path: one pose per frame, following from the seed alone."""
    rng = np.random.default_rng([recipe.seed, len(OBJECTS)])
    size, growth = rng.uniform(68, 80), rng.uniform(-0.1, 0.1)
    start, end = rng.uniform(50, 78, 2) + np.array([-8, 8]) * rng.choice([-1, 1])
    level, bob = rng.uniform(70, 80), rng.uniform(1, 4)
    tilt, phase = rng.uniform(2, 7), rng.uniform(0, 2 * np.pi)
    poses = []
    for time in np.linspace(0, 1, recipe.frames):
        ease = time * time * (3 - 2 * time)
        poses.append(
            Pose(
                x=float(start + (end - start) * ease),
                y=float(level + bob * np.sin(2 * np.pi * time + phase)),
                size=float(size * (1 + growth * (2 * ease - 1))),
                angle=float(tilt * np.sin(np.pi * time + phase)),
            )
        )
    return poses


def camera_turns(recipe: ClipRecipe) -> npt.NDArray[np.float64]:
    """How far the camera has turned right of the middle, pixels, in each frame."""
    return np.linspace(-recipe.pan / 2, recipe.pan / 2, recipe.frames)


def distractor_pose(recipe: ClipRecipe, camera: float) -> Pose:
    """Where the distractor stands: fixed to the background, near the side that the seed picks."""
    side = np.random.default_rng([recipe.seed, len(OBJECTS) + 1]).choice([-1, 1])
    return Pose(x=SIZE / 2 + side * 44 - camera, y=58.0, size=DISTRACTOR_SIZE)


def render_clip(recipe: ClipRecipe) -> TrueClip:
    """Render a clip and its truth.

    Args:
        recipe: what to render.

    Returns:
        The clip; the same recipe gives the same bytes with the same library versions.
    """
    scene, poses = recipe.scene, object_poses(recipe)
    cameras = camera_turns(recipe)
    frames = np.empty((recipe.frames, SIZE, SIZE, 3), np.uint8)
    mask = np.empty((recipe.frames, SIZE, SIZE), np.bool_)
    for number, (pose, camera) in enumerate(zip(poses, cameras, strict=True)):
        canvas = view(scene.background, recipe.seed, camera)
        if recipe.distractor:
            canvas, _ = draw(canvas, recipe.distractor, None, distractor_pose(recipe, camera))
        canvas, mask[number] = draw(canvas, scene.object, scene.colour, pose)
        frames[number] = finish(canvas, scene.style)
    flow = np.empty((recipe.frames - 1, SIZE, SIZE, 2), np.float32)
    visible = np.empty((recipe.frames - 1, SIZE, SIZE), np.bool_)
    for number in range(recipe.frames - 1):
        move = object_motion(scene.object, poses[number], poses[number + 1])
        turn = cameras[number] - cameras[number + 1]
        flow[number], visible[number] = true_flow(mask[number], mask[number + 1], move, turn)
    return TrueClip(frames, mask, flow, visible)


def object_motion(name: str, before: Pose, after: Pose) -> npt.NDArray[np.float64]:
    """The 3,3 matrix that takes the object's pixels (column, row, 1) of one frame to the next."""
    return placement(name, after) @ np.linalg.inv(placement(name, before))


def true_flow(
    mask: npt.NDArray[np.bool_], mask_next: npt.NDArray[np.bool_], move: npt.NDArray[np.float64], turn: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Analytic motion between two frames.

    Args:
        mask: H,W, the object in the first frame.
        mask_next: H,W, the object in the second.
        move: 3,3 motion of the object's pixels.
        turn: motion of the background, columns.

    Returns:
        Flow H,W,2 and visibility H,W of the first frame's pixels: a background pixel vanishes when the object covers
        the place it goes to, any pixel when it leaves the picture.
    """
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    here = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    there = np.where(mask[..., None], (here @ move.T)[..., :2], here[..., :2] + np.array([turn, 0.0]))
    column, row = np.moveaxis(np.rint(there).astype(int), -1, 0)
    inside = (column >= 0) & (column < SIZE) & (row >= 0) & (row < SIZE)
    object_there = mask_next[row.clip(0, SIZE - 1), column.clip(0, SIZE - 1)]
    return (there - here[..., :2]).astype(np.float32), inside & (mask | ~object_there)
