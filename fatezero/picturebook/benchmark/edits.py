"""Picturebook-Bench: which clips and edits it holds, and how its files are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fatezero.clips.video import write_video
from fatezero.picturebook.benchmark.recipes import ClipRecipe, render_clip
from fatezero.picturebook.world.scenes import BACKGROUNDS, COLOURS, OBJECTS, STYLES, Scene, held_out
from fatezero.shipped import DEMO
from fatezero.system.publishing import replace_text

FPS = 8
CLIPS = 30
LONG_CLIPS = 3
CROWDED_CLIPS = 5  # each category twice
CLIP_FRAMES = 16
LONG = 64  # frames of a long clip
# Two edits per clip; five clips hold each category twice.
CATEGORIES = (
    ("style", "attribute"),
    ("object", "shape"),
    ("background", "style"),
    ("attribute", "object"),
    ("shape", "background"),
)
SIMILAR = {
    **{"fox": "wolf", "wolf": "fox", "tiger": "leopard", "leopard": "tiger", "cat": "dog", "dog": "cat"},
    **{"car": "jeep", "jeep": "car", "bus": "truck", "truck": "bus", "lion": "bear", "bear": "lion"},
}
VEHICLES = ("car", "jeep", "bus", "train", "truck")


@dataclass(frozen=True)
class BenchmarkEdit:
    """One edit of the benchmark.

    Attributes:
        recipe: the source clip.
        target: the edited scene.
        category: style, attribute, object, shape or background.
    """

    recipe: ClipRecipe
    target: Scene
    category: str

    @property
    def words(self) -> tuple[list[str], list[str]]:
        """Words of the source prompt that the edit changes, and those of the target prompt that stand for them."""
        source, target = self.recipe.scene, self.target
        match self.category:
            case "style":
                return [], str(target.style).split()[1:] if target.style != "pixel art" else ["pixel", "art"]
            case "attribute":
                return [source.object], [str(target.colour), target.object]
            case "background":
                return source.background.split(), target.background.split()
            case _:
                return [source.object], [target.object]


def edit_scene(scene: Scene, category: str, rng: np.random.Generator) -> Scene:
    """The scene after a random edit of a category."""
    match category:
        case "style":
            return replace(scene, style=STYLES[rng.integers(len(STYLES))])
        case "attribute":
            return replace(scene, colour=list(COLOURS)[rng.integers(len(COLOURS))])
        case "object":
            return replace(scene, object=SIMILAR[scene.object])
        case "shape":
            kin = [name for name in OBJECTS if (name in VEHICLES) == (scene.object in VEHICLES)]
            others = [name for name in kin if name not in (scene.object, SIMILAR.get(scene.object))]
            return replace(scene, object=others[rng.integers(len(others))])
        case _:
            others = [name for name in BACKGROUNDS if name != scene.background]
            return replace(scene, background=others[rng.integers(len(others))])


def draw_clip(number: int, frames: int = CLIP_FRAMES) -> list[BenchmarkEdit]:
    """Clip number `number` and its two edits: all scenes seen in training if even, all targets held out if odd."""
    rng = np.random.default_rng([number, 5])
    categories = CATEGORIES[number % len(CATEGORIES)]
    rare = number % 2 == 1
    names = list(SIMILAR) if "object" in categories else OBJECTS
    while True:
        scene = Scene(object=names[rng.integers(len(names))], background=BACKGROUNDS[rng.integers(len(BACKGROUNDS))])
        targets = [edit_scene(scene, category, rng) for category in categories]
        if not held_out(scene) and all(held_out(target) == rare for target in targets):
            break
    pan = float(rng.choice([0, 0, -24, 24]))
    recipe = ClipRecipe(scene=scene, seed=1000 + number, frames=frames, pan=pan)
    return [BenchmarkEdit(recipe, target, category) for target, category in zip(targets, categories, strict=True)]


def with_distractor(edits: Sequence[BenchmarkEdit], number: int) -> list[BenchmarkEdit]:
    """A clip's edits with a second object behind the first, one that no edit names."""
    named = {edit.recipe.scene.object for edit in edits} | {edit.target.object for edit in edits}
    others = [name for name in OBJECTS if name not in named]
    distractor = others[np.random.default_rng([number, 6]).integers(len(others))]
    return [replace(edit, recipe=replace(edit.recipe, distractor=distractor)) for edit in edits]


def as_entry(edit: BenchmarkEdit, clip: str) -> dict[str, Any]:
    """An edit as the manifest states it; `truth` holds what renders it again."""
    edited, target = edit.words
    return {
        "id": f"{Path(clip).stem}-{edit.category}",
        "clip": clip,
        "source_prompt": edit.recipe.scene.caption,
        "target_prompt": edit.target.caption,
        "edited_words": edited,
        "target_words": target,
        "category": edit.category,
        "seed": edit.recipe.seed,
        "truth": {
            "recipe": asdict(edit.recipe),
            "target": asdict(edit.target),
            "held_out": held_out(edit.target),
        },
    }


def write_demo() -> None:
    """Write the clip of `shipped.DEMO`."""
    scene = Scene(object="jeep", background="road")
    write_video(DEMO.clip.path, render_clip(ClipRecipe(scene=scene, seed=1, frames=8)).frames, FPS)


def small_benchmark(frames: int) -> list[list[BenchmarkEdit]]:
    """One edit of each of the first ten clips, two of each category."""
    return [[draw_clip(number, frames)[number // len(CATEGORIES) % 2]] for number in range(2 * len(CATEGORIES))]


def write_benchmark(folder: Path) -> None:
    """Write `manifest.yaml`, `long.yaml`, `distractor.yaml` and `clips/*.mp4`: the benchmark as it is shipped.

    Args:
        folder: datasets/picturebook.
    """
    longer = range(CLIPS, CLIPS + LONG_CLIPS)
    crowded = range(longer.stop, longer.stop + CROWDED_CLIPS)
    write_manifest(folder / "manifest.yaml", "picturebook-bench", [draw_clip(number) for number in range(CLIPS)])
    write_manifest(folder / "long.yaml", "picturebook-long", [draw_clip(number, LONG) for number in longer])
    write_manifest(
        folder / "distractor.yaml",
        "picturebook-distractor",
        [with_distractor(draw_clip(number), number) for number in crowded],
    )


def write_manifest(manifest: Path, name: str, clips: Sequence[Sequence[BenchmarkEdit]]) -> Path:
    """Write clips and their edits.

    Args:
        manifest: the file to write; clips go to `clips/*.mp4` beside it.
        name: the name that the manifest states.
        clips: the edits of each clip.

    Returns:
        The manifest.
    """
    (manifest.parent / "clips").mkdir(parents=True, exist_ok=True)
    entries = []
    for edits in clips:
        recipe = edits[0].recipe
        clip = f"clips/{recipe.scene.object}-{recipe.scene.background.replace(' ', '-')}-{recipe.seed}.mp4"
        write_video(manifest.parent / clip, render_clip(recipe).frames, FPS)
        entries += [as_entry(edit, clip) for edit in edits]
    replace_text(manifest, yaml.safe_dump({"name": name, "edits": entries}, sort_keys=False, width=100))
    return manifest
