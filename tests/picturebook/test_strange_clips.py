"""A clip of another world than the shipped model's is told of; one of its own is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fatezero.clips.video import read_clip
from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.picturebook.world.scenes import random_pose, random_scene, render
from fatezero.pipeline import FateZero
from fatezero.shipped import CHECKPOINT, DEMO
from fatezero.types import ClipSpec

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ONE_STEP = MethodConfig(steps=1, fusion=None, blending=None)


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def editor(told: list[str]) -> FateZero:
    return FateZero.load("picturebook", RuntimeConfig(device="cpu"), told.append)


def is_strange(editor: FateZero, told: list[str], frames: np.ndarray) -> bool:
    told.clear()
    editor.edit(frames, "a jeep", "a bus", method=ONE_STEP)
    return any("is plainly not of picturebook's world" in sentence for sentence in told)


def test_a_film_is_strange_and_the_shipped_clip_is_not(editor: FateZero, told: list[str]) -> None:
    film = ClipSpec(path=str(ROOT / "datasets/bigbuckbunny/bigbuckbunny.mp4"), frames=1, height=128, width=128)
    assert is_strange(editor, told, read_clip(film).frames)
    assert not is_strange(editor, told, read_clip(replace(DEMO.clip, frames=1)).frames)
    other = FateZero.load(ModelOptions(vae=str(CHECKPOINT / "vae")), RuntimeConfig(device="cpu"), told.append)
    assert not is_strange(other, told, read_clip(film).frames)  # the bound is the checkpoint's own autoencoder's


def test_pictures_of_its_world_are_not_strange(editor: FateZero, told: list[str]) -> None:
    rng = np.random.default_rng(7)
    for _ in range(8):
        scene, pose = random_scene(rng), random_pose(rng)
        picture, _ = render(scene, pose, int(rng.integers(2**31)))
        assert not is_strange(editor, told, picture[None]), scene
