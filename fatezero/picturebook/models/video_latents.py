"""How Picturebook-Video reads clips and captions: latents of its autoencoder, tokens of its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from fatezero.errors import UserError
from fatezero.picturebook.models.latent_pool import LatentPool, LatentsConfig, encoder_digest
from fatezero.picturebook.models.video_autoencoder import channels_last, to_clips
from fatezero.picturebook.models.video_tokenizer import VIDEO_CONTEXT, new_video_tokenizer

STATISTICS = ("latents_mean", "latents_std")  # of each channel, in the autoencoder's configuration


@dataclass(frozen=True)
class VideoEncoder:
    """Encodes clips with a trained video autoencoder, fp32.

    Attributes:
        vae: the autoencoder.
        first_word: token number of a caption's first word: T5's tokenizers put no mark before it.
    """

    vae: AutoencoderKLWan
    first_word: int = 0

    @cached_property
    def digest(self) -> str:
        """Tells encoders apart."""
        return encoder_digest(self.vae, STATISTICS)

    @torch.no_grad()
    def latents(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """Latents N,C,f,h,w, each channel of zero mean and unit variance, of clips N,F,H,W,3."""
        mean, std = (torch.tensor(self.vae.config[name], device=self.vae.device) for name in STATISTICS)
        raw = self.vae.encode(to_clips(frames).to(self.vae.device)).latent_dist.mode()
        unit: Tensor = (raw - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1)
        return unit

    @staticmethod
    def tokens(captions: Sequence[str]) -> npt.NDArray[np.int64]:
        """Token numbers of captions, padded: N,VIDEO_CONTEXT."""
        numbers: npt.NDArray[np.int64] = new_video_tokenizer()(
            list(captions), padding="max_length", max_length=VIDEO_CONTEXT, return_tensors="np"
        ).input_ids
        return numbers


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


def make_video_latents(config: LatentsConfig) -> Path:
    """Render and encode the shards that are not there yet, in the order in which a training takes them in.

    Several processes may do so at once, as many as there are cores: each takes shards that no other is making.

    Args:
        config: which.

    Returns:
        The folder of latents.
    """
    torch.set_num_threads(config.threads)
    pool = LatentPool(VideoEncoder(load_video_autoencoder(config.vae)), config.pool, config.series)
    pool.make_ahead(("clips", "pictures"), config.shards)
    return pool.shards
