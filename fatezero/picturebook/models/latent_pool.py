"""Latents of rendered clips and pictures, encoded once, in numbered shards of endless series."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from fatezero.errors import UserError
from fatezero.picturebook.benchmark.recipes import render_clip
from fatezero.picturebook.models.clip_pool import cell_coverage, draw_recipe
from fatezero.picturebook.models.grounding import word_columns
from fatezero.picturebook.models.pool import draw_sample
from fatezero.picturebook.models.video_autoencoder import TEMPORAL, channels_last, to_clips
from fatezero.picturebook.models.video_tokenizer import VIDEO_CONTEXT, new_video_tokenizer
from fatezero.picturebook.world.scenes import Scene
from fatezero.system.publishing import replacing

CLIPS, PICTURES = 100, 400  # per shard

Rendered = tuple[Scene, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class VideoLatentsConfig:
    """Which latents are made ahead of a training that needs them.

    Attributes:
        vae: folder of the trained video autoencoder.
        pool: folder of latents.
        series: name of the endless series.
        shards: of clips, and of pictures.
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
        latents: float16 N,C,f,h,w, each channel of zero mean and unit variance.
        coverage: uint8 N,f,h,w, share of each latent position that the object covers, 0..255.
        tokens: int64 N,VIDEO_CONTEXT of the captions.
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
class LatentPool:
    """Where an autoencoder's latents are kept; what is missing is rendered and encoded when it is asked for.

    Attributes:
        vae: the trained video autoencoder.
        folder: holds a folder of shards for each encoder.
        series: name of the endless series.
    """

    vae: AutoencoderKLWan
    folder: Path
    series: int

    @cached_property
    def shards(self) -> Path:
        """The folder of this encoder's shards."""
        return self.folder / f"latents-{encoder_digest(self.vae)}"

    def __deepcopy__(self, _: object) -> LatentPool:
        """Itself: see `EncodedScenes`."""
        return self

    def clips(self, number: int) -> EncodedScenes:
        """Shard `number` of the series' clips."""
        return self._shard(self.shards / f"clips-{self.series}-{number:03d}", rendered_clips(self.series, number))

    def pictures(self, number: int) -> EncodedScenes:
        """Shard `number` of the series' pictures."""
        return self._shard(self.shards / f"pictures-{self.series}-{number:03d}", rendered_pictures(self.series, number))

    def _shard(self, stored: Path, rendered: Iterator[Rendered]) -> EncodedScenes:
        if not stored.exists():
            scenes, latents, coverage = zip(*(self._encoded(*one) for one in rendered), strict=True)
            with replacing(stored) as partial:
                partial.mkdir(exist_ok=True)
                np.save(partial / "latents.npy", np.stack(latents))
                np.save(partial / "coverage.npy", np.stack(coverage))
                written = json.dumps([asdict(scene) for scene in scenes])
                (partial / "scenes.json").write_text(written, encoding="utf-8")
        read = [Scene(**scene) for scene in json.loads((stored / "scenes.json").read_text(encoding="utf-8"))]
        captions = [scene.caption for scene in read]
        return EncodedScenes(
            latents=np.load(stored / "latents.npy", mmap_mode="r"),
            coverage=np.load(stored / "coverage.npy"),
            tokens=caption_tokens(captions).numpy(),
            columns=np.stack([word_columns(scene, first=0) for scene in read]),
        )

    def _encoded(
        self, scene: Scene, frames: npt.NDArray[np.uint8], masks: npt.NDArray[np.bool_]
    ) -> tuple[Scene, npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
        return scene, encode_unit(self.vae, frames[None])[0].half().cpu().numpy(), latent_coverage(cell_coverage(masks))


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


def caption_tokens(captions: list[str]) -> Tensor:
    """Token numbers of captions, padded: int64 N,VIDEO_CONTEXT."""
    tokens: Tensor = new_video_tokenizer()(
        captions, padding="max_length", max_length=VIDEO_CONTEXT, return_tensors="pt"
    ).input_ids
    return tokens


def latent_coverage(coverage: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Coverage of each latent frame, the mean over its frames: of F,h,w, f,h,w.

    Latent frame 0 is frame 0 alone, latent frame j is frames 4j-3 to 4j.
    """
    first, later = coverage[:1], coverage[1:].reshape(-1, TEMPORAL, *coverage.shape[1:])
    return np.concatenate([first, np.round(later.mean(1)).astype(np.uint8)])


def encoder_digest(vae: AutoencoderKLWan) -> str:
    """Eight digits that tell encoders apart, however their decoders differ."""
    digest = hashlib.sha256(json.dumps([vae.config[name] for name in ("latents_mean", "latents_std")]).encode())
    for part in (vae.encoder, vae.quant_conv):
        for name, values in sorted(part.state_dict().items()):
            digest.update(name.encode() + values.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]


def _statistics(vae: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(vae.config[name], device=vae.device) for name in ("latents_mean", "latents_std"))
    return mean.view(-1, 1, 1, 1), std.view(-1, 1, 1, 1)


@torch.no_grad()
def encode_unit(vae: AutoencoderKLWan, frames: npt.NDArray[np.uint8]) -> Tensor:
    """Latents N,C,f,h,w, each channel of zero mean and unit variance, of frames N,F,H,W,3."""
    mean, std = _statistics(vae)
    latents: Tensor = (vae.encode(to_clips(frames).to(vae.device)).latent_dist.mode() - mean) / std
    return latents


def load_video_autoencoder(folder: Path) -> AutoencoderKLWan:
    """A trained video autoencoder, fp32.

    Raises:
        UserError: there is none in the folder.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"vae: {folder} holds no autoencoder; train one with `fatezero train video-autoencoder`.")
    vae = AutoencoderKLWan.from_pretrained(folder, dtype=torch.float32).eval()
    channels_last(vae)
    return vae


def make_video_latents(config: VideoLatentsConfig) -> Path:
    """Render and encode the shards that are not there yet, in the order in which a training takes them in.

    Args:
        config: which.

    Returns:
        The folder of latents.
    """
    torch.set_num_threads(config.threads)
    pool = LatentPool(load_video_autoencoder(config.vae), config.pool, config.series)
    for number in range(config.shards):
        pool.clips(number)
        pool.pictures(number)
    return pool.shards
