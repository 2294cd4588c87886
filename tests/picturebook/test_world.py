from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from fatezero.picturebook.world.scenes import (
    BACKGROUNDS,
    COLOURS,
    OBJECTS,
    SIZE,
    STYLES,
    Pose,
    Scene,
    held_out,
    random_pose,
    render,
    sprite,
    training_scene,
)

POSE = Pose(x=64, y=70, size=80)


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (Scene(object="jeep", background="road"), "a jeep on the road"),
        (Scene(object="owl", background="night sky"), "an owl under a night sky"),
        (Scene(object="owl", background="sunset", colour="red"), "a red owl at sunset"),
        (
            Scene(object="elephant", background="water", style="an oil painting"),
            "an oil painting of an elephant on the water",
        ),
    ],
)
def test_caption_says_the_scene(scene: Scene, caption: str) -> None:
    assert scene.caption == caption


def test_captions_are_distinct() -> None:
    scenes = [
        Scene(object=thing, background=place, colour=colour, style=style)
        for thing in OBJECTS
        for place in BACKGROUNDS
        for colour in (None, *COLOURS)
        for style in (None, *STYLES)
    ]
    assert len({scene.caption for scene in scenes}) == len(scenes)


def test_same_seed_same_bytes_other_seed_others() -> None:
    scene = Scene(object="fox", background="forest", style="a watercolor painting")
    digests = [hashlib.sha256(render(scene, POSE, seed)[0].tobytes()).hexdigest() for seed in (3, 3, 4)]
    assert digests[0] == digests[1] != digests[2]


def test_mask_has_the_size_and_place_of_the_pose() -> None:
    _, mask = render(Scene(object="bus", background="snow"), Pose(x=50, y=66, size=72), 0)
    rows, columns = np.nonzero(mask)
    assert columns.max() - columns.min() + 1 == pytest.approx(72, abs=2)
    assert (columns.max() + columns.min()) / 2 == pytest.approx(50, abs=1)
    assert (rows.max() + rows.min()) / 2 == pytest.approx(66, abs=1)


def test_object_and_colour_change_nothing_outside_the_object() -> None:
    scene = Scene(object="rabbit", background="grass")
    plain, mask = render(scene, POSE, 5)
    red, _ = render(replace(scene, colour="red"), POSE, 5)
    changed = np.abs(plain.astype(int) - red).max(axis=2) > 12  # half-covered pixels of the rim change a little
    alpha_rim = np.zeros_like(mask)
    alpha_rim[1:-1, 1:-1] = mask[:-2, 1:-1] | mask[2:, 1:-1] | mask[1:-1, :-2] | mask[1:-1, 2:]
    assert changed[mask].mean() > 0.6
    assert not changed[~(mask | alpha_rim)].any()


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_are_what_they_are_called(colour: str) -> None:
    scene = Scene(object="cow", background="snow", colour=colour)
    image, mask = render(scene, POSE, 0)
    mean = image[mask].mean(axis=0)
    distances = {name: float(np.linalg.norm(mean - value)) for name, value in COLOURS.items()}
    assert min(distances, key=lambda name: distances[name]) == colour


def test_styles_change_the_whole_picture_and_differ() -> None:
    scene = Scene(object="lion", background="sand")
    images = [render(replace(scene, style=style), POSE, 0)[0].astype(int) for style in (None, *STYLES)]
    for number, image in enumerate(images):
        for other in images[:number]:
            assert np.abs(image - other).mean() > 5


def test_pixel_art_is_made_of_cells() -> None:
    image, _ = render(Scene(object="truck", background="road", style="pixel art"), POSE, 0)
    cells = image.reshape(SIZE // 4, 4, SIZE // 4, 4, 3)
    assert (cells == cells[:, :1, :, :1]).all()


def test_training_never_draws_a_held_out_pair() -> None:
    rng = np.random.default_rng(0)
    scenes = [training_scene(rng) for _ in range(2000)]
    assert not any(held_out(scene) for scene in scenes)
    drawn = {(scene.object, scene.background) for scene in scenes}
    assert len(drawn) == len(OBJECTS) * (len(BACKGROUNDS) - 1)


def test_each_kind_of_pair_is_held_out_somewhere() -> None:
    plain = [Scene(object=thing, background=place) for thing in OBJECTS for place in BACKGROUNDS]
    allowed = [scene for scene in plain if not held_out(scene)]
    assert len(plain) - len(allowed) == len(OBJECTS)
    assert any(held_out(replace(scene, colour=colour)) for scene in allowed for colour in COLOURS)
    assert any(held_out(replace(scene, style=style)) for scene in allowed for style in STYLES)


def test_random_poses_keep_the_object_in_the_picture() -> None:
    rng = np.random.default_rng(1)
    for number in range(40):
        _, mask = render(Scene(object=OBJECTS[number % len(OBJECTS)], background="snow"), random_pose(rng), 0)
        assert mask.mean() > 0.05
        assert mask[:, 0].sum() + mask[:, -1].sum() < 20


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_has_a_sprite(name: str) -> None:
    colours, alpha = sprite(name)
    assert max(alpha.shape) == 112
    assert colours.shape == (*alpha.shape, 3)
    assert 0.3 < alpha.mean() < 0.95
