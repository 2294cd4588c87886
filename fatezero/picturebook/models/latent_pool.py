"""Latents of rendered clips and pictures, encoded once, in numbered shards of endless series."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, AutoencoderKLWan
from torch import Tensor

from fatezero.picturebook.benchmark.recipes import render_clip
from fatezero.picturebook.models.clip_pool import cell_coverage, draw_recipe
from fatezero.picturebook.models.grounding import word_columns
from fatezero.picturebook.models.pool import draw_sample
from fatezero.picturebook.models.video_autoencoder import TEMPORAL
from fatezero.picturebook.world.scenes import Scene
from fatezero.system.locking import is_held, locked
from fatezero.system.publishing import replacing

CLIPS, PICTURES = 100, 400  # per shard
FIRST_SHARDS = 4  # with which a training starts

Rendered = tuple[Scene, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]
Kind = Literal["clips", "pictures"]


class SceneEncoder(Protocol):
    """How a kind of model reads pictures and captions."""

    @property
    def digest(self) -> str:
        """Tells encoders apart: latents of different ones are never mixed."""

    @property
    def first_word(self) -> int:
        """Token number of a caption's first word."""

    def latents(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """Latents N,C,f,h,w of about unit variance, of clips N,F,H,W,3."""

    def tokens(self, captions: Sequence[str]) -> npt.NDArray[np.int64]:
        """Token numbers of captions, padded: N,T."""


@dataclass(frozen=True, kw_only=True)
class LatentsConfig:
    """Which latents are made ahead of a training that needs them.

    Attributes:
        vae: folder of the trained autoencoder.
        pool: folder of latents.
        series: name of the endless series.
        shards: how many; of clips and of pictures for a video model.
        threads: CPU threads.
    """

    vae: Path
    pool: Path
    series: int = 1
    shards: int = 100
    threads: int = 1


@dataclass(frozen=True)
class EncodedScenes:
    """One shard of clips, or of pictures (clips of one frame), as the training sees them.

    Attributes:
        latents: float16 N,C,f,h,w of about unit variance.
        coverage: uint8 N,f,COVERAGE,COVERAGE, share of each cell that the object covers, 0..255.
        tokens: int64 N,T of the captions.
        columns: int64 N,WORDS, which tokens are grounded.
    """

    latents: npt.NDArray[np.float16]
    coverage: npt.NDArray[np.uint8]
    tokens: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]

    def __deepcopy__(self, _: object) -> EncodedScenes:
        """Itself: weight averaging copies a whole training, but never its data."""
        return self


@dataclass(frozen=True)
class SceneBatch:
    """Scenes of one length.

    Attributes:
        latents: N,C,f,h,w.
        coverage: N,f,COVERAGE,COVERAGE in 0..1.
        tokens: int64 N,T.
        columns: int64 N,WORDS.
    """

    latents: Tensor
    coverage: Tensor
    tokens: Tensor
    columns: Tensor

    def part(self, scenes: slice) -> SceneBatch:
        """Some of the scenes."""
        return SceneBatch(self.latents[scenes], self.coverage[scenes], self.tokens[scenes], self.columns[scenes])

    def to(self, device: torch.device) -> SceneBatch:
        """The batch on a device."""
        return SceneBatch(*(part.to(device) for part in (self.latents, self.coverage, self.tokens, self.columns)))


@dataclass(frozen=True)
class LatentPool:
    """Where an encoder's latents are kept; what is missing is rendered and encoded when it is asked for.

    Attributes:
        encoder: what encodes them.
        folder: holds a folder of shards for each encoder.
        series: name of the endless series.
        opened: shards that were asked for, by their folders.
    """

    encoder: SceneEncoder
    folder: Path
    series: int
    opened: dict[Path, EncodedScenes] = field(default_factory=dict, repr=False)

    @cached_property
    def shards(self) -> Path:
        """The folder of this encoder's shards."""
        return self.folder / f"latents-{self.encoder.digest}"

    def __deepcopy__(self, _: object) -> LatentPool:
        """Itself: see `EncodedScenes`."""
        return self

    def clips(self, number: int) -> EncodedScenes:
        """Shard `number` of the series' clips."""
        return self._shard("clips", number)

    def pictures(self, number: int) -> EncodedScenes:
        """Shard `number` of the series' pictures."""
        return self._shard("pictures", number)

    def make_ahead(self, kinds: Sequence[Kind], shards: int) -> None:
        """Make what is missing of the first shards, in order, but first what no other process is making."""
        wanted = [(kind, number) for number in range(shards) for kind in kinds]
        for kind, number in wanted:
            if not is_held(_lock(self._stored(kind, number))):
                self._shard(kind, number)
        for kind, number in wanted:
            self._shard(kind, number)

    def _stored(self, kind: Kind, number: int) -> Path:
        return self.shards / f"{kind}-{self.series}-{number:03d}"

    def _shard(self, kind: Kind, number: int) -> EncodedScenes:
        stored = self._stored(kind, number)
        if stored not in self.opened:
            with locked(_lock(stored)):  # of several processes one makes it
                if not stored.exists():
                    self._make(stored, RENDERED[kind](self.series, number))
            self.opened[stored] = self._read(stored)
        return self.opened[stored]

    def _read(self, stored: Path) -> EncodedScenes:
        read = [Scene(**scene) for scene in json.loads((stored / "scenes.json").read_text(encoding="utf-8"))]
        return EncodedScenes(
            latents=np.load(stored / "latents.npy", mmap_mode="r"),
            coverage=np.load(stored / "coverage.npy"),
            tokens=self.encoder.tokens([scene.caption for scene in read]),
            columns=np.stack([word_columns(scene, self.encoder.first_word) for scene in read]),
        )

    def _make(self, stored: Path, rendered: Iterator[Rendered]) -> None:
        scenes, latents, coverage = zip(*(self._encoded(*one) for one in rendered), strict=True)
        with replacing(stored) as partial:
            partial.mkdir(exist_ok=True)
            np.save(partial / "latents.npy", np.stack(latents))
            np.save(partial / "coverage.npy", np.stack(coverage))
            written = json.dumps([asdict(scene) for scene in scenes])
            (partial / "scenes.json").write_text(written, encoding="utf-8")

    def _encoded(
        self, scene: Scene, frames: npt.NDArray[np.uint8], masks: npt.NDArray[np.bool_]
    ) -> tuple[Scene, npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
        latents = self.encoder.latents(frames[None])[0].half().cpu().numpy()
        return scene, latents, latent_coverage(cell_coverage(masks))


def shards_in_use(shards: int, step: int, steps: int) -> int:
    """How many shards of a pool a step draws from.

    A training starts with a few and takes in more evenly to its end, so that they can be made meanwhile, on another
    core; the number follows from the step alone, whatever lies there.
    """
    return min(shards, max(FIRST_SHARDS, shards * (step + 1) // steps))


def draw_scenes(
    rng: np.random.Generator,
    shards: Callable[[int], EncodedScenes],
    in_use: int,
    count: int,
    *,
    length: int = 1,
    empty: npt.NDArray[np.int64],
    empty_share: float,
) -> SceneBatch:
    """Random scenes of a pool, cut to `length` latent frames.

    Args:
        rng: the step's randomness.
        shards: a shard by its number.
        in_use: how many shards to draw from.
        count: how many scenes.
        length: latent frames of each.
        empty: tokens of the empty prompt.
        empty_share: share of the scenes that get it, for classifier-free guidance; their words are not grounded.
    """
    rows = []
    for _ in range(count):
        shard = shards(int(rng.integers(in_use)))
        row, dropped = int(rng.integers(len(shard.latents))), rng.random() < empty_share
        rows.append(
            (
                shard.latents[row, :, :length].astype(np.float32),
                shard.coverage[row, :length].astype(np.float32) / 255,
                empty if dropped else shard.tokens[row],
                np.full_like(shard.columns[row], -1) if dropped else shard.columns[row],
            )
        )
    return SceneBatch(*(torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True)))


def rendered_clips(series: int, number: int) -> Iterator[Rendered]:
    """The clips of a shard: scene, frames uint8 F,H,W,3 and masks bool F,H,W."""
    for index in range(number * CLIPS, (number + 1) * CLIPS):
        recipe = draw_recipe(series, index)
        clip = render_clip(recipe)
        yield recipe.scene, clip.frames, clip.mask


def rendered_pictures(series: int, number: int) -> Iterator[Rendered]:
    """The pictures of a shard, each as a clip of one frame."""
    for index in range(number * PICTURES, (number + 1) * PICTURES):
        scene, image, mask = draw_sample(series, index)
        yield scene, image[None], mask[None]


RENDERED: dict[Kind, Callable[[int, int], Iterator[Rendered]]] = {
    "clips": rendered_clips,
    "pictures": rendered_pictures,
}


def _lock(stored: Path) -> Path:
    """What the process that makes a shard holds."""
    return stored.with_name(f".{stored.name}.lock")


def latent_coverage(coverage: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Coverage of each latent frame, the mean over its frames: of F,h,w, f,h,w.

    Latent frame 0 is frame 0 alone, latent frame j is frames 4j-3 to 4j.
    """
    first, later = coverage[:1], coverage[1:].reshape(-1, TEMPORAL, *coverage.shape[1:])
    return np.concatenate([first, np.round(later.mean(1)).astype(np.uint8)])


def encoder_digest(vae: AutoencoderKL | AutoencoderKLWan, scales: Sequence[str]) -> str:
    """Eight digits that tell encoders apart, however their decoders differ.

    Args:
        vae: the autoencoder.
        scales: its configuration's fields that scale latents.
    """
    digest = hashlib.sha256(json.dumps([vae.config[name] for name in scales]).encode())
    for part in (vae.encoder, vae.quant_conv):
        for name, values in sorted(part.state_dict().items()):
            digest.update(name.encode() + values.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]
