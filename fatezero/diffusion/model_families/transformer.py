"""Diffusion transformers as backbones: what their families share, and the protocol of what each brings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from fatezero.attention.kernels import attention_kernel, kernel_in_use
from fatezero.attention.key_frames import Chunk, cut_into_chunks
from fatezero.attention.processor import AttentionState, Call, CallFusion, PromptProjections
from fatezero.attention.prompts import Prompt
from fatezero.attention.recorders import Recorder
from fatezero.attention.sites import Site
from fatezero.attention.transformer_attention import tapped
from fatezero.config import MethodConfig
from fatezero.diffusion.checkpoint import Checkpoint
from fatezero.diffusion.memory_switches import STORED, tiled
from fatezero.diffusion.moves import Solver, Step
from fatezero.diffusion.pixels import to_bytes, to_unit_range
from fatezero.diffusion.prediction import Branches, FiniteCheck, Output
from fatezero.diffusion.temporal_windows import temporal_windows, window_weights
from fatezero.diffusion.texts import TextConditioning
from fatezero.errors import UserError
from fatezero.source_attention.budget import RecordingShapes
from fatezero.system.terminal import quoted
from fatezero.types import Frames


class TransformerNetworks(Protocol):
    """What one family of transformers brings."""

    @property
    def name(self) -> str:
        """Of the checkpoint, for people."""

    @property
    def transformers(self) -> Sequence[Any]:
        """The denoising networks, of which there are several where each has its noise levels."""

    @property
    def text_encoders(self) -> Sequence[Any]:
        """Which are at work while a prompt is embedded."""

    @property
    def autoencoder(self) -> Any:
        """Of diffusers."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """The attention layers, the same of each."""

    @property
    def embeds_guidance(self) -> bool:
        """As in `Backbone`."""

    @property
    def predicts_velocity(self) -> bool:
        """As in `Backbone`."""

    @property
    def sees_single_frames(self) -> bool:
        """Whether it is of images: each frame is a row of its own, which sees no other."""

    @property
    def latent_channels(self) -> int:
        """Of the latents."""

    @property
    def frames_per_latent(self) -> int:
        """The first latent is the first frame, each other one so many."""

    @property
    def length_unit(self) -> int:
        """Clips have one frame more than a multiple of so many, a multiple of `frames_per_latent` itself."""

    @property
    def pixels_per_latent(self) -> int:
        """Of height and of width."""

    @property
    def patch(self) -> int:
        """Latents of height, and of width, that make one place of the transformer."""

    @property
    def longest_side(self) -> int | None:
        """Latents in height or width of the largest image that it takes; None where any is taken."""

    def processor(self, site: Site, state: AttentionState) -> Any:
        """The attention processor of a layer, which records and fuses as the state's call says."""

    def stage(self, timestep: float) -> int:
        """Which of the transformers denoises at a timestep."""

    def read_prompt(self, text: str) -> Prompt:
        """Tokenise a prompt. Raises UserError if it is too long."""

    def embed(self, text: str) -> TextConditioning:
        """What the transformer is told of a prompt."""

    def encode(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Latents F,C,h,w of a clip 1,3,F,H,W in [-1, 1], of unit variance; a generator samples them."""

    def decode(self, latents: Tensor) -> Tensor:
        """A clip 1,3,F,H,W in [-1, 1] of latents F,C,h,w."""

    def schedule(self, steps: int, latent_shape: tuple[int, int, int, int]) -> tuple[Step, ...]:
        """As in `Backbone`."""

    def solver(self, order: Literal[1, 2]) -> Solver:
        """As in `Backbone`."""

    def predict(
        self, latents: Tensor, timestep: float, texts: Sequence[TextConditioning], guidance: Sequence[float]
    ) -> Tensor:
        """The transformer's output for latents branches,C,F,h,w; one text and guidance scale for each branch."""


Setting = tuple[str, object, object, str]  # its name, its value, the only one that means something, and why


@dataclass(frozen=True)
class TransformerBackbone:
    """A transformer's checkpoint on one device.

    Attributes:
        checkpoint: the files that it was loaded from.
        networks: what its family brings.
        trained_frames: length of the clips that it was trained on.
        notes: sentences for the user about choices that were made.
        attention_kernel: as in `RuntimeConfig`; it rounds in its own way.
        layerwise_casting: whether weights are stored in float8, and so are rounded.
    """

    checkpoint: Checkpoint
    networks: TransformerNetworks
    trained_frames: int
    notes: tuple[str, ...] = ()
    attention_kernel: str | None = None
    layerwise_casting: bool = False

    @property
    def name(self) -> str:
        """What the user called the checkpoint."""
        return self.networks.name

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        device: torch.device = self.networks.transformers[0].device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of the transformer."""
        dtype: torch.dtype = self.networks.transformers[0].dtype
        return dtype

    @property
    def latent_dtype(self) -> torch.dtype:
        """Of latents between calls: never below float32."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def rounding(self) -> str:
        """What decides how the networks round, for people."""
        kernel = kernel_in_use(self.attention_kernel)
        stored = f", weights stored in {STORED}" if self.layerwise_casting else ""
        attention = f", attention by {kernel}" if kernel != "native" else ""
        return f"{self.dtype} on {self.device.type}{stored}{attention}"

    @property
    def sites(self) -> tuple[Site, ...]:
        """The transformer's attention layers."""
        return self.networks.sites

    @property
    def embeds_guidance(self) -> bool:
        """Whether the transformer is told the guidance scale, and runs no branch without a prompt."""
        return self.networks.embeds_guidance

    @property
    def predicts_velocity(self) -> bool:
        """Whether it is of flow matching."""
        return self.networks.predicts_velocity

    def check_method(self, method: MethodConfig, fused: frozenset[str]) -> None:  # noqa: ARG002
        """Refuse what a transformer does not have.

        Raises:
            UserError: for key frames, norms, temporal layers, contexts and features of a UNet; for windows over time of
                images, and those that end within a latent; and for fused words where the prompt's part of the attention
                stays the edit's own.
        """
        among = "its own frame" if self.networks.sees_single_frames else "all frames"
        settings = (
            ("key_frames", method.key_frames, ("self",), f"each place attends to those of {among}"),
            ("key_frames_min_width", method.key_frames_min_width, 0, f"each place attends to those of {among}"),
            ("norm_scope", method.norm_scope, "frame", "its norms are over the channels of one place"),
            ("prompt_contexts", method.prompt_contexts, 1, "its text encoder reads long prompts at once"),
            ("feature_reuse", method.feature_reuse, 1, "it has no levels of which one could be computed alone"),
            ("fusion.temporal", bool(method.fusion and method.fusion.temporal), False, "it has no temporal layers"),
            *self._settings_of_images(method),
            *self._settings_of_words(method),
        )
        for setting, value, plain, reason in settings:
            if value != plain:
                raise UserError(
                    f"{setting} is {quoted(value)}, which means nothing to {self.name}, a transformer: {reason}; "
                    f"set it to {json.dumps(plain)}."
                )
        self._check_window(method.window_frames)

    def _check_window(self, frames: int | None) -> None:
        """Refuse a window that ends within a latent."""
        each = self.networks.frames_per_latent
        if frames is not None and (frames - 1) % each:
            shorter = frames - (frames - 1) % each
            raise UserError(
                f"window_frames is {frames} and a latent of {self.name} stands for {each} frames, the first one's for "
                f"one: set it to {shorter} or {shorter + each}."
            )

    def check_cut(self) -> None:
        """Refuse to work on part of a clip, where attention ties all its frames together.

        Raises:
            UserError: saying what to do.
        """
        if not self.networks.sees_single_frames:
            raise UserError(
                f"A clip cannot be cut for {self.name}, whose attention ties all its frames together: leave --chunk "
                "and --segment out; of clips longer than it was trained on, windows of that length are joined."
            )

    def _settings_of_images(self, method: MethodConfig) -> Iterator[Setting]:
        """What has one value where no frame sees another."""
        if self.networks.sees_single_frames:
            yield "window_frames", method.window_frames, None, "it sees frames one by one"

    def _settings_of_words(self, method: MethodConfig) -> Iterator[Setting]:
        """What has one value where places and prompt attend jointly."""
        fusion, joint = method.fusion, any(site.kind == "joint" for site in self.sites)
        if fusion is not None and joint:
            reason = "its places and the prompt attend in one softmax, and the prompt's part stays the edit's own"
            yield "fusion.cross_window", fusion.cross_window, None, reason
            yield "fusion.word_windows", dict(fusion.word_windows), {}, reason
            yield "fusion.reweight", dict(fusion.reweight), {}, reason

    def read_prompt(self, text: str, contexts: int = 1) -> Prompt:  # noqa: ARG002
        """Tokenise a prompt. Raises UserError if it is too long."""
        return self.networks.read_prompt(text)

    @torch.no_grad()
    def embed(self, text: str, contexts: int = 1) -> TextConditioning:
        """What the transformer is told of a prompt. Raises UserError as `read_prompt`."""
        self.read_prompt(text, contexts)
        return self.networks.embed(text)

    def embed_negative(self, text: str, contexts: int = 1) -> TextConditioning:
        """What the transformer is told in the unconditional branch."""
        return self.embed(text, contexts)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """F,C,h,w of a clip's latents.

        Raises:
            UserError: for lengths that are not of the latents' multiple plus one, and sizes that patches do not fill.
        """
        networks = self.networks
        unit, step = networks.pixels_per_latent * networks.patch, networks.length_unit
        if height % unit or width % unit:
            fitting = f"{max(height // unit, 1) * unit} x {max(width // unit, 1) * unit}"
            raise UserError(
                f"Frames of {height} x {width} do not fit {self.name}, which needs multiples of {unit}: set --height "
                f"and --width, for example to {fitting}."
            )
        if (frames - 1) % step:
            shorter = frames - (frames - 1) % step
            longer = shorter + step
            raise UserError(
                f"The clip has {frames} frames and {self.name} takes one more than a multiple of {step}: set "
                f"--frames to {shorter}, or to {longer} of a clip that has as many."
            )
        size = height // networks.pixels_per_latent, width // networks.pixels_per_latent
        if networks.longest_side is not None and max(size) > networks.longest_side:
            longest = networks.longest_side * networks.pixels_per_latent
            raise UserError(
                f"Frames of {height} x {width} are larger than {self.name} takes: set --height and --width to at most "
                f"{longest}."
            )
        return self.latent_count(frames), networks.latent_channels, *size

    def latent_of_frames(self, frames: int) -> tuple[int, ...]:
        """Latent 0 is frame 0; latent j frames k (j - 1) + 1 to k j."""
        return tuple(-(-frame // self.networks.frames_per_latent) for frame in range(frames))

    @torch.no_grad()
    def encode_clip(self, frames: Frames, generator: torch.Generator | None = None, *, tiling: bool = False) -> Tensor:
        """Latents F,C,h,w of frames uint8 F,H,W,3.

        Raises:
            UserError: as `latent_shape`, and where the autoencoder returns NaN or infinity.
        """
        self.latent_shape(len(frames), frames.shape[1], frames.shape[2])
        pixels = to_unit_range(frames).to(self.device, self.latent_dtype).transpose(0, 1)[None] * 2 - 1
        with tiled(self.networks.autoencoder, tiling):
            return self._finite(self.networks.encode(pixels, generator).to(self.latent_dtype))

    @torch.no_grad()
    def decode_clip(self, latents: Tensor, *, tiling: bool = False) -> Frames:
        """Frames uint8 F,H,W,3 of latents."""
        with tiled(self.networks.autoencoder, tiling):
            pixels = self._finite(self.networks.decode(latents).to(self.latent_dtype))[0].transpose(0, 1)
        return to_bytes((pixels / 2 + 0.5).clamp(0, 1))

    def _finite(self, x: Tensor) -> Tensor:
        if not bool(x.isfinite().all()):
            raise UserError(
                f"The autoencoder of {self.name} returned NaN or infinity: use dtype float32, or check the checkpoint."
            )
        return x

    def schedule(self, steps: int, latent_shape: tuple[int, int, int, int]) -> tuple[Step, ...]:
        """The checkpoint's steps from clean to noise, of no longer a clip than it was trained on.

        Raises:
            UserError: if it has none such.
        """
        frames, channels, rows, columns = latent_shape
        seen = min(frames, self.latent_count(self.trained_frames))
        return self.networks.schedule(steps, (seen, channels, rows, columns))

    def solver(self, order: Literal[1, 2]) -> Solver:
        """Makes the moves of one walk along the schedule."""
        return self.networks.solver(order)

    def denoiser(
        self, method: MethodConfig, length: int, chunk_size: int | None, middle: int | None = None
    ) -> AbstractContextManager[TransformerDenoiser]:
        """The transformer for clips of so many latents: see `Backbone`."""
        if self.networks.sees_single_frames:
            return transformer_denoiser(self, cut_into_chunks(length, ("self",), "frame", chunk_size))
        if chunk_size is not None or middle is not None:
            self.check_cut()
        frames = method.window_frames or self.trained_frames
        longest = self.latent_count(frames)
        return transformer_denoiser(self, temporal_windows(length, longest, method.window_overlap))

    def latent_count(self, frames: int) -> int:
        """Latents of so many frames, the last of which may be fewer than a latent's."""
        return (frames - 1) // self.networks.frames_per_latent + 1


@dataclass(frozen=True)
class TransformerDenoiser:
    """A backbone whose transformer sees clips.

    Attributes:
        backbone: the networks.
        state: read by the installed processors.
        chunks: the clip's windows over time, one call each.
        finite: looks for NaN and infinity in what the transformer returns.
    """

    backbone: TransformerBackbone
    state: AttentionState
    chunks: tuple[Chunk, ...]
    finite: FiniteCheck
    prompt_contexts: int = 1
    _projections: dict[tuple[TextConditioning, int], PromptProjections] = field(default_factory=dict)

    def recording_shapes(self, latents: Tensor, prompt: str) -> RecordingShapes:
        """What the size of a recording depends on, for latents F,C,h,w and the source prompt."""
        return RecordingShapes(
            sites=self.backbone.sites,
            latent_size=(latents.shape[-2], latents.shape[-1]),
            chunks=self.chunks,
            key_frames=len(self.chunks[0].frames),
            key_frames_min_width=0,
            text_tokens=self.backbone.read_prompt(prompt).places,
            itemsize=self.backbone.dtype.itemsize,
        )

    @torch.no_grad()
    def predict(
        self,
        branches: Branches,
        timestep: float,
        recorders: Sequence[Sequence[Recorder]] = (),
        fusion: Callable[[int, Chunk], CallFusion] | None = None,
        *,
        reuse: bool = False,
    ) -> Output:
        """The transformer's output for a whole clip: see `Denoiser`. Where windows overlap, their mean by distance.

        Raises:
            UserError: if the transformer has returned NaN or infinity.
        """
        assert not reuse  # see TransformerBackbone.check_method
        batch, networks = branches.batch, self.backbone.networks
        texts, guidance = tuple(branch.text for branch in batch), [branch.guidance for branch in batch]
        outputs = [torch.zeros_like(branch.latents) for branch in batch]
        for index, (chunk, weights) in enumerate(zip(self.chunks, window_weights(self.chunks), strict=True)):
            frames = list(chunk.frames)
            self.state.call = Call(
                branches=len(batch),
                frames=1,
                latent_size=(batch[0].latents.shape[-2], batch[0].latents.shape[-1]),
                recorders=[r[index] for r in recorders],
                fusion=fusion(index, chunk) if fusion else None,
                prompts_apart=[self._kept(text, timestep) for text in texts],
            )
            latents = torch.stack([branch.latents[frames] for branch in batch]).transpose(1, 2)
            predicted = networks.predict(latents.to(self.backbone.dtype), timestep, texts, guidance)
            share = torch.tensor(weights, dtype=torch.float64).to(outputs[0])[:, None, None, None]
            for output, part in zip(outputs, predicted.transpose(1, 2).to(outputs[0]), strict=True):
                output[frames] += share * part
        if branches.source is not None:
            outputs.pop(0)  # it is run for its attention
        self.finite.add(outputs, timestep)
        return Output(outputs[-1], outputs[0] if branches.unconditional is not None else None)

    def _kept(self, text: TextConditioning, timestep: float) -> tuple[PromptProjections, int]:
        """What is made of a prompt by the transformer of a timestep, and how many places it has."""
        stage = self.backbone.networks.stage(timestep)
        for done in [key for key in self._projections if key[1] != stage]:  # hundreds of MB a prompt in the largest
            del self._projections[done]
        return self._projections.setdefault((text, stage), PromptProjections()), text.hidden.shape[1]


@contextmanager
def transformer_denoiser(backbone: TransformerBackbone, chunks: tuple[Chunk, ...]) -> Iterator[TransformerDenoiser]:
    """Tap the transformer's attention; its own processors are put back afterwards.

    Raises:
        UserError: if its clips are split over processes by context parallelism, so that none has all of a map or mask.
    """
    state, networks = AttentionState(), backbone.networks
    if any(getattr(network, "_parallel_config", None) is not None for network in networks.transformers):
        raise UserError(
            f"{backbone.name} shares each clip's places out over processes (enable_parallelism), and masks need "
            "them all: load it without, and share out clips instead (--devices)."
        )
    finite = FiniteCheck(backbone.name, backbone.dtype)
    with ExitStack() as stack:
        stack.enter_context(attention_kernel(backbone.attention_kernel))
        processors = {site.name: networks.processor(site, state) for site in networks.sites}
        stack.enter_context(tapped(networks.transformers, processors))
        yield TransformerDenoiser(backbone, state, chunks, finite)
        finite.settle()
