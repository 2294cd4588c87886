"""The eight procedural backgrounds: low-frequency textures that a small autoencoder can hold."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Colour = tuple[float, float, float]

HEIGHT, WIDTH = 128, 192  # wider than an image by the room a camera pan needs


def floats(values: npt.ArrayLike) -> Floats:
    """Values as float32."""
    return np.asarray(values, dtype=np.float32)


def noise(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Smooth noise of about unit amplitude.

    Args:
        rng: the source of randomness.
        rows: number of independent values down the picture; fewer are smoother.
        columns: number of independent values across it.

    Returns:
        float32 HEIGHT,WIDTH.
    """
    grid = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    return floats(cv2.resize(grid, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))


def gradient(top: Colour, bottom: Colour, end: float) -> Floats:
    """Vertical gradient from `top` at row 0 to `bottom` at row `end`: float32 HEIGHT,1,3."""
    share = floats(np.clip(np.arange(HEIGHT, dtype=np.float32) / end, 0, 1)[:, None, None])
    return (1 - share) * floats(top) + share * floats(bottom)


def flat(colour: Colour, texture: Floats, amplitude: float) -> Floats:
    """One colour made lighter and darker by a texture: float32 HEIGHT,WIDTH,3."""
    return floats(colour) * (1 + floats(amplitude) * texture[..., None])


def below(horizon: float | Floats, upper: Floats, lower: Floats) -> Floats:
    """`lower` beneath the horizon row (a number or one per column), `upper` above, with a soft border."""
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    share = floats(np.clip((rows - horizon) / 2 + 0.5, 0, 1)[..., None])
    return upper * (1 - share) + lower * share


def disc(canvas: Floats, x: float, y: float, radius: float, colour: Colour) -> Floats:
    """`canvas` with a soft-edged disc at (x, y)."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    share = floats(np.clip((radius - np.hypot(columns - x, rows - y)) / 2 + 0.5, 0, 1)[..., None])
    return canvas * (1 - share) + floats(colour) * share


def hills(rng: np.random.Generator, low: float, high: float) -> Floats:
    """A gently rolling horizon between two rows: float32 1,WIDTH."""
    curve = rng.uniform(-3, 3, (1, 6)).astype(np.float32)
    line = cv2.resize(curve, (WIDTH, 1), interpolation=cv2.INTER_CUBIC)
    return floats(rng.uniform(low, high)) + floats(line)


def day_sky(rng: np.random.Generator, end: float = 70) -> Floats:
    """Blue sky, paler toward the horizon, with faint clouds."""
    clouds = np.clip(noise(rng, 8, 6), 0, 1)[..., None] * 14
    return gradient((120, 180, 235), (205, 228, 245), end) + clouds


def grass(rng: np.random.Generator) -> Floats:
    """Green meadow under a day sky."""
    ground = flat((98, 160, 62), noise(rng, 16, 40) + 0.6 * noise(rng, 4, 4), 0.12)
    return below(hills(rng, 46, 60), day_sky(rng), ground)


def snow(rng: np.random.Generator) -> Floats:
    """White field with bluish hollows under a grey sky."""
    ground = flat((232, 238, 247), noise(rng, 7, 8), 0.045)
    return below(hills(rng, 44, 58), gradient((160, 176, 200), (205, 214, 228), 60), ground)


def sand(rng: np.random.Generator) -> Floats:
    """Dunes of slanting ripples under a day sky."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi) + 2 * noise(rng, 5, 5)
    ripples = np.sin(rows * 0.42 + columns * 0.10 + phase)
    ground = flat((222, 186, 128), ripples + noise(rng, 6, 8), 0.05)
    return below(hills(rng, 44, 60), day_sky(rng), ground)


def water(rng: np.random.Generator) -> Floats:
    """Blue water with waves that widen toward the viewer."""
    rows = np.mgrid[0:HEIGHT, 0:WIDTH][0].astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi) + 3.5 * noise(rng, 6, 9)
    waves = np.sin(900 / (rows + 25) * 2.2 + phase)
    lower = flat((42, 110, 190), waves + 0.5 * noise(rng, 4, 4), 0.13)
    return below(floats(rng.uniform(42, 54)), day_sky(rng, 50), lower)


def road(rng: np.random.Generator) -> Floats:
    """A grey road with white dashes between strips of green."""
    edge = float(rng.uniform(66, 74))
    verge = flat((120, 165, 85), noise(rng, 12, 24), 0.08)
    asphalt = flat((104, 104, 112), noise(rng, 16, 24), 0.06)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    middle = edge + 24
    across = np.clip(3.5 - np.abs(rows - middle), 0, 1)
    along = np.clip(9.5 - np.abs((columns + rng.uniform(0, 40)) % 40 - 20), 0, 1)
    dashes = (across * along)[..., None]
    asphalt = asphalt * (1 - dashes) + floats((238, 238, 230)) * dashes
    return below(edge, below(hills(rng, 48, 58), day_sky(rng), verge), asphalt)


def forest(rng: np.random.Generator) -> Floats:
    """Dark trunks under leaves."""
    deep = gradient((44, 92, 58), (112, 150, 96), 64)
    canvas = np.broadcast_to(deep, (HEIGHT, WIDTH, 3)).copy()
    columns = np.arange(WIDTH, dtype=np.float32)[None, :, None]
    for centre in np.arange(6, WIDTH, 22) + rng.uniform(-7, 7, 9):
        trunk = np.clip(rng.uniform(3, 5.5) - np.abs(columns - centre), 0, 1)
        canvas = canvas * (1 - trunk) + floats((88, 62, 44)) * trunk
    leaves = flat((38, 96, 44), noise(rng, 16, 26), 0.22)
    crown = 26 + 6 * noise(rng, 1, 20)[:1]
    canvas = below(crown, leaves, canvas)
    floor = flat((64, 92, 42), noise(rng, 14, 24), 0.13)
    return below(hills(rng, 66, 76), canvas, floor)


def night_sky(rng: np.random.Generator) -> Floats:
    """Moon and stars above dark hills."""
    sky = np.broadcast_to(gradient((14, 18, 52), (44, 54, 108), 90), (HEIGHT, WIDTH, 3))
    stars = np.zeros((HEIGHT, WIDTH), np.float32)
    stars[rng.integers(3, 70, 22), rng.integers(3, WIDTH - 3, 22)] = rng.uniform(4, 8, 22)
    sky = sky + cv2.GaussianBlur(stars, (0, 0), 0.9)[..., None] * floats((130, 130, 115))
    sky = disc(np.minimum(sky, 235), rng.uniform(40, 152), rng.uniform(16, 30), rng.uniform(8, 11), (246, 240, 205))
    ground = flat((34, 44, 56), noise(rng, 10, 14), 0.14)
    return below(hills(rng, 74, 88), sky, ground)


def sunset(rng: np.random.Generator) -> Floats:
    """A low sun in an orange sky above dark brown ground."""
    horizon = hills(rng, 68, 80)
    sky = np.broadcast_to(gradient((96, 60, 130), (250, 150, 66), 74), (HEIGHT, WIDTH, 3))
    sky = disc(
        sky + 8 * noise(rng, 12, 4)[..., None],
        rng.uniform(40, 152),
        rng.uniform(44, 60),
        rng.uniform(11, 14),
        (255, 226, 130),
    )
    ground = flat((96, 58, 56), noise(rng, 12, 16), 0.13)
    return below(horizon, sky, ground)


PAINTERS: dict[str, Callable[[np.random.Generator], Floats]] = {
    "grass": grass,
    "snow": snow,
    "sand": sand,
    "water": water,
    "road": road,
    "forest": forest,
    "night sky": night_sky,
    "sunset": sunset,
}


def paint(background: str, seed: int) -> Floats:
    """A background canvas.

    Args:
        background: a key of `PAINTERS`.
        seed: decides horizon, texture, and where trees, stars, sun and moon are.

    Returns:
        float32 HEIGHT,WIDTH,3 RGB, 0..255.
    """
    rng = np.random.default_rng([seed, list(PAINTERS).index(background)])
    return np.clip(PAINTERS[background](rng), 0, 255).astype(np.float32)
