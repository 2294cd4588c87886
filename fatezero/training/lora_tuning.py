"""One clip learnt by a video transformer: flow matching on it, of a LoRA alone (Hu et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from fatezero.config import MethodConfig
from fatezero.diffusion.additions import DIFFUSERS_WEIGHTS, LORA
from fatezero.diffusion.flow_matching import noised
from fatezero.diffusion.model_families.transformer import TransformerBackbone
from fatezero.diffusion.texts import TextConditioning
from fatezero.errors import UserError
from fatezero.training.clip_tuning import ClipTuning
from fatezero.training.tuning_config import TuningConfig
from fatezero.types import Frames

CHANGED = ("to_q", "to_k", "to_v", "to_out.0")  # layers of all attention, by the ends of their names
LEVELS = 1000  # that noise is drawn at: those that so many steps would walk, so that the schedule's shift weighs them


def check_peft() -> None:
    """Refuse to tune where PEFT, which only this takes, is not installed.

    Raises:
        UserError: if it is not.
    """
    try:
        import peft  # noqa: F401, PLC0415
    except ImportError as error:
        raise UserError("Tuning a video transformer takes PEFT, which is not installed: pip install peft.") from error


def add_adapters(transformers: Sequence[Any], rank: int, seed: int) -> None:
    """Put a LoRA that changes nothing yet beside the attention's layers; nothing else learns."""
    from peft import LoraConfig  # noqa: PLC0415  (not everybody has it)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for transformer in transformers:
            transformer.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(CHANGED)))


def save_adapters(transformers: Sequence[Any], checkpoint: Path) -> None:
    """Write what was learnt into a checkpoint's folder, as diffusers names it, so that its pipelines read it too.

    Args:
        transformers: with their adapters.
        checkpoint: the folder.
    """
    from peft.utils import get_peft_model_state_dict  # noqa: PLC0415

    named: Mapping[str, Any] = dict(zip(("transformer", "transformer_2"), transformers, strict=False))
    weights = {
        f"{network}.{name}": value.contiguous()
        for network, transformer in named.items()
        for name, value in get_peft_model_state_dict(transformer).items()
    }
    folder = checkpoint / LORA
    folder.mkdir()
    save_file(weights, folder / DIFFUSERS_WEIGHTS)


class LoraTuning(ClipTuning):
    """Predicts the velocity of one clip, all its latents at one noise level."""

    backbone: TransformerBackbone

    def __init__(
        self,
        options: TuningConfig,
        backbone: TransformerBackbone,
        method: MethodConfig,
        frames: Frames,
        latents: Tensor,
        images: Tensor | None,
    ) -> None:
        """As `ClipTuning`: the backbone's transformers have adapters."""
        super().__init__(options, backbone, method, frames, latents, images)
        self.transformers = nn.ModuleList(backbone.networks.transformers)
        count, channels, rows, columns = latents.shape
        self._levels = backbone.schedule(LEVELS, (count, channels, rows, columns))
        if options.gradient_checkpointing:
            for transformer in backbone.networks.transformers:
                transformer.enable_gradient_checkpointing()

    def error(self, latents: Tensor, text: TextConditioning, generator: torch.Generator, *, images: bool) -> Tensor:
        """In the velocity of a clip, or of images as clips of one latent: see `ClipTuning`."""
        batch = latents[:, :, None] if images else latents.transpose(0, 1)[None]  # B,C,F,h,w
        noise = torch.randn(batch.shape, generator=generator).to(batch)
        level: Any = self._levels[int(torch.randint(LEVELS, (), generator=generator))]
        velocity = self.backbone.networks.predict(
            noised(batch, noise, level.sigma_noisy), level.timestep, [text] * len(batch), [1.0] * len(batch)
        )
        return mse_loss(velocity.float(), (noise - batch).float())
