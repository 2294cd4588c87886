"""The truth of Picturebook-Bench as files, for whoever scores edits without knowing the world."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fatezero.clips.video import write_frames
from fatezero.errors import UserError
from fatezero.picturebook.benchmark.recipes import (
    ClipRecipe,
    TrueClip,
    camera_turns,
    object_motion,
    object_poses,
    render_clip,
    true_flow,
)
from fatezero.picturebook.world.scenes import BACKGROUNDS, COLOURS, OBJECTS, STYLES, Scene
from fatezero.system.locking import locked
from fatezero.system.publishing import replacing
from fatezero.system.terminal import quoted

MAX_FRAMES = 1024  # of a recipe that a manifest states
MAX_PAN = 40.0
_AGAIN = "write the benchmark's manifest again."


def render_truth(stated: Mapping[str, Any]) -> tuple[TrueClip, TrueClip]:
    """Render what a manifest's `truth` block names.

    Args:
        stated: of one edit, as `read_manifest` gives it.

    Returns:
        The source clip with its truth, and the true edited clip with its own.

    Raises:
        UserError: the recipe names what this world does not have.
    """
    recipe, target = _scenes(stated)
    return render_clip(recipe), render_clip(recipe.edited(target))


def check_recipe(stated: Mapping[str, Any]) -> None:
    """Refuse a recipe that could not be rendered; nothing is written.

    Args:
        stated: of one edit, as `read_manifest` gives it.

    Raises:
        UserError: it names nothing of this world.
    """
    _scenes(stated)


def _recipe(stated: Mapping[str, Any]) -> ClipRecipe:
    return _scenes(stated)[0]


def _scenes(stated: Mapping[str, Any]) -> tuple[ClipRecipe, Scene]:
    """The source's recipe and the scene of the true edit.

    Raises:
        UserError: they name what this world does not have.
    """
    try:
        recipe = dict(stated["recipe"])
        made = ClipRecipe(**{**recipe, "scene": Scene(**recipe["scene"])})
        target = Scene(**stated["target"])
        sound = all(map(_is_of_this_world, (made.scene, target))) and _is_bounded(made)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the truth is no recipe of a Picturebook clip ({error}); {_AGAIN}") from error
    if not sound:
        raise UserError(f"the truth names what Picturebook does not have ({quoted(stated)}); {_AGAIN}")
    return made, target


def _is_of_this_world(scene: Scene) -> bool:
    known = scene.object in OBJECTS and scene.background in BACKGROUNDS
    return known and scene.colour in (None, *COLOURS) and scene.style in (None, *STYLES)


def _is_bounded(recipe: ClipRecipe) -> bool:
    whole = type(recipe.frames) is int and type(recipe.seed) is int and type(recipe.pan) in (int, float)
    known = recipe.distractor is None or recipe.distractor in OBJECTS
    return whole and known and 0 < recipe.frames <= MAX_FRAMES and recipe.seed >= 0 and abs(recipe.pan) <= MAX_PAN


def write_truth(stated: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Render what a manifest's `truth` block names into a folder, unless it lies there already.

    A truth that states files, rather than a recipe, is what it states.

    Args:
        stated: of one edit, as `read_manifest` gives it.
        folder: gets `clip/` and `mask/` as PNGs and `flow.npz` with `forward` and
            `backward`, F-1,2,H,W, and `visible`, F-1,H,W.

    Returns:
        The paths of all three, as a manifest of files would state them.

    Raises:
        UserError: the recipe names what this world does not have, or the folder cannot be written.
    """
    if "recipe" not in stated:
        return dict(stated)
    with locked(folder.with_name(f".{folder.name}.lock")):  # others that want it wait, rather than write it again
        if not folder.is_dir():
            _render_into(folder, stated)
    return {"clip": str(folder / "clip"), "mask": str(folder / "mask"), "flow": str(folder / "flow.npz")}


def _render_into(folder: Path, stated: Mapping[str, Any]) -> None:
    source, target = render_truth(stated)
    with replacing(folder) as partial:
        write_frames(partial / "clip", target.frames)
        write_frames(partial / "mask", edit_mask(stated, source, target).astype(np.uint8) * 255)
        forward, backward = both_flows(stated, source)
        flow = {"forward": forward, "backward": backward, "visible": one_surface(source)}
        np.savez_compressed(partial / "flow.npz", allow_pickle=False, **flow)


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
    recipe, after = _scenes(stated)
    if recipe.scene.style != after.style:
        return np.ones_like(source.mask)
    return ~source.mask if recipe.scene.background != after.background else source.mask | target.mask


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
