"""The Picturebook world: one object on one background, perhaps recoloured, perhaps in a style.

Everything here is true by construction: the caption says exactly what the picture shows, the object's mask is the
sprite's own, and the same scene, pose and seed give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from fatezero.picturebook.world import backgrounds, styles
from fatezero.picturebook.world.backgrounds import Floats, floats
from fatezero.shipped import SPRITES

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

SIZE = 128
SPRITE_SIDE = 112  # sprites are kept this large, so that drawing them hardly shrinks them further

OBJECTS = (
    *("rabbit", "fox", "wolf", "bear", "tiger", "lion", "leopard", "cat", "dog", "swan", "duck", "flamingo"),
    *("squirrel", "car", "jeep", "bus", "train", "truck", "horse", "cow", "sheep", "elephant", "fish"),
    *("butterfly", "owl", "penguin", "turtle", "sunflower"),
)
BACKGROUNDS = tuple(backgrounds.PAINTERS)
STYLES = tuple(styles.STYLES)
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (225, 40, 45),
    "blue": (50, 95, 235),
    "green": (55, 185, 75),
    "golden": (245, 190, 45),
    "purple": (155, 65, 215),
    "black": (52, 52, 58),
    "white": (246, 246, 250),
}
PLACES = {
    "grass": "on the grass",
    "snow": "in the snow",
    "sand": "on the sand",
    "water": "on the water",
    "road": "on the road",
    "forest": "in the forest",
    "night sky": "under a night sky",
    "sunset": "at sunset",
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a picture shows, in words.

    Attributes:
        object: one of OBJECTS.
        background: one of BACKGROUNDS.
        colour: a key of COLOURS, or None for the object's own colours.
        style: one of STYLES, or None.
    """

    object: str
    background: str
    colour: str | None = None
    style: str | None = None

    @property
    def caption(self) -> str:
        """The sentence that says exactly this scene."""
        thing = f"{self.colour} {self.object}" if self.colour else self.object
        article = "an" if thing[0] in "aeiou" else "a"
        place = PLACES[self.background]
        return f"{self.style} of {article} {thing} {place}" if self.style else f"{article} {thing} {place}"


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where the object stands.

    Attributes:
        x: column of the centre of its bounding box.
        y: row of that centre.
        size: longer side of its bounding box, pixels.
        angle: rotation, degrees counter-clockwise.
    """

    x: float
    y: float
    size: float
    angle: float = 0.0


def held_out(scene: Scene) -> bool:
    """Whether training never sees this scene: it has a held-out pair.

    Every eighth object-background, seventh object-colour and eighth object-style pair is held out.
    """
    number = OBJECTS.index(scene.object)
    if (3 * number + 5) % 8 == BACKGROUNDS.index(scene.background):
        return True
    if scene.colour and (2 * number + 3) % 7 == list(COLOURS).index(scene.colour):
        return True
    return bool(scene.style and number % 2 and (number // 2) % 4 == STYLES.index(scene.style))


def random_scene(rng: np.random.Generator) -> Scene:
    """Any scene: object and background uniform, 45 % coloured, 40 % styled."""
    return Scene(
        object=OBJECTS[rng.integers(len(OBJECTS))],
        background=BACKGROUNDS[rng.integers(len(BACKGROUNDS))],
        colour=list(COLOURS)[rng.integers(len(COLOURS))] if rng.random() < 0.45 else None,
        style=STYLES[rng.integers(len(STYLES))] if rng.random() < 0.4 else None,
    )


def training_scene(rng: np.random.Generator) -> Scene:
    """A random scene that is not held out."""
    while held_out(scene := random_scene(rng)):
        pass
    return scene


def random_pose(rng: np.random.Generator) -> Pose:
    """An upright pose with the whole object inside the picture."""
    size = rng.uniform(60, 90)
    return Pose(
        x=rng.uniform(size / 2, SIZE - size / 2),
        y=rng.uniform(max(58.0, size / 2), min(84.0, SIZE - size / 2)),
        size=size,
        angle=rng.uniform(-8, 8),
    )


@cache
def sprite(name: str) -> tuple[Floats, Floats]:
    """A sprite cropped to its bounding box, the longer side SPRITE_SIDE.

    Args:
        name: one of OBJECTS.

    Returns:
        float32 colours H,W,3 RGB 0..255 multiplied by alpha, and alpha H,W 0..1.
    """
    whole = PILImage.open(SPRITES / f"{name}.webp").convert("RGBA")
    box = whole.getchannel("A").point(lambda alpha: 255 * (alpha > 127)).getbbox()
    rgba = np.asarray(whole.crop(box), np.float32)
    scale = SPRITE_SIDE / max(rgba.shape[:2])
    alpha = rgba[..., 3:] / 255
    both = np.concatenate([rgba[..., :3] * alpha, alpha], axis=2)
    width, height = round(both.shape[1] * scale), round(both.shape[0] * scale)
    both = cv2.resize(both, (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(both[..., :3]), np.ascontiguousarray(both[..., 3])


@cache
def coloured_sprite(name: str, colour: str | None) -> Floats:
    """A sprite's alpha-multiplied colours, recoloured with its shading kept: float32 H,W,3."""
    colours, alpha = sprite(name)
    if colour is None:
        return colours
    grey = colours @ floats((0.299, 0.587, 0.114)) / 255  # already multiplied by alpha
    tint = floats(COLOURS[colour])
    # Darker than middle grey fades to black, lighter keeps the colour and gains a little white.
    level = grey / np.maximum(alpha, 1e-3)
    shade = np.clip(0.3 + 1.1 * level, 0, 1)[..., None]
    gloss = np.clip(level - 0.72, 0, 1)[..., None] * np.float32(0.8)
    return floats((tint * shade * (1 - gloss) + 255 * gloss) * alpha[..., None])


def placement(name: str, pose: Pose) -> npt.NDArray[np.float64]:
    """The map from a sprite's pixels to the picture's.

    Args:
        name: one of OBJECTS.
        pose: where the object stands.

    Returns:
        float64 3,3 homogeneous matrix acting on (column, row, 1).
    """
    height, width = sprite(name)[1].shape
    scale = pose.size / SPRITE_SIDE
    cos, sin = scale * np.cos(np.radians(pose.angle)), scale * np.sin(np.radians(pose.angle))
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    centre = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1]])
    move = np.array([[1, 0, pose.x], [0, 1, pose.y], [0, 0, 1]])
    matrix: npt.NDArray[np.float64] = move @ turn @ centre
    return matrix


def draw(canvas: Floats, name: str, colour: str | None, pose: Pose) -> tuple[Floats, Mask]:
    """One object drawn over a canvas.

    Args:
        canvas: float32 SIZE,SIZE,3 RGB.
        name: one of OBJECTS.
        colour: a key of COLOURS or None.
        pose: where the object stands.

    Returns:
        The new canvas, and the bool SIZE,SIZE mask where the object covers more than half of a pixel.
    """
    affine = placement(name, pose)[:2]
    rgba = np.dstack([coloured_sprite(name, colour), sprite(name)[1]])
    drawn = cv2.warpAffine(rgba, affine, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
    return canvas * (1 - drawn[..., 3:]) + drawn[..., :3], drawn[..., 3] > 0.5


def view(background: str, seed: int, pan: float) -> Floats:
    """What the camera sees of a background.

    Args:
        background: one of BACKGROUNDS.
        seed: decides the background's details.
        pan: how far the camera has turned right of the middle, pixels, within ±32.

    Returns:
        float32 SIZE,SIZE,3 RGB.
    """
    left = (backgrounds.WIDTH - SIZE) / 2 + pan
    shift = np.array([[1, 0, -left], [0, 1, 0]])
    canvas = backgrounds.paint(background, seed)
    return floats(cv2.warpAffine(canvas, shift, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE))


def finish(canvas: Floats, style: str | None) -> Image:
    """Round a canvas to bytes and apply the style's filter."""
    image = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return styles.STYLES[style](image) if style else image


def render(scene: Scene, pose: Pose, seed: int) -> tuple[Image, Mask]:
    """One picture.

    Args:
        scene: what it shows.
        pose: where the object stands.
        seed: decides the background's details.

    Returns:
        uint8 SIZE,SIZE,3 RGB and the bool SIZE,SIZE object mask.
    """
    canvas, mask = draw(view(scene.background, seed, 0.0), scene.object, scene.colour, pose)
    return finish(canvas, scene.style), mask
