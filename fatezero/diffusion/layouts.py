"""Which folders in diffusers' layout are checkpoints: their parts, and the classes of these. Light: needs no torch.

Sizes are those that a model's card and diffusers' pipeline name; where the networks' configurations state one, that is
read instead (`checkpoint.native_size`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Parts = Mapping[str, tuple[str, tuple[str, ...]]]  # by part: the library and its classes

SCHEDULERS = (
    *("DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler"),
    *("EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler"),
    *("KDPM2AncestralDiscreteScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"),
    *("DEISMultistepScheduler", "UniPCMultistepScheduler", "LCMScheduler", "TCDScheduler"),
)
FLOW_EULER = "FlowMatchEulerDiscreteScheduler"
FLOW_UNIPC = "UniPCMultistepScheduler"  # of flows where its configuration says so
MOTION_ADAPTER = "MotionAdapter"
ADAPTER_STEM = "diffusion_pytorch_model"
# Of every part that has weights, the name of their file before ".safetensors".
STEMS = {
    **dict.fromkeys(("unet", "transformer", "transformer_2", "vae"), ADAPTER_STEM),
    **dict.fromkeys(("text_encoder", "text_encoder_2", "text_encoder_3"), "model"),
}
# The text encoder that reads a tokenizer's tokens.
ENCODER_OF = {
    "tokenizer": "text_encoder",
    "tokenizer_2": "text_encoder_2",
    "tokenizer_3": "text_encoder_3",
}
_CLIP_TOKENIZER = ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast"))
_ANY_TOKENIZER = ("PreTrainedTokenizerFast", "TokenizersBackend")  # one class, of old and of new name
_T5_TOKENIZER = ("transformers", ("T5Tokenizer", "T5TokenizerFast", *_ANY_TOKENIZER))
_LLAMA_TOKENIZER = ("transformers", ("LlamaTokenizer", "LlamaTokenizerFast", *_ANY_TOKENIZER))
_CLIP = ("transformers", ("CLIPTextModel",))
_PROJECTED_CLIP = ("transformers", ("CLIPTextModelWithProjection",))
_T5 = ("transformers", ("T5EncoderModel",))
_KL = ("diffusers", ("AutoencoderKL",))
_FLOW = ("diffusers", (FLOW_EULER,))
# Parts that are loaded, and those that a checkpoint may have beside them.
PARTS: Parts = {
    "unet": ("diffusers", ("UNet2DConditionModel", "UNetMotionModel")),
    "vae": ("diffusers", ("AutoencoderKL", "AutoencoderTiny")),
    "text_encoder": _CLIP,
    "tokenizer": _CLIP_TOKENIZER,
    "scheduler": ("diffusers", SCHEDULERS),
}
_TWO_ENCODERS: Parts = {"text_encoder_2": _PROJECTED_CLIP, "tokenizer_2": _CLIP_TOKENIZER}
_OF_IMAGES: Parts = {
    "image_encoder": ("transformers", ("CLIPVisionModelWithProjection", "SiglipVisionModel")),
    "feature_extractor": (
        "transformers",
        ("CLIPFeatureExtractor", "CLIPImageProcessor", "CLIPImageProcessorFast", "SiglipImageProcessor"),
    ),
}
LEFT_ASIDE: Parts = {
    "safety_checker": ("stable_diffusion", ("StableDiffusionSafetyChecker",)),
    "motion_adapter": ("diffusers", (MOTION_ADAPTER,)),
    **_OF_IMAGES,
}
# Places and prompt attend in one softmax: the prompt's part stays the edit's own, and for a fifth of the steps the
# places' comes from the source, as Shin et al. (ICCV 2025) have it.
_JOINT_TRANSFORMER: Mapping[str, Any] = {
    "key_frames": ["self"],
    "norm_scope": "frame",
    "fusion.cross_window": None,
    "fusion.self_window": [0.0, 0.2],
    "fusion.min_downsampling": 1,
    "blending.threshold": 0.3,
    "blending.mask_downsampling": 2,
}
# No key frames, as each place sees all frames; masks at the scale of its patches, which differs between families.
_VIDEO_TRANSFORMER: Mapping[str, Any] = {
    "key_frames": ["self"],
    "norm_scope": "frame",
    "guidance_scale": 5.0,
    "fusion.min_downsampling": 1,
}


@dataclass(frozen=True, eq=False)
class Family:
    """Checkpoints of one layout; equal to itself alone.

    Attributes:
        name: as people say it.
        pipelines: diffusers' classes; the first stands for all, whose parts are the same.
        parts: that are loaded.
        optional: that are loaded where a checkpoint has them.
        left_aside: that a checkpoint may have, and that are not loaded.
        animated: of a UNet's, the pipeline of video models.
        addition: what a UNet is told beside prompt and timestep: its `addition_embed_type`.
        flow: whether it carries data to noise along straight lines (flow matching).
        dynamic_shift: whether its pipeline can shift noise levels by the number of tokens.
        side: short side in pixels that its authors train at.
        frames: length of the clips that its authors train on; 1 for images.
        settings: dotted names of MethodConfig's fields with what is plain for it, where the original's is not.
    """

    name: str
    pipelines: tuple[str, ...]
    parts: Parts
    optional: Parts = field(default_factory=dict)
    left_aside: Parts = field(default_factory=dict)
    animated: str | None = None
    addition: str | None = None
    flow: bool = False
    dynamic_shift: bool = False
    side: int = 512
    frames: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def denoiser(self) -> str:
        """The part that denoises: "unet" or "transformer"."""
        return "unet" if "unet" in self.parts else "transformer"

    @property
    def half(self) -> str:
        """The half precision that its networks are made for: transformers are published in bfloat16."""
        return "float16" if self.denoiser == "unet" else "bfloat16"

    @property
    def two_encoders(self) -> bool:
        """Whether it has a UNet and two text encoders, as SDXL."""
        return self.denoiser == "unet" and "text_encoder_2" in self.parts


STABLE_DIFFUSION = Family(
    "Stable Diffusion 1.x or 2.x",
    (
        *("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"),
        *("LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline"),
    ),
    PARTS,
    left_aside=LEFT_ASIDE,
    animated="AnimateDiffPipeline",
)
SDXL = Family(
    "SDXL",
    ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"),
    {**PARTS, **_TWO_ENCODERS},
    left_aside=LEFT_ASIDE,
    animated="AnimateDiffSDXLPipeline",
    addition="text_time",
    side=1024,
)
WAN = Family(
    "Wan",
    ("WanPipeline", "WanVideoToVideoPipeline"),
    {
        "transformer": ("diffusers", ("WanTransformer3DModel",)),
        "vae": ("diffusers", ("AutoencoderKLWan",)),
        "text_encoder": ("transformers", ("UMT5EncoderModel",)),
        "tokenizer": _T5_TOKENIZER,
        "scheduler": ("diffusers", (FLOW_UNIPC, FLOW_EULER)),
    },
    optional={"transformer_2": ("diffusers", ("WanTransformer3DModel",))},
    flow=True,
    side=480,
    frames=81,
    settings={**_VIDEO_TRANSFORMER, "blending.mask_downsampling": 2},
)
LTX = Family(
    "LTX-Video",
    ("LTXPipeline", "LTXConditionPipeline", "LTXImageToVideoPipeline"),
    {
        "transformer": ("diffusers", ("LTXVideoTransformer3DModel",)),
        "vae": ("diffusers", ("AutoencoderKLLTXVideo",)),
        "text_encoder": _T5,
        "tokenizer": _T5_TOKENIZER,
        "scheduler": _FLOW,
    },
    flow=True,
    dynamic_shift=True,
    side=512,
    frames=161,
    settings={**_VIDEO_TRANSFORMER, "guidance_scale": 3.0, "blending.mask_downsampling": 1},
)
COGVIDEOX = Family(
    "CogVideoX",
    ("CogVideoXPipeline", "CogVideoXVideoToVideoPipeline"),
    {
        "transformer": ("diffusers", ("CogVideoXTransformer3DModel",)),
        "vae": ("diffusers", ("AutoencoderKLCogVideoX",)),
        "text_encoder": _T5,
        "tokenizer": _T5_TOKENIZER,
        "scheduler": ("diffusers", ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")),
    },
    side=480,
    frames=49,
    settings={**_JOINT_TRANSFORMER, "guidance_scale": 6.0},
)
HUNYUAN_VIDEO = Family(
    "HunyuanVideo",
    ("HunyuanVideoPipeline",),
    {
        "transformer": ("diffusers", ("HunyuanVideoTransformer3DModel",)),
        "vae": ("diffusers", ("AutoencoderKLHunyuanVideo",)),
        "text_encoder": ("transformers", ("LlamaModel",)),
        "tokenizer": _LLAMA_TOKENIZER,
        "text_encoder_2": _CLIP,
        "tokenizer_2": _CLIP_TOKENIZER,
        "scheduler": _FLOW,
    },
    flow=True,
    side=720,
    frames=129,
    settings={**_JOINT_TRANSFORMER, "guidance_scale": 6.0},
)
STABLE_DIFFUSION_3 = Family(
    "Stable Diffusion 3.x",
    ("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
    {
        "transformer": ("diffusers", ("SD3Transformer2DModel",)),
        "vae": _KL,
        "text_encoder": _PROJECTED_CLIP,
        "tokenizer": _CLIP_TOKENIZER,
        **_TWO_ENCODERS,
        "scheduler": _FLOW,
    },
    optional={"text_encoder_3": _T5, "tokenizer_3": _T5_TOKENIZER},
    left_aside=_OF_IMAGES,
    flow=True,
    dynamic_shift=True,
    side=1024,
    settings={**_JOINT_TRANSFORMER, "guidance_scale": 7.0},
)
FLUX = Family(
    "Flux",
    ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
    {
        "transformer": ("diffusers", ("FluxTransformer2DModel",)),
        "vae": _KL,
        "text_encoder": _CLIP,
        "tokenizer": _CLIP_TOKENIZER,
        "text_encoder_2": _T5,
        "tokenizer_2": _T5_TOKENIZER,
        "scheduler": _FLOW,
    },
    left_aside=_OF_IMAGES,
    flow=True,
    dynamic_shift=True,
    side=1024,
    settings={**_JOINT_TRANSFORMER, "guidance_scale": 3.5},
)
FAMILIES = (STABLE_DIFFUSION, SDXL, WAN, LTX, COGVIDEOX, HUNYUAN_VIDEO, STABLE_DIFFUSION_3, FLUX)
FAMILY_OF = {
    pipeline: family for family in FAMILIES for pipeline in (*family.pipelines, family.animated) if pipeline is not None
}


@dataclass(frozen=True)
class Layout:
    """What a checkpoint is made of.

    Attributes:
        pipeline: class of diffusers that its model_index.json names.
        classes: class by part, of the parts that it has.
        zeros_for_empty_prompt: SDXL's unconditional branch is told zeros.
        boundary_ratio: share of the noise levels below which Wan's second transformer denoises; None without one.
        expand_timesteps: whether Wan's transformer is told a timestep for each token.
    """

    pipeline: str
    classes: Mapping[str, str]
    zeros_for_empty_prompt: bool = True
    boundary_ratio: float | None = None
    expand_timesteps: bool = False

    @property
    def family(self) -> Family:
        """The family that the pipeline is of."""
        return FAMILY_OF[self.pipeline]

    @property
    def animated(self) -> bool:
        """Whether it is a UNet's video model."""
        return self.pipeline == self.family.animated

    @property
    def has_unet(self) -> bool:
        """Whether a UNet denoises, and no transformer."""
        return self.family.denoiser == "unet"

    @property
    def stems(self) -> dict[str, str]:
        """Of its networks, the name of the weights' file before ".safetensors"."""
        return {part: stem for part, stem in STEMS.items() if part in self.classes}

    @property
    def tokenizers(self) -> dict[str, str]:
        """Of its tokenizers, the part of the text encoder that reads their tokens."""
        return {part: encoder for part, encoder in ENCODER_OF.items() if part in self.classes}
