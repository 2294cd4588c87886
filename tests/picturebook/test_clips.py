from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from fatezero.picturebook.benchmark.recipes import ClipRecipe, render_clip
from fatezero.picturebook.world.scenes import SIZE, Scene

JEEP = Scene(object="jeep", background="road")


def test_truth_moves_each_frame_onto_the_next() -> None:
    clip = render_clip(ClipRecipe(scene=JEEP, seed=1, frames=6, pan=12.5))
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    for now, after, flow, visible in zip(clip.frames, clip.frames[1:], clip.flow, clip.visible, strict=False):
        warped = cv2.remap(after.astype(np.float32), columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR)
        error = np.abs(warped - now).mean(axis=2)
        assert error[visible].mean() < 2
        assert error[~visible].mean() > 20


def test_standing_camera_leaves_the_background_still() -> None:
    clip = render_clip(ClipRecipe(scene=JEEP, seed=2, frames=4))
    still = ~clip.mask.any(axis=0)
    still &= ~cv2.dilate((~still).astype(np.uint8), np.ones((3, 3))).astype(bool)
    assert (clip.flow[:, still] == 0).all()
    assert (clip.frames[:, still] == clip.frames[:1, still]).all()


def test_camera_pan_is_shared_out_over_the_frames() -> None:
    clip = render_clip(ClipRecipe(scene=JEEP, seed=2, frames=5, pan=20))
    np.testing.assert_allclose(clip.flow[0][~clip.mask[0]], [[-5, 0]] * int((~clip.mask[0]).sum()), atol=1e-5)


def test_true_edit_keeps_motion_and_scene() -> None:
    recipe = ClipRecipe(scene=JEEP, seed=3, frames=4, pan=8)
    source, edited = render_clip(recipe), render_clip(recipe.edited(replace(JEEP, colour="red")))
    assert (source.mask == edited.mask).all()
    assert (source.flow == edited.flow).all()
    far = ~cv2.dilate(source.mask[0].astype(np.uint8), np.ones((5, 5))).astype(bool)
    assert (source.frames[0][far] == edited.frames[0][far]).all()
    assert np.abs(source.frames[0][source.mask[0]].astype(int) - edited.frames[0][source.mask[0]]).mean() > 20


def test_long_clip_walks_the_same_path() -> None:
    short = render_clip(ClipRecipe(scene=JEEP, seed=4, frames=5))
    long = render_clip(ClipRecipe(scene=JEEP, seed=4, frames=9))
    assert (short.frames == long.frames[::2]).all()


def test_distractor_stands_behind_and_is_not_masked() -> None:
    recipe = ClipRecipe(scene=JEEP, seed=5, frames=3)
    alone, crowded = render_clip(recipe), render_clip(replace(recipe, distractor="duck"))
    assert (alone.mask == crowded.mask).all()
    changed = (alone.frames != crowded.frames).any(axis=3)
    assert changed.any()
    cores = np.stack([cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) for mask in alone.mask]) > 0
    assert not changed[cores].any()


@pytest.mark.parametrize("style", [None, "an oil painting", "pixel art"])
def test_style_is_steady_where_nothing_moves(style: str | None) -> None:
    clip = render_clip(ClipRecipe(scene=replace(JEEP, style=style), seed=6, frames=4))
    near = cv2.dilate(clip.mask.any(axis=0).astype(np.uint8), np.ones((25, 25))).astype(bool)
    assert (clip.frames[:, ~near] == clip.frames[:1, ~near]).all()
