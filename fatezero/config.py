"""What can be chosen, as frozen values: `None` or `()` means "off".

`MethodConfig` holds what changes the result, `RuntimeConfig` what may only change time and memory. A variant in
an ablation is `dataclasses.replace(full, …)`. Light on purpose: importing this needs no torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from numbers import Real
from typing import Literal

from fatezero.errors import UserError
from fatezero.system.terminal import quoted

StepWindow = tuple[float, float]  # [start, end) as fractions of the denoising steps
KeyFrame = int | Literal["self", "first", "middle", "last"]
ScheduleOwner = Literal["checkpoint", "adapter"]  # whose noise levels

ANCHORS = ("first", "middle", "last")


MAX_STEPS = 1000  # noise levels that checkpoints are trained on
MAX_GUIDANCE = 1000.0
MAX_DOWNSAMPLING = 1024
MAX_BLOCKS = 1000  # of a transformer
MAX_OVERLAP = 0.9  # of windows over time
MAX_WIDTH = 1_000_000  # channels of a layer
MAX_FRAMES = 1_000_000  # in one call, or away from a key frame
MAX_AVERAGES = 1000  # draws of noise in a step
MAX_FACTOR = 1000.0  # of a word's attention
MAX_LAYERS_SKIPPED = 100  # of a text encoder
MAX_PROMPT_CONTEXTS = 16  # aligning prompts takes the square of their length
GB = 1e9  # bytes
MAX_GB = 1e6
MAX_THREADS = max(1024, 4 * (os.cpu_count() or 1))  # far more end the process


def check_number(name: str, value: float | None, least: float, most: float) -> None:
    """Refuse what is no number between two bounds; None is left to mean "by default".

    Raises:
        UserError: for a number out of bounds, NaN, and what is no number.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real) or not least <= value <= most:
        bounds = f"at least {least:g}" if most == inf else f"from {least:g} to {most:g}"
        raise UserError(f"{name} is {quoted(value)}: it is a number {bounds}.")


def _check_window(name: str, window: StepWindow | None) -> None:
    if window is not None and not 0.0 <= window[0] <= window[1] <= 1.0:
        raise UserError(f"{name} is {quoted(tuple(window))}: a window is (start, end) with 0 <= start <= end <= 1.")


def _check_word(name: str, word: str) -> None:
    if not word.split():
        raise UserError(f"{name} names the word {quoted(word)}: give a word of the target prompt.")


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Attention fusion (FateZero, section 3.2; the word maps are Prompt-to-Prompt's).

    Attributes:
        word_map: "refine" aligns the prompts' tokens (any lengths), "replace" swaps word for word (equal counts).
        cross_window: steps in which cross-attention comes from the source as the word map says, as shares of all
            steps; None never.
        word_windows: other windows for single words of the target prompt.
        self_window: steps in which self-attention comes from the source, as shares of all steps; None never.
        reweight: factors for the cross-attention of words of the target prompt, inside their window.
        min_downsampling: fused layers are those at this downsampling of the latent or coarser. 2 is the original's
            choice at 512 x 512 (its 32 x 32 layers and below); 1 fuses every layer.
        temporal: in video models, fuse the attention over frames as well, in the steps of self_window.
    """

    word_map: Literal["refine", "replace"] = "refine"
    cross_window: StepWindow | None = (0.0, 0.8)
    word_windows: Mapping[str, StepWindow] = field(default_factory=dict)
    self_window: StepWindow | None = (0.0, 0.8)
    reweight: Mapping[str, float] = field(default_factory=dict)
    min_downsampling: int = 2
    temporal: bool = False

    def __post_init__(self) -> None:
        _check_window("fusion.cross_window", self.cross_window)
        _check_window("fusion.self_window", self.self_window)
        for word, window in self.word_windows.items():
            _check_word("fusion.word_windows", word)
            _check_window(f"fusion.word_windows[{quoted(word)}]", window)
        for word, factor in self.reweight.items():
            _check_word("fusion.reweight", word)
            check_number(f"fusion.reweight[{quoted(word)}]", factor, -MAX_FACTOR, MAX_FACTOR)
        check_number("fusion.min_downsampling", self.min_downsampling, 1, MAX_DOWNSAMPLING)


@dataclass(frozen=True, kw_only=True)
class BlendingConfig:
    """Masks from the source's cross-attention of the edited words (FateZero, "Attention Map Blending").

    Attributes:
        threshold: a place is edited where its attention exceeds this share of the frame's maximum (tau).
        self_attention: blend self-attention, M * edited + (1 - M) * source, while it is fused.
        latent_window: steps after which latents outside the mask are put back to the source's; None never.
        latent_words: whose words make the mask of latents: the source's alone, or the source's or the target's.
        mask_downsampling: masks come from the cross-attention at this downsampling of the latent. 4 is the
            original's choice (16 x 16 maps at 512 x 512); SDXL has cross-attention at 2 and 4.
        mask_blocks: of a transformer, the numbers of the blocks that masks come from; () is all. A UNet has none.
    """

    threshold: float = 0.3
    self_attention: bool = True
    latent_window: StepWindow | None = None
    latent_words: Literal["source", "both"] = "both"
    mask_downsampling: int = 4
    mask_blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_window("blending.latent_window", self.latent_window)
        check_number("blending.threshold", self.threshold, 0, 1)
        check_number("blending.mask_downsampling", self.mask_downsampling, 1, MAX_DOWNSAMPLING)
        for block in self.mask_blocks:
            check_number("blending.mask_blocks", block, 0, MAX_BLOCKS)


@dataclass(frozen=True, kw_only=True)
class FlowEditConfig:
    """FlowEdit (Kulikov et al. 2025): from the source straight to the edit, by the difference of two velocities.

    The velocity under the target prompt is guided by `guidance_scale`.

    Attributes:
        n_max: share of the steps that are walked; those of the noisiest levels are left out.
        n_min: share of the steps, the last ones, that denoise under the target prompt alone.
        n_avg: how many draws of noise each difference is averaged over.
        source_guidance: guidance scale of the velocity under the source prompt; 1 is no guidance.
    """

    n_max: float = 0.66
    n_min: float = 0.0
    n_avg: int = 1
    source_guidance: float = 3.5

    def __post_init__(self) -> None:
        check_number("flow_edit.n_max", self.n_max, 0, 1)
        check_number("flow_edit.n_min", self.n_min, 0, 1)
        check_number("flow_edit.n_avg", self.n_avg, 1, MAX_AVERAGES)
        check_number("flow_edit.source_guidance", self.source_guidance, 1, MAX_GUIDANCE)
        if not self.n_min < self.n_max:
            raise UserError(
                f"flow_edit.n_min is {self.n_min:g} and n_max {self.n_max:g}: between them FlowEdit edits; raise n_max."
            )


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Everything that changes the result.

    Attributes:
        steps: denoising steps, of the inversion and of the edit.
        guidance_scale: classifier-free guidance of the edit; 1 leaves the unconditional branch out.
        guidance_window: steps of the edit that are guided (Kynkäänniemi et al. 2024); in the others the prompt's
            prediction is taken as it is, and the unconditional branch is not run.
        guidance_every: of the guided steps, the unconditional branch runs in every n-th; between them the last
            difference between the branches guides again. 1 runs it in all.
        solver_order: 1 is DDIM, or Euler's moves of a flow; 2 also goes by the prediction of the step before,
            in the inversion and in the edit.
        feature_reuse: of the steps, every n-th computes the whole UNet; between them only its outermost level is
            computed, from the last deep features (DeepCache, Ma et al. 2024). Attention is fused in whole steps, and
            what was fused stays in the features that are reused. 1 computes all steps in whole.
        key_frames: frames that give keys and values of self-attention: "self", "first", "middle", "last", or an
            integer offset such as -1; () is the plain per-frame network.
        key_frames_min_width: layers with fewer channels attend to their own frame only.
        norm_scope: statistics of the residual blocks' GroupNorms: over the "clip" (the original code) or per
            "frame" (the image model as it was trained).
        posterior: the latent of a frame is the autoencoder posterior's "mode" or a seeded "sample".
        fusion: attention fusion; None is DDIM inversion with guidance alone.
        blending: masks from the edited words; None never blends.
        sdedit_strength: start from the source noised to this share of the schedule in place of its inversion
            (SDEdit, Meng et al. 2022); needs fusion and blending off.
        flow_edit: edit without inversion, by the difference of two velocities (FlowEdit); needs a model of flow
            matching, and fusion and blending off; None inverts.
        negative_prompt: text of the unconditional branch: what guidance leads away from.
        prompt_weights: read (word:1.2) in the target prompt as fusion.reweight of the word; otherwise it is text.
        prompt_contexts: contexts of the text encoder (75 tokens each) that a prompt may fill. Source, target and
            negative prompt are all read in so many, one by one, and the UNet attends to them side by side; a longer
            prompt is refused.
        window_frames: frames of a clip that a video transformer sees at once; None is the length that it was trained
            on. A longer clip is cut into windows over time that overlap, and what is predicted is averaged there.
        window_overlap: least share of a window that it has in common with the next one.
        autoencoder_tiling: encode and decode large frames in overlapping tiles that are blended at their seams, which
            takes less memory and changes the result there; the size of a tile is diffusers' own for the autoencoder.
    """

    steps: int = 50
    guidance_scale: float = 7.5
    guidance_window: StepWindow = (0.0, 1.0)
    guidance_every: int = 1
    solver_order: Literal[1, 2] = 1
    feature_reuse: int = 1
    key_frames: tuple[KeyFrame, ...] = ("self", "middle")
    key_frames_min_width: int = 0
    norm_scope: Literal["clip", "frame"] = "clip"
    posterior: Literal["mode", "sample"] = "mode"
    fusion: FusionConfig | None = FusionConfig()
    blending: BlendingConfig | None = BlendingConfig()
    sdedit_strength: float | None = None
    flow_edit: FlowEditConfig | None = None
    negative_prompt: str = ""
    prompt_weights: bool = False
    prompt_contexts: int = 1
    window_frames: int | None = None
    window_overlap: float = 0.5
    autoencoder_tiling: bool = False

    def __post_init__(self) -> None:
        check_number("steps", self.steps, 1, MAX_STEPS)
        check_number("guidance_scale (1 is no guidance, more is stronger)", self.guidance_scale, 1, MAX_GUIDANCE)
        _check_window("guidance_window", self.guidance_window)
        check_number("guidance_every", self.guidance_every, 1, MAX_STEPS)
        check_number("solver_order", self.solver_order, 1, 2)
        check_number("feature_reuse", self.feature_reuse, 1, MAX_STEPS)
        unguided = self.guidance_scale == 1 or self.guidance_window[0] == self.guidance_window[1]
        if self.negative_prompt and unguided:
            what = "guidance_scale 1" if self.guidance_scale == 1 else f"guidance_window {self.guidance_window}"
            raise UserError(
                f"negative_prompt is {quoted(self.negative_prompt)}, but {what} leaves the unconditional branch out: "
                f"{'raise guidance_scale' if self.guidance_scale == 1 else 'widen it'}, or give no negative_prompt."
            )
        check_number("prompt_contexts", self.prompt_contexts, 1, MAX_PROMPT_CONTEXTS)
        check_number("window_frames", self.window_frames, 1, MAX_FRAMES)
        check_number("window_overlap", self.window_overlap, 0, MAX_OVERLAP)
        check_number("key_frames_min_width", self.key_frames_min_width, 0, MAX_WIDTH)
        for frame in self.key_frames:
            if not isinstance(frame, str):
                check_number("key_frames", frame, -MAX_FRAMES, MAX_FRAMES)
        self._check_baselines()

    def _check_baselines(self) -> None:
        """What starts elsewhere than at the end of an inversion has no attention to fuse."""
        if self.sdedit_strength is not None:
            if not 0.0 < self.sdedit_strength <= 1.0:
                raise UserError(f"sdedit_strength is {self.sdedit_strength}: it lies in (0, 1].")
            if self.fusion is not None or self.blending is not None:
                raise UserError(
                    "sdedit_strength starts from noise, not from attention: set fusion and blending to null."
                )
        if self.flow_edit is not None:
            if self.fusion is not None or self.blending is not None or self.sdedit_strength is not None:
                raise UserError(
                    "flow_edit has no inversion whose attention could be fused: set fusion, blending and "
                    "sdedit_strength to null."
                )
            if self.solver_order != 1:
                raise UserError(
                    "flow_edit draws new noise for each step, so its moves are of order 1: set solver_order to 1."
                )
            if self.guidance_scale == 1 != self.flow_edit.source_guidance:
                raise UserError(
                    f"flow_edit.source_guidance is {self.flow_edit.source_guidance:g}, but guidance_scale 1 leaves the "
                    "unconditional branch out: raise guidance_scale, or set source_guidance to 1."
                )
            if self.plain_steps == self.edit_steps:
                raise UserError(
                    f"Of {self.steps} steps none lies between flow_edit.n_min {self.flow_edit.n_min:g} and n_max "
                    f"{self.flow_edit.n_max:g}: set them further apart, or take more steps."
                )

    @property
    def inverts(self) -> bool:
        """Whether an edit starts from the inversion of its source."""
        return self.sdedit_strength is None and self.flow_edit is None

    @property
    def edit_steps(self) -> int:
        """Steps that an edit walks: all but the noisiest ones of SDEdit and FlowEdit."""
        share = self.sdedit_strength if self.flow_edit is None else self.flow_edit.n_max
        return self.steps if share is None else max(1, round(share * self.steps))

    @property
    def plain_steps(self) -> int:
        """How many of FlowEdit's steps, the last ones, denoise under the target prompt alone."""
        return 0 if self.flow_edit is None else round(self.flow_edit.n_min * self.steps)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which networks edit.

    Attributes:
        model: "picturebook" or "picturebook-video", which are shipped; a folder in diffusers' layout (Stable
            Diffusion, SDXL, tuned or not, or a transformer such as Wan); a single *.safetensors file of Stable
            Diffusion 1.x, 2.x or SDXL; a hub id, perhaps with the path of a file behind it; or a file's address on the
            hub. "{clip}" in it is the name of each clip without its suffix: one model for each.
        motion_adapter: makes a video model of it: a folder in the layout of diffusers' MotionAdapter, a *.safetensors
            file of AnimateDiff, a hub id or file, or "picturebook-motion".
        weights_variant: the set of weights to read where a network has several, such as "fp16"; None takes the one that
            fits the dtype.
        prediction_type: what the UNet of a single file predicts, where the file does not say it.
        vae: an autoencoder in place of the model's own: a folder in diffusers' layout, a *.safetensors file, a hub id
            or file.
        lora: LoRA files that are added to the weights, each with its scale as FILE:0.7 (1 without one): safetensors of
            diffusers or kohya, or a folder that PEFT has saved.
        embedding: textual inversions (safetensors), each with the word that stands for it as FILE=<word>; without one
            it is the file's own, or the file's name. For SDXL a file with the vectors of both text encoders.
        clip_skip: layers of the text encoder that are left out at its end; 1 takes the last but one. As in diffusers,
            the unconditional branch keeps them all.
        schedule: whose noise levels are used: the "checkpoint"'s, or those that the motion "adapter" was trained with
            (what scheduler/scheduler_config.json in its folder states, else AnimateDiff's linear betas); by default
            the adapter's where there is one.
    """

    model: str = "picturebook"
    motion_adapter: str | None = None
    weights_variant: str | None = None
    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    vae: str | None = None
    lora: tuple[str, ...] = ()
    embedding: tuple[str, ...] = ()
    clip_skip: int = 0
    schedule: ScheduleOwner | None = None

    def __post_init__(self) -> None:
        check_number("clip_skip", self.clip_skip, 0, MAX_LAYERS_SKIPPED)
        if self.schedule == "adapter" and self.motion_adapter is None:
            raise UserError("schedule is 'adapter', and there is no motion adapter: give --motion-adapter too.")


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """What may change time and memory, never the result beyond rounding: equal values give equal bytes.

    Attributes:
        device: where the networks run; "auto" takes CUDA, then MPS, then the CPU.
        dtype: number format of the networks; "auto" is float16 on CUDA (bfloat16 for transformers) and float32
            elsewhere, whatever the CPU can do: equal requests give equal bytes. Latents, softmax and the statistics of
            norms keep at least float32, as do the autoencoder beside bfloat16, and SDXL's where its configuration says
            that it overflows in float16.
        layerwise_casting: of a transformer, store the layers' weights in float8 (e4m3) and cast them to dtype
            while their layer computes: half of half's memory, and a coarse rounding of the weights.
        group_offload: of a transformer, keep its weights and those of its text encoders in the host's memory
            and bring each block to the GPU while it computes; results are the same bytes.
        attention_kernel: kernel that computes attention, by diffusers' name ("flash", "sage", "flex", "_native_cudnn",
            …), which must be installed; None leaves the choice to torch.
        compile: have torch compile the UNet's residual blocks and feed-forward layers, once for each shape; what it
            made is kept between processes in torch's own cache (TORCHINDUCTOR_CACHE_DIR, a folder of the system's
            temporary one by default). It rounds otherwise.
        backend: where the source's attention comes from while editing: "recompute" runs the source again beside
            the edit, "qk" keeps its queries and keys, "maps" keeps the maps as the original does; "auto" is "qk"
            where it fits the budget, otherwise "recompute".
        store: where "qk" and "maps" keep their tensors.
        memory_gb: budget of each process for them in units of 1e9 bytes. "auto" goes by it alone, never by what is
            free, as backends round differently: equal requests give equal bytes.
        chunk: frames in one network call beside the anchors; None is 16 where frames meet only through anchors,
            otherwise the whole clip.
    """

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float16", "bfloat16", "float32", "float64"] = "auto"
    layerwise_casting: bool = False
    group_offload: bool = False
    attention_kernel: str | None = None
    compile: bool = False
    backend: Literal["auto", "recompute", "qk", "maps"] = "auto"
    store: Literal["device", "host", "disk"] = "host"
    memory_gb: float = 2.0
    chunk: int | None = None

    def __post_init__(self) -> None:
        check_number("chunk", self.chunk, 1, MAX_FRAMES)
        check_number("memory_gb", self.memory_gb, 0, MAX_GB)
