"""A Stable Diffusion or SDXL checkpoint in diffusers' layout, as verbs: encode, decode, embed, predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from fatezero.attention.install import video_attention
from fatezero.attention.kernels import attention_kernel, check_kernel, kernel_in_use
from fatezero.attention.key_frames import Chunk, cut_into_chunks, key_positions
from fatezero.attention.processor import AttentionState, Call, CallFusion, PromptProjections
from fatezero.attention.prompts import Prompt, read_prompt
from fatezero.attention.recorders import Recorder
from fatezero.attention.sites import Site, attention_sites
from fatezero.attention.spared import where_source_leaves
from fatezero.attention.temporal import is_inflated
from fatezero.config import MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.adapter_schedule import describe_change, with_adapter_levels
from fatezero.diffusion.checkpoint import TEMPORAL, Checkpoint, family_in, find_checkpoint, pixels_per_latent
from fatezero.diffusion.compiling import compile_blocks
from fatezero.diffusion.ddim import DDIMSolver, DDIMStep, PredictionType, schedule
from fatezero.diffusion.devices import choose_device, choose_dtype
from fatezero.diffusion.feature_reuse import DeepFeatures, deep_features, outermost_level
from fatezero.diffusion.guidance import guidance_embedding
from fatezero.diffusion.latent_scale import LatentScale
from fatezero.diffusion.lora import add_loras
from fatezero.diffusion.memory_switches import refuse_switches, tiled
from fatezero.diffusion.motion_unet import with_motion
from fatezero.diffusion.number_formats import slow_format
from fatezero.diffusion.onednn import use_onednn
from fatezero.diffusion.pipeline_loading import load_pipeline
from fatezero.diffusion.pixels import to_bytes, to_unit_range
from fatezero.diffusion.posterior import latents_of
from fatezero.diffusion.prediction import Branch, Branches, FiniteCheck, Output
from fatezero.diffusion.temporal_weights import load_temporal
from fatezero.diffusion.texts import SIZES_TOLD, TextConditioning, TextEncoding, text_encoding
from fatezero.diffusion.textual_inversion import add_embeddings
from fatezero.errors import UserError
from fatezero.source_attention.budget import RecordingShapes
from fatezero.system.terminal import quoted
from fatezero.types import Frames

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel, UNetMotionModel


@dataclass(frozen=True)
class UNetBackbone:
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
    ) -> UNetBackbone:
        """Load a checkpoint and what is added to it, from safetensors only.

        Args:
            networks: which; a text names the model alone. Temporal layers that `fatezero tune` has put beside it are
                loaded with it.
            runtime: device, dtype, kernel of attention and whether blocks are compiled.

        Raises:
            UserError: if one is missing, not of that layout, does not fit the other, or lacks weights; see `vetting`.
        """
        found = find_checkpoint(ModelOptions(model=networks) if isinstance(networks, str) else networks)
        family = family_in(found.folder)
        if family.denoiser != "unet":
            raise UserError(
                f"{found.networks.model} is a checkpoint of {family.name}, a transformer, and this is for UNets: give "
                "one of Stable Diffusion 1.x, 2.x or SDXL."
            )
        return cls.of_checkpoint(found, runtime)

    @classmethod
    def of_checkpoint(cls, found: Checkpoint, runtime: RuntimeConfig) -> UNetBackbone:
        """As `load`, of a checkpoint that has been found."""
        refuse_switches(runtime)
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
    def of_pipeline(cls, pipe: Any, checkpoint: Checkpoint, device: torch.device) -> UNetBackbone:
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

    def with_chosen_levels(self) -> UNetBackbone:
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

    @property
    def predicts_velocity(self) -> bool:
        """It predicts noise, or DDPM's v."""
        return False

    @cached_property
    def ties_frames(self) -> bool:
        """Whether layers along time tie all frames of a clip together, so that it cannot be cut."""
        return self.has_motion or is_inflated(self.unet)

    def check_method(self, method: MethodConfig, fused: frozenset[str]) -> None:
        """Refuse settings that mean nothing to this UNet, given the names of the fused layers.

        Raises:
            UserError: for windows over time, and for features reused in layers that are fused.
        """
        if method.window_frames is not None:
            raise UserError(
                f"window_frames is {method.window_frames}, which is for video transformers: {self.name} has a UNet, "
                "leave it out."
            )
        if method.feature_reuse > 1 and any(site.startswith(outermost_level(self.unet)) for site in fused):
            raise UserError(
                f"feature_reuse is {method.feature_reuse}, but layers of the UNet's outermost level, which it computes "
                "without the others, are fused too: set fusion.min_downsampling to 2 or more, or feature_reuse to 1."
            )

    def check_cut(self) -> None:
        """Refuse to work on part of a clip, where layers along time tie all its frames together.

        Raises:
            UserError: saying what to do.
        """
        if self.ties_frames:
            raise UserError(
                f"A clip cannot be cut, because {self.name} has layers along time that tie all its frames together: "
                "leave --chunk and --segment out, or take an image model."
            )

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

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """F,C,h,w of a clip's latents: each frame has its own.

        Raises:
            UserError: if height or width is not a multiple of what the checkpoint needs.
        """
        self._check_size(height, width)
        unit = pixels_per_latent(self.vae.config)
        return frames, int(self.vae.config.latent_channels), height // unit, width // unit

    def latent_of_frames(self, frames: int) -> tuple[int, ...]:
        """Each frame's own."""
        return tuple(range(frames))

    def encode_clip(self, frames: Frames, generator: torch.Generator | None = None, *, tiling: bool = False) -> Tensor:
        """Latents F,C,h,w of frames uint8 F,H,W,3: each on its own, so that it does not depend on its neighbours.

        Raises:
            UserError: as `encode`.
        """
        with tiled(self.vae, tiling):
            return torch.cat([self.encode(to_unit_range(frame[None]), generator) for frame in frames])

    def decode_clip(self, latents: Tensor, *, tiling: bool = False) -> Frames:
        """Frames uint8 F,H,W,3 of latents."""
        with tiled(self.vae, tiling):
            return np.concatenate([to_bytes(self.decode(latent[None])) for latent in latents])

    def schedule(self, steps: int, latent_shape: tuple[int, int, int, int]) -> tuple[DDIMStep, ...]:  # noqa: ARG002
        """DDIM's steps from clean to noise, the same for all sizes. Raises UserError as `ddim.schedule`."""
        return schedule(self.scheduler_config, steps)

    def solver(self, order: Literal[1, 2]) -> DDIMSolver:
        """DDIM's moves."""
        return DDIMSolver(order, self.prediction_type)

    def denoiser(
        self, method: MethodConfig, length: int, chunk_size: int | None, middle: int | None = None
    ) -> AbstractContextManager[UNetDenoiser]:
        """The UNet for clips of a length: see `unet_denoiser`."""
        return unet_denoiser(self, method, length, chunk_size, middle)

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
        return latents_of(encoded.latent_dist, self.latent_dtype, generator)

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
        timestep: float,
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
    def predict_told(self, latents: Tensor, timestep: float, told: Mapping[str, Any], frames: int) -> Tensor:
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


@dataclass(frozen=True)
class UNetDenoiser:
    """A backbone whose UNet sees clips.

    Attributes:
        backbone: the networks.
        state: read by the installed processors.
        chunks: the clip's chunks, one UNet call each.
        positions: key positions of each chunk.
        key_frames_min_width: as in `MethodConfig`.
        prompt_contexts: as in `MethodConfig`.
        finite: looks for NaN and infinity in what the UNet returns.
        features: what the UNet keeps from step to step; None where every step is computed in whole.
    """

    backbone: UNetBackbone
    state: AttentionState
    chunks: tuple[Chunk, ...]
    positions: tuple[Tensor | None, ...]
    key_frames_min_width: int
    prompt_contexts: int
    finite: FiniteCheck
    features: DeepFeatures | None = None
    _projections: dict[tuple[TextConditioning, ...], PromptProjections] = field(default_factory=dict)
    _told: dict[tuple[object, ...], dict[str, Any]] = field(default_factory=dict)

    def recording_shapes(self, latents: Tensor, prompt: str) -> RecordingShapes:  # noqa: ARG002  (prompts are padded)
        """What the size of a recording depends on, for latents F,C,h,w and the source prompt."""
        positions = self.positions[0]
        return RecordingShapes(
            sites=self.backbone.sites,
            latent_size=_size(latents),
            chunks=self.chunks,
            key_frames=1 if positions is None else positions.shape[1],
            key_frames_min_width=self.key_frames_min_width,
            text_tokens=self.prompt_contexts * self.backbone.context,
            itemsize=self.backbone.dtype.itemsize,
        )

    def predict(
        self,
        branches: Branches,
        timestep: float,
        recorders: Sequence[Sequence[Recorder]] = (),
        fusion: Callable[[int, Chunk], CallFusion] | None = None,
        *,
        reuse: bool = False,
    ) -> Output:
        """The UNet's output for a whole clip.

        Args:
            branches: what the UNet is asked about.
            timestep: the timestep that the UNet is told.
            recorders: watch the conditional branch; each is a sequence with one recorder per chunk.
            fusion: what is done to the conditional branch's attention, for a chunk and its index; None does nothing.
            reuse: compute the outermost level alone, from the features of the last whole prediction, which had these
                branches too.

        Raises:
            UserError: if the UNet has returned NaN or infinity, in this call or, on a GPU, the one before.
        """
        batch = branches.batch
        texts = tuple(branch.text for branch in batch)
        outputs = [torch.empty_like(branch.latents) for branch in batch]
        for index, chunk in enumerate(self.chunks):
            frames = list(chunk.frames)
            fused = fusion(index, chunk) if fusion else None
            leaves = where_source_leaves(self.backbone.sites, fused) if fused and branches.source else None
            self.state.call = Call(
                branches=len(batch),
                frames=len(frames),
                latent_size=_size(batch[0].latents),
                key_positions=self.positions[index],
                key_frames_min_width=self.key_frames_min_width,
                recorders=[r[index] for r in recorders],
                fusion=fused,
                prompts=self._projections.setdefault(texts, PromptProjections()),
                twins=branches.twins,
                source_leaves=leaves,
            )
            if self.features is not None:
                self.features.begin(index, branches.denoised, len(frames), reuse=reuse)
            latents = torch.cat([branch.latents[frames] for branch in batch])
            told = self._conditioning(batch, len(frames), _size(latents))
            predicted = self.backbone.predict_told(latents, timestep, told, len(frames))
            own = list(chunk.own)
            for output, part in zip(reversed(outputs), reversed(predicted.split(len(frames))), strict=False):
                output[[frames[i] for i in own]] = part[own]
        if branches.source is not None:
            outputs.pop(0)  # it is run for its attention, and may have left on the way
        self.finite.add(outputs, timestep)
        return Output(outputs[-1], outputs[0] if branches.unconditional is not None else None)

    def _conditioning(self, batch: Sequence[Branch], frames: int, latent_size: tuple[int, int]) -> dict[str, Any]:
        """What the UNet is told of the batch's prompts, made once: it is the same in every step."""
        guidance = tuple(branch.guidance for branch in batch)
        key = (*(branch.text for branch in batch), guidance, frames, latent_size)
        if key not in self._told:
            texts = [branch.text for branch in batch]
            self._told[key] = self.backbone.conditioning(texts, frames, latent_size, guidance)
        return self._told[key]


def _size(latents: Tensor) -> tuple[int, int]:
    return latents.shape[-2], latents.shape[-1]


@contextmanager
def unet_denoiser(
    backbone: UNetBackbone, method: MethodConfig, clip_length: int, chunk_size: int | None, middle: int | None = None
) -> Iterator[UNetDenoiser]:
    """Install key frames and norms for clips of a length; the UNet is put back afterwards.

    With `middle`, these are frames of a segment, and it is the index of the whole clip's middle frame among them.

    Raises:
        UserError: if the clip cannot be cut into chunks as asked, or is longer than motion modules count.
    """
    if backbone.ties_frames:
        _check_whole(backbone, clip_length, chunk_size, middle)
        chunk_size = clip_length
    chunks = cut_into_chunks(clip_length, method.key_frames, method.norm_scope, chunk_size, middle)
    positions = [key_positions(method.key_frames, chunk, clip_length, middle) for chunk in chunks]
    finite = FiniteCheck(backbone.name, backbone.dtype)
    with video_attention(backbone.unet, backbone.sites, method.norm_scope) as state, ExitStack() as stack:
        stack.enter_context(attention_kernel(backbone.attention_kernel))
        yield UNetDenoiser(
            backbone=backbone,
            state=state,
            chunks=chunks,
            positions=tuple(None if one is None else one.to(backbone.device) for one in positions),
            key_frames_min_width=method.key_frames_min_width,
            prompt_contexts=method.prompt_contexts,
            finite=finite,
            features=stack.enter_context(deep_features(backbone.unet)) if method.feature_reuse > 1 else None,
        )
        finite.settle()


def _check_whole(backbone: UNetBackbone, clip_length: int, chunk_size: int | None, middle: int | None) -> None:
    if middle is not None or (chunk_size is not None and chunk_size < clip_length):
        backbone.check_cut()
    longest = int(backbone.unet.config.motion_max_seq_length) if backbone.has_motion else clip_length
    if clip_length > longest:
        raise UserError(
            f"The motion modules count {longest} frames and the clip has {clip_length}: set --frames to {longest} or "
            "fewer (--stride takes every stride-th), or leave the motion adapter out."
        )


def _check_pooled(unet_config: Any, width: int, name: str) -> None:
    """Refuse a UNet that is told other numbers than the pooled text and six of sizes."""
    given = width + SIZES_TOLD * int(unet_config.addition_time_embed_dim)
    if unet_config.projection_class_embeddings_input_dim != given:
        raise UserError(
            f"{name} has a UNet that is told {unet_config.projection_class_embeddings_input_dim} numbers beside the "
            f"prompt, SDXL's pooled text and sizes are {given}: they do not belong together; get the checkpoint again."
        )
