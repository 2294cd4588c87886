"""A Stable Diffusion checkpoint in diffusers' layout, as verbs: encode, decode, embed, predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fatezero.attention.prompts import Prompt, read_prompt
from fatezero.attention.sites import Site, attention_sites
from fatezero.attention.temporal import is_inflated
from fatezero.config import RuntimeConfig
from fatezero.diffusion.checkpoint import (
    TEMPORAL,
    adapter_folder,
    checkpoint_digest,
    checkpoint_folder,
    pixels_per_latent,
)
from fatezero.diffusion.components import load_parts
from fatezero.diffusion.ddim import PredictionType, schedule
from fatezero.diffusion.motion_unet import with_motion
from fatezero.diffusion.temporal_weights import load_temporal
from fatezero.diffusion.vetting import vet_adapter, vet_checkpoint
from fatezero.errors import UserError, first_line
from fatezero.system.terminal import quoted
from fatezero.types import Frames

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel, UNetMotionModel

MAX_SCALE = 1e4  # of latents; 0.13 to 1.5 in checkpoints that are in use


def choose_device(name: str) -> torch.device:
    """The device asked for; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: if the device is not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in present.items() if there)
    if not present[name]:
        raise UserError(f"device '{name}' is not available here: use device 'auto' or 'cpu'.")
    return torch.device(name)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype asked for; "auto" is float16 on CUDA and float32 elsewhere."""
    if name == "auto":
        name = "float16" if device.type == "cuda" else "float32"
    if name == "float64" and device.type == "mps":
        raise UserError("MPS has no float64: use dtype float32, or device 'cpu'.")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


@dataclass(frozen=True)
class Backbone:
    """The networks of one checkpoint on one device.

    Attributes:
        folder: the checkpoint's files.
        name: what the user called it.
        unet: an image UNet, perhaps with Tune-A-Video's temporal layers; or one with motion modules.
        vae: AutoencoderKL or AutoencoderTiny.
        text_encoder: CLIPTextModel.
        tokenizer: CLIPTokenizer.
        scheduler_config: configuration of the noise schedule.
        adapter: the motion adapter's files; None where there is none, or the checkpoint holds it.
    """

    folder: Path
    name: str
    unet: UNet2DConditionModel | UNetMotionModel
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: dict[str, Any]
    adapter: Path | None = None

    @classmethod
    def load(
        cls,
        checkpoint: str,
        runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008  (frozen)
        motion_adapter: str | None = None,
    ) -> Backbone:
        """Load a checkpoint from a folder or a hub id, from safetensors only.

        Args:
            checkpoint: a folder in diffusers' Stable Diffusion or AnimateDiff layout, a hub id, or "picturebook";
                temporal layers that `fatezero tune` has put beside it are loaded with it.
            runtime: device and dtype.
            motion_adapter: a folder in the layout of diffusers' MotionAdapter, a hub id, or "picturebook-motion".

        Raises:
            UserError: if one is missing, not of that layout, does not fit the other, or lacks weights; see `vetting`.
        """
        folder = checkpoint_folder(checkpoint)
        adapter = adapter_folder(motion_adapter)
        device = choose_device(runtime.device)
        pipe = load_pipeline(folder, choose_dtype(runtime.dtype, device))
        if (folder / TEMPORAL).is_dir():
            load_temporal(pipe.unet, folder / TEMPORAL)
        if adapter is not None:
            if pipe.unet.__class__.__name__ == "UNetMotionModel" or is_inflated(pipe.unet):
                raise UserError(f"{checkpoint} is a video model already: leave --motion-adapter out.")
            pipe.unet = with_motion(pipe.unet, adapter, str(motion_adapter))
        return cls.of_pipeline(pipe, folder, checkpoint, device, adapter)

    @classmethod
    def of_pipeline(
        cls, pipe: Any, folder: Path, name: str, device: torch.device, adapter: Path | None = None
    ) -> Backbone:
        """Take the networks of a StableDiffusionPipeline.

        Raises:
            UserError: if they are not Stable Diffusion's.
        """
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.requires_grad_(requires_grad=False).eval().to(device)
        backbone = cls(
            folder=folder,
            name=name,
            unet=pipe.unet,
            vae=pipe.vae,
            text_encoder=pipe.text_encoder,
            tokenizer=pipe.tokenizer,
            scheduler_config=dict(pipe.scheduler.config),
            adapter=adapter,
        )
        backbone._check_parts()
        return backbone

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        device: torch.device = self.unet.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of the networks."""
        dtype: torch.dtype = self.unet.dtype
        return dtype

    @property
    def latent_dtype(self) -> torch.dtype:
        """Of latents between UNet calls: never below float32, or fifty DDIM moves would add up their rounding."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def prediction_type(self) -> PredictionType:
        """What the UNet was trained to predict."""
        prediction: PredictionType = self.scheduler_config.get("prediction_type", "epsilon")
        return prediction

    @property
    def context(self) -> int:
        """Tokens that the text encoder reads."""
        return int(self.tokenizer.model_max_length)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The UNet's attention layers."""
        return attention_sites(self.unet)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the checkpoint's files and the adapter's."""
        return checkpoint_digest(self.folder, self.adapter)

    @cached_property
    def has_motion(self) -> bool:
        """Whether the UNet takes whole clips, its motion modules between its layers."""
        return bool(self.unet.__class__.__name__ == "UNetMotionModel")

    @cached_property
    def ties_frames(self) -> bool:
        """Whether layers along time tie all frames of a clip together, so that it cannot be cut."""
        return self.has_motion or is_inflated(self.unet)

    def read_prompt(self, text: str) -> Prompt:
        """Tokenise a prompt. Raises UserError if it is longer than the text encoder's context."""
        return read_prompt(self.tokenizer, text)

    @torch.no_grad()
    def embed(self, text: str) -> Tensor:
        """The text encoder's last hidden state: 1,T,D."""
        self.read_prompt(text)
        tokens = self.tokenizer(text, padding="max_length", max_length=self.context, return_tensors="pt")
        mask = None
        if getattr(self.text_encoder.config, "use_attention_mask", False):
            mask = tokens.attention_mask.to(self.device)
        hidden: Tensor = self.text_encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0]
        return hidden

    @torch.no_grad()
    def encode(self, frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents of frames, one at a time so that memory and results do not depend on how many there are.

        Args:
            frames: F,3,H,W in [0, 1].
            generator: samples the posterior (on the CPU, so that the draw is the same on every device); None
                takes its mode.

        Returns:
            F,C,h,w on the scale that the UNet sees.

        Raises:
            UserError: if height or width is not a multiple of what the checkpoint needs.
        """
        self._check_size(*frames.shape[-2:])
        latents = [self._encode_frame(frame[None], generator) for frame in frames]
        return self._finite(torch.cat(latents) * float(self.vae.config.scaling_factor))

    def _encode_frame(self, frame: Tensor, generator: torch.Generator | None) -> Tensor:
        encoded = self.vae.encode(frame.to(self.device, self.dtype) * 2 - 1)
        if not hasattr(encoded, "latent_dist"):
            if generator is not None:
                raise UserError(f"The autoencoder of {self.name} has no posterior to sample: set posterior to 'mode'.")
            latents: Tensor = encoded.latents.to(self.latent_dtype)
            return latents
        posterior = encoded.latent_dist
        mean: Tensor = posterior.mode().to(self.latent_dtype)
        if generator is None:
            return mean
        noise = torch.randn(mean.shape, generator=generator, dtype=torch.float32).to(mean)
        sigma: Tensor = posterior.std.to(mean)
        return mean + sigma * noise

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Frames of latents, one at a time: F,C,h,w to F,3,H,W in [0, 1] on the CPU."""
        scaled = (latents / self.vae.config.scaling_factor).to(self.dtype)
        frames = [self.vae.decode(latent[None]).sample.to("cpu", self.latent_dtype) for latent in scaled]
        return (self._finite(torch.cat(frames)) / 2 + 0.5).clamp(0, 1)

    def _finite(self, x: Tensor) -> Tensor:
        if not bool(x.isfinite().all()):
            raise UserError(
                f"The autoencoder of {self.name} returned NaN or infinity in {self.dtype}: use dtype float32, or check "
                "the checkpoint."
            )
        return x

    @torch.no_grad()
    def predict(self, latents: Tensor, timestep: int, text: Tensor, frames: int) -> Tensor:
        """The UNet's output for (branches * F),C,h,w latents under (branches * F),T,D text embeddings.

        Args:
            latents: branch by branch.
            timestep: the timestep that the UNet is told.
            text: the embedding for each frame.
            frames: F.

        Returns:
            (branches * F),C,h,w in the latents' dtype.
        """
        noisy, hidden = latents.to(self.dtype), text.to(self.dtype)
        if self.has_motion:
            noisy = noisy.unflatten(0, (-1, frames)).transpose(1, 2)  # branches,C,F,h,w
        output: Tensor = self.unet(noisy, timestep, encoder_hidden_states=hidden).sample
        if self.has_motion:
            output = output.transpose(1, 2).flatten(0, 1)
        return output.to(latents.dtype)

    def _check_size(self, height: int, width: int) -> None:
        unit = pixels_per_latent(self.vae.config)
        if height % unit or width % unit:
            fitting = f"{max(height // unit, 1) * unit} x {max(width // unit, 1) * unit}"
            raise UserError(
                f"Frames of {height} x {width} do not fit {self.name}, whose autoencoder needs multiples of {unit}: "
                f"set height and width, for example to {fitting}."
            )

    def _check_parts(self) -> None:
        config, scale = self.unet.config, self.vae.config.scaling_factor
        latent, width = int(self.vae.config.latent_channels), self.text_encoder.config.hidden_size
        if not isinstance(scale, int | float) or not 0 < scale < MAX_SCALE:
            raise UserError(f"{self.name}: vae/config.json: scaling_factor is {quoted(scale)}: it is 0.18215 or alike.")
        if config.in_channels != latent:
            raise UserError(
                f"{self.name} has a UNet for {config.in_channels} channels and latents of {latent}: inpainting and "
                "other conditioned checkpoints are not supported, use a text-to-image one."
            )
        if width != (config.encoder_hid_dim or config.cross_attention_dim):
            raise UserError(
                f"{self.name} has a text encoder of width {width} and a UNet for {quoted(config.cross_attention_dim)}: "
                "they do not belong together; get the checkpoint again."
            )
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise UserError(f"{self.name} predicts {quoted(self.prediction_type)}: epsilon and v_prediction are known.")
        schedule(self.scheduler_config, 1)
        _ = self.sites


def load_pipeline(folder: Path, dtype: torch.dtype) -> Any:
    """The checkpoint as a diffusers pipeline, on the CPU.

    Raises:
        UserError: if its files say what they should not, or weights are missing, of other shapes or not finite.
    """
    from diffusers import AnimateDiffPipeline, StableDiffusionPipeline  # noqa: PLC0415  (seconds to import)
    from diffusers.utils import logging as diffusers_logging  # noqa: PLC0415
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()  # what they warn of is refused
    layout = vet_checkpoint(folder)
    parts = load_parts(folder, layout, dtype)
    animated = layout.pipeline == "AnimateDiffPipeline"
    if animated and layout.classes["unet"] == "UNet2DConditionModel":
        vet_adapter(folder / "motion_adapter")
        parts["unet"] = with_motion(parts["unet"], folder / "motion_adapter", f"{folder}/motion_adapter")
    try:
        if animated:
            return AnimateDiffPipeline(**parts, motion_adapter=None)
        return StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False
        )
    except Exception as error:  # a value of any wrong type
        raise UserError(f"{folder} makes no {layout.pipeline} ({first_line(error)}): get it again.") from error


def to_unit_range(frames: Frames) -> Tensor:
    """uint8 F,H,W,3 as float64 F,3,H,W in [0, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).double().div(255)


def to_bytes(frames: Tensor) -> Frames:
    """Float F,3,H,W in [0, 1] as uint8 F,H,W,3, rounded to nearest."""
    rounded: Frames = frames.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    return rounded


def join(texts: Sequence[Tensor], frames: int) -> Tensor:
    """Text embeddings 1,T,D of the branches, repeated for every frame: (branches * F),T,D."""
    return torch.cat([text.expand(frames, -1, -1) for text in texts])
