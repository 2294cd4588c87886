"""A Stable Diffusion or SDXL checkpoint in diffusers' layout, as verbs: encode, decode, embed, predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fatezero.attention.kernels import check_kernel, kernel_in_use
from fatezero.attention.prompts import Prompt, read_prompt
from fatezero.attention.sites import Site, attention_sites
from fatezero.attention.temporal import is_inflated
from fatezero.config import ModelOptions, RuntimeConfig
from fatezero.diffusion.adapter_schedule import describe_change, with_adapter_levels
from fatezero.diffusion.checkpoint import TEMPORAL, Checkpoint, find_checkpoint, pixels_per_latent
from fatezero.diffusion.compiling import compile_blocks
from fatezero.diffusion.components import load_parts
from fatezero.diffusion.ddim import PredictionType, schedule
from fatezero.diffusion.guidance import guidance_embedding
from fatezero.diffusion.latent_scale import LatentScale
from fatezero.diffusion.lora import add_loras
from fatezero.diffusion.motion_unet import with_motion
from fatezero.diffusion.number_formats import slow_format
from fatezero.diffusion.onednn import use_onednn
from fatezero.diffusion.temporal_weights import load_temporal
from fatezero.diffusion.texts import SIZES_TOLD, TextConditioning, TextEncoding, text_encoding
from fatezero.diffusion.textual_inversion import add_embeddings
from fatezero.diffusion.vetting import vet_adapter, vet_checkpoint
from fatezero.diffusion.weight_sets import WeightsChoice
from fatezero.errors import UserError, first_line
from fatezero.system.terminal import quoted
from fatezero.types import Frames

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel, UNetMotionModel


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
        checkpoint: the files that they were loaded from.
        unet: an image UNet, perhaps with Tune-A-Video's temporal layers; or one with motion modules.
        vae: AutoencoderKL or AutoencoderTiny.
        texts: the text encoders, of which there are one or two.
        tokenizer: CLIPTokenizer, whose tokens are the prompt's words.
        scheduler_config: configuration of the noise schedule.
        notes: sentences for the user about choices that were made.
        compiled: whether blocks of the UNet are compiled, and so round otherwise.
        attention_kernel: as in `RuntimeConfig`; it rounds in its own way, too.
    """

    checkpoint: Checkpoint
    unet: UNet2DConditionModel | UNetMotionModel
    vae: Any
    texts: TextEncoding
    tokenizer: Any
    scheduler_config: dict[str, Any]
    notes: tuple[str, ...] = ()
    compiled: bool = False
    attention_kernel: str | None = None

    @classmethod
    def load(
        cls,
        networks: str | ModelOptions,
        runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008  (frozen)
    ) -> Backbone:
        """Load a checkpoint and what is added to it, from safetensors only.

        Args:
            networks: which; a text names the model alone. Temporal layers that `fatezero tune` has put beside it are
                loaded with it.
            runtime: device, dtype, kernel of attention and whether blocks are compiled.

        Raises:
            UserError: if one is missing, not of that layout, does not fit the other, or lacks weights; see `vetting`.
        """
        found = find_checkpoint(ModelOptions(model=networks) if isinstance(networks, str) else networks)
        folder, adapter = found.folder, found.adapter
        device = choose_device(runtime.device)
        dtype, variant = choose_dtype(runtime.dtype, device), found.networks.weights_variant
        pipe = load_pipeline(folder, dtype, variant=variant, vae=found.vae)
        if (folder / TEMPORAL).is_dir():
            load_temporal(pipe.unet, folder / TEMPORAL)
        if adapter is not None:
            pipe.unet = with_motion(pipe.unet, adapter, str(found.networks.motion_adapter), variant)
        add_loras(pipe, found.additions.loras)
        add_embeddings(pipe, found.additions.embeddings)
        backbone = cls.of_pipeline(pipe, found, device).with_chosen_levels()
        if runtime.compile:
            compile_blocks(backbone.unet, backbone.name)
        check_kernel(runtime.attention_kernel)
        notes = (*backbone.notes, *slow_format(dtype, device))
        return replace(backbone, compiled=runtime.compile, attention_kernel=runtime.attention_kernel, notes=notes)

    @classmethod
    def of_pipeline(cls, pipe: Any, checkpoint: Checkpoint, device: torch.device) -> Backbone:
        """Take the networks of a StableDiffusionPipeline or a StableDiffusionXLPipeline, whose files these are.

        Raises:
            UserError: if they are not Stable Diffusion's.
        """
        for part in filter(None, (pipe.unet, pipe.vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None))):
            part.requires_grad_(requires_grad=False).eval().to(device)
            use_onednn(part)
        pipe.unet.to(memory_format=torch.channels_last)  # faster, as the transformers between convolutions have it so
        backbone = cls(
            checkpoint=checkpoint,
            unet=pipe.unet,
            vae=pipe.vae,
            texts=text_encoding(
                pipe.components, zeros_for_nothing=bool(pipe.config.get("force_zeros_for_empty_prompt"))
            ),
            tokenizer=pipe.tokenizer,
            scheduler_config=dict(pipe.scheduler.config),
        )
        backbone.check_parts()
        return backbone

    def with_chosen_levels(self) -> Backbone:
        """The same, under the motion adapter's noise levels and with a note of them, where these are chosen.

        Raises:
            UserError: if they cannot be used.
        """
        adapter = self.checkpoint.adapter
        if adapter is None or self.checkpoint.schedule_owner == "checkpoint":
            return self
        levels = with_adapter_levels(self.scheduler_config, adapter)
        notes = describe_change(self.scheduler_config, levels)
        try:
            schedule(levels, 1)
        except UserError as error:
            raise UserError(f"{adapter}, under the motion adapter's noise levels: {error}") from error
        return replace(self, scheduler_config=levels, notes=notes)

    @property
    def name(self) -> str:
        """What the user called the checkpoint."""
        return self.checkpoint.networks.model

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
    def rounding(self) -> str:
        """What decides how the networks round, for people."""
        kernel = kernel_in_use(self.attention_kernel)
        attention = f", attention by {kernel}" if kernel != "native" else ""
        return f"{self.dtype} on {self.device.type}{', compiled' if self.compiled else ''}{attention}"

    @property
    def prediction_type(self) -> PredictionType:
        """What the UNet was trained to predict."""
        prediction: PredictionType = self.scheduler_config.get("prediction_type", "epsilon")
        return prediction

    @property
    def context(self) -> int:
        """Tokens that the text encoder reads at once."""
        return int(self.tokenizer.model_max_length)

    @cached_property
    def latent_scale(self) -> LatentScale:
        """Between the autoencoder's latents and the UNet's."""
        return LatentScale.of(self.vae.config, self.name)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The UNet's attention layers."""
        return attention_sites(self.unet)

    @cached_property
    def has_motion(self) -> bool:
        """Whether the UNet takes whole clips, its motion modules between its layers."""
        return bool(self.unet.__class__.__name__ == "UNetMotionModel")

    @cached_property
    def embeds_guidance(self) -> bool:
        """Whether the UNet is told the guidance scale, having learnt what guidance does (LCM): one branch is enough."""
        return self.unet.config.time_cond_proj_dim is not None

    @cached_property
    def ties_frames(self) -> bool:
        """Whether layers along time tie all frames of a clip together, so that it cannot be cut."""
        return self.has_motion or is_inflated(self.unet)

    def read_prompt(self, text: str, contexts: int = 1) -> Prompt:
        """Tokenise a prompt. Raises UserError if it is longer than the contexts, or the encoders read it unlike."""
        prompt = read_prompt(self.tokenizer, text, contexts)
        self.texts.check(text)
        return prompt

    @torch.no_grad()
    def embed(self, text: str, contexts: int = 1) -> TextConditioning:
        """What the UNet is told of a prompt. Raises UserError as `read_prompt`."""
        self.read_prompt(text, contexts)
        return self.texts.embed(text, self.checkpoint.additions.clip_skip, contexts)

    @torch.no_grad()
    def embed_negative(self, text: str, contexts: int = 1) -> TextConditioning:
        """What the UNet is told in the unconditional branch: `clip_skip` leaves it alone, as in diffusers."""
        if not text:
            return self.texts.embed_nothing(contexts)
        self.read_prompt(text, contexts)
        return self.texts.embed(text, 0, contexts)

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
        return self._finite(self.latent_scale.to_unet(torch.cat(latents)))

    def _encode_frame(self, frame: Tensor, generator: torch.Generator | None) -> Tensor:
        encoded = self.vae.encode(frame.to(self.device, self.vae.dtype) * 2 - 1)
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
        """Frames of latents, one at a time: F,C,h,w to F,3,H,W in [0, 1] on the networks' device."""
        scaled = self.latent_scale.to_autoencoder(latents).to(self.vae.dtype)
        frames = [self.vae.decode(latent[None]).sample.to(self.latent_dtype) for latent in scaled]
        return (self._finite(torch.cat(frames)) / 2 + 0.5).clamp(0, 1)

    def _finite(self, x: Tensor) -> Tensor:
        if not bool(x.isfinite().all()):
            raise UserError(
                f"The autoencoder of {self.name} returned NaN or infinity in {self.vae.dtype}: use dtype float32, or "
                "check the checkpoint."
            )
        return x

    @torch.no_grad()
    def predict(
        self,
        latents: Tensor,
        timestep: int,
        texts: Sequence[TextConditioning],
        frames: int,
        guidance: Sequence[float] = (),
    ) -> Tensor:
        """The UNet's output for (branches * F),C,h,w latents.

        Args:
            latents: branch by branch.
            timestep: the timestep that the UNet is told.
            texts: what each branch is told.
            frames: F.
            guidance: each branch's guidance scale, for a UNet that is told it; () is 1 for all, no guidance.

        Returns:
            (branches * F),C,h,w in the latents' dtype.
        """
        told = self.conditioning(texts, frames, (latents.shape[-2], latents.shape[-1]), guidance)
        return self.predict_told(latents, timestep, told, frames)

    @torch.no_grad()
    def predict_told(self, latents: Tensor, timestep: int, told: Mapping[str, Any], frames: int) -> Tensor:
        """As `predict`, for what `conditioning` has made of the prompts.

        Where `Call.source_leaves`, the source's rows, which come first, are missing from the output.
        """
        noisy = latents.to(self.dtype)
        if self.has_motion:
            noisy = noisy.unflatten(0, (-1, frames)).transpose(1, 2)  # branches,C,F,h,w
        output: Tensor = self.unet(noisy, timestep, **told).sample
        if self.has_motion:
            output = output.transpose(1, 2).flatten(0, 1)
        return output.to(latents.dtype)

    def conditioning(
        self,
        texts: Sequence[TextConditioning],
        frames: int,
        latent_size: tuple[int, int],
        guidance: Sequence[float] = (),
    ) -> dict[str, Any]:
        """Arguments of the UNet's call beside latents and timestep, for branches of F frames each.

        SDXL is told the frames' size as the image's own and as the one asked for, nothing cropped: diffusers' default.
        """
        hidden = torch.cat([text.hidden.expand(frames, -1, -1) for text in texts])
        told: dict[str, Any] = {"encoder_hidden_states": hidden.to(self.device, self.dtype)}
        copies = 1 if self.has_motion else frames  # the motion UNet repeats them for its frames
        if self.embeds_guidance:
            scales = torch.tensor(guidance or [1.0] * len(texts), dtype=torch.float32).repeat_interleave(copies)
            embedding = guidance_embedding(scales, int(self.unet.config.time_cond_proj_dim))
            told["timestep_cond"] = embedding.to(self.device, self.dtype)
        pooled = [text.pooled for text in texts if text.pooled is not None]
        if pooled:
            unit = pixels_per_latent(self.vae.config)
            size = [side * unit for side in latent_size]
            ids = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=self.device)
            told["added_cond_kwargs"] = {
                "text_embeds": torch.cat([one.expand(copies, -1) for one in pooled]).to(self.device, self.dtype),
                "time_ids": ids.expand(copies * len(pooled), -1),
            }
        return told

    def _check_size(self, height: int, width: int) -> None:
        unit = pixels_per_latent(self.vae.config)
        if height % unit or width % unit:
            fitting = f"{max(height // unit, 1) * unit} x {max(width // unit, 1) * unit}"
            raise UserError(
                f"Frames of {height} x {width} do not fit {self.name}, whose autoencoder needs multiples of {unit}: "
                f"set height and width, for example to {fitting}."
            )

    def check_parts(self) -> None:
        """Refuse networks that do not belong together, or that this project does not know; weights are not needed.

        Raises:
            UserError: saying which.
        """
        config, latent = self.unet.config, int(self.vae.config.latent_channels)
        width, pooled = self.texts.widths
        _ = self.latent_scale
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
        if pooled is not None:
            _check_pooled(config, pooled, self.name)
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise UserError(f"{self.name} predicts {quoted(self.prediction_type)}: epsilon and v_prediction are known.")
        skipped, layers = self.checkpoint.additions.clip_skip, self.texts.layers
        if skipped >= layers:
            raise UserError(f"clip_skip is {skipped}, the text encoder of {self.name} has {layers} layers: leave one.")
        schedule(self.scheduler_config, 1)
        _ = self.sites


def _check_pooled(unet_config: Any, width: int, name: str) -> None:
    """Refuse a UNet that is told other numbers than the pooled text and six of sizes."""
    given = width + SIZES_TOLD * int(unet_config.addition_time_embed_dim)
    if unet_config.projection_class_embeddings_input_dim != given:
        raise UserError(
            f"{name} has a UNet that is told {unet_config.projection_class_embeddings_input_dim} numbers beside the "
            f"prompt, SDXL's pooled text and sizes are {given}: they do not belong together; get the checkpoint again."
        )


def silence_libraries() -> None:
    """Keep diffusers and transformers from warning of what is refused, and from showing how far they are."""
    from diffusers.utils import logging as diffusers_logging  # noqa: PLC0415  (seconds to import)
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()


def load_pipeline(folder: Path, dtype: torch.dtype, *, variant: str | None = None, vae: Path | None = None) -> Any:
    """The checkpoint as a diffusers pipeline, on the CPU.

    Args:
        folder: the checkpoint's.
        dtype: of the networks.
        variant: of the weights, where a network has several.
        vae: folder of another autoencoder than the checkpoint's own.

    Raises:
        UserError: if its files say what they should not, or weights are missing, of other shapes or not finite.
    """
    import diffusers  # noqa: PLC0415  (seconds to import)

    silence_libraries()
    choice = WeightsChoice(variant, str(dtype).removeprefix("torch."))
    layout = vet_checkpoint(folder, choice)
    parts = load_parts(folder, layout, dtype, variant=variant, vae=vae)
    if layout.animated and layout.classes["unet"] == "UNet2DConditionModel":
        adapter = folder / "motion_adapter"
        vet_adapter(adapter, choice)
        parts["unet"] = with_motion(parts["unet"], adapter, str(adapter), variant)
    try:
        if layout.family.two_encoders:
            zeros = layout.zeros_for_empty_prompt
            return diffusers.StableDiffusionXLPipeline(
                **parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False
            )
        if layout.animated:
            return diffusers.AnimateDiffPipeline(**parts, motion_adapter=None)
        return diffusers.StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False
        )
    except Exception as error:  # a value of any wrong type
        raise UserError(f"{folder} makes no {layout.pipeline} ({first_line(error)}): get it again.") from error


def to_unit_range(frames: Frames) -> Tensor:
    """uint8 F,H,W,3 as float64 F,3,H,W in [0, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).double().div(255)


def to_bytes(frames: Tensor) -> Frames:
    """Float F,3,H,W in [0, 1] on any device as uint8 F,H,W,3, rounded to nearest."""
    rounded: Frames = frames.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return rounded
