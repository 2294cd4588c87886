"""The truth of Picturebook-Bench as files, for whoever scores edits without knowing the world."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fatezero.data.files import replacing
from fatezero.data.video import write_frames
from fatezero.picturebook.benchmark.recipes import (
    ClipRecipe,
    TrueClip,
    camera_turns,
    object_motion,
    object_poses,
    render_clip,
    true_flow,
)
from fatezero.picturebook.world.scenes import Scene


def render_truth(stated: Mapping[str, Any]) -> tuple[TrueClip, TrueClip]:
    """Render what a manifest's `truth` block names.

    Args:
        stated: of one edit, as `read_manifest` gives it.

    Returns:
        The source clip with its truth, and the true edited clip with its own.
    """
    recipe = _recipe(stated)
    return render_clip(recipe), render_clip(recipe.edited(Scene(**stated["target"])))


def _recipe(stated: Mapping[str, Any]) -> ClipRecipe:
    recipe = stated["recipe"]
    return ClipRecipe(**{**recipe, "scene": Scene(**recipe["scene"])})


def write_truth(stated: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Render what a manifest's `truth` block names into a folder, unless it lies there already.

    Args:
        stated: of one edit, as `read_manifest` gives it.
        folder: gets `clip/` and `mask/` as PNGs and `flow.npz` with `forward` and
            `backward`, F-1,2,H,W, and `visible`, F-1,H,W.

    Returns:
        The paths of all three, as a manifest of files would state them.
    """
    if not folder.is_dir():
        source, target = render_truth(stated)
        with replacing(folder) as partial:
            write_frames(partial / "clip", target.frames)
            write_frames(partial / "mask", edit_mask(stated, source, target).astype(np.uint8) * 255)
            forward, backward = both_flows(stated, source)
            flow = {"forward": forward, "backward": backward, "visible": one_surface(source)}
            np.savez_compressed(partial / "flow.npz", allow_pickle=False, **flow)
    return {"clip": str(folder / "clip"), "mask": str(folder / "mask"), "flow": str(folder / "flow.npz")}


def one_surface(clip: TrueClip) -> npt.NDArray[np.bool_]:
    """Pixels with one motion, F-1,H,W: visible in the next frame, and on no soft edge of the object in either.

    A pixel on the object's edge mixes two surfaces that move apart; no flow carries it to its successor.
    """
    edges = np.stack(
        [cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))) for mask in clip.mask]
    )
    rows, columns = np.mgrid[: clip.mask.shape[1], : clip.mask.shape[2]].astype(np.float32)
    clear = np.empty_like(clip.visible)
    for number, flow in enumerate(clip.flow):
        edge_there = cv2.remap(edges[number + 1], columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_NEAREST)
        clear[number] = clip.visible[number] & (edges[number] == 0) & (edge_there == 0)
    return clear


def edit_mask(stated: Mapping[str, Any], source: TrueClip, target: TrueClip) -> npt.NDArray[np.bool_]:
    """Where frames may change, F,H,W: everywhere (style), off the object (background), else on both objects."""
    before, after = stated["recipe"]["scene"], stated["target"]
    if before["style"] != after["style"]:
        return np.ones_like(source.mask)
    return ~source.mask if before["background"] != after["background"] else source.mask | target.mask


def both_flows(stated: Mapping[str, Any], source: TrueClip) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The source's motion to the next frame and back, F-1,2,H,W each, columns first."""
    recipe = _recipe(stated)
    poses, cameras = object_poses(recipe), camera_turns(recipe)
    backward = np.empty_like(source.flow)
    for number in range(recipe.frames - 1):
        move = object_motion(recipe.scene.object, poses[number + 1], poses[number])
        turn = cameras[number + 1] - cameras[number]
        backward[number], _ = true_flow(source.mask[number + 1], source.mask[number], move, turn)
    return source.flow.transpose(0, 3, 1, 2), backward.transpose(0, 3, 1, 2)
