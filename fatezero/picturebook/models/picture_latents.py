"""How Picturebook reads pictures and captions: latents of its autoencoder, tokens of its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from fatezero.errors import UserError
from fatezero.picturebook.models.fitting import to_pixels
from fatezero.picturebook.models.latent_pool import LatentPool, LatentsConfig, encoder_digest
from fatezero.picturebook.models.tokenizer import new_tokenizer


@dataclass(frozen=True)
class PictureEncoder:
    """Encodes pictures, clips of one frame, with a trained autoencoder, fp32.

    Attributes:
        vae: the autoencoder.
        first_word: token number of a caption's first word: CLIP's tokenizers put a start mark before it.
    """

    vae: AutoencoderKL
    first_word: int = 1

    @cached_property
    def digest(self) -> str:
        """Tells encoders apart."""
        return encoder_digest(self.vae, ("scaling_factor",))

    @torch.no_grad()
    def latents(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """Latents N,C,1,h,w of about unit variance, of pictures N,1,H,W,3."""
        raw = self.vae.encode(to_pixels(frames[:, 0]).to(self.vae.device)).latent_dist.mode()
        unit: Tensor = (raw * self.vae.config.scaling_factor)[:, :, None]
        return unit

    @staticmethod
    def tokens(captions: Sequence[str]) -> npt.NDArray[np.int64]:
        """Token numbers of captions, padded: N,CONTEXT."""
        numbers: npt.NDArray[np.int64] = new_tokenizer()(
            list(captions), padding="max_length", return_tensors="np"
        ).input_ids
        return numbers


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """A trained autoencoder, fp32.

    Raises:
        UserError: there is none in the folder.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"vae: {folder} holds no autoencoder; train one with `fatezero train autoencoder`.")
    vae = AutoencoderKL.from_pretrained(folder, dtype=torch.float32).eval()
    return vae.to(memory_format=torch.channels_last)


def make_picture_latents(config: LatentsConfig) -> Path:
    """Render and encode the shards that are not there yet, in the order in which a training takes them in.

    Several processes may do so at once, as many as there are cores: each takes shards that no other is making.

    Args:
        config: which.

    Returns:
        The folder of latents.
    """
    torch.set_num_threads(config.threads)
    pool = LatentPool(PictureEncoder(load_autoencoder(config.vae)), config.pool, config.series)
    pool.make_ahead(("pictures",), config.shards)
    return pool.shards
