"""Tiny pipelines of diffusion transformers with random weights, by diffusers' own classes.

Norms have weights of their own, so that a query taken before its norm is another than after it; prompts and words tell
apart. Sides of frames are multiples of 16 pixels (of 32 for LTX), clips have 4k + 1 frames (8k + 1 for LTX).
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

TEXT_WIDTH, CLIP_WIDTH = 32, 16
CLIP_TOKENIZER = Path(__file__).parent / "golden" / "model" / "tokenizer"
WORDS = (
    *("a", "the", "in", "on", "jeep", "bus", "car", "cat", "dog", "road", "snow", "red", "blue", "silver", "driving"),
    *("walking", "down", "watercolor", "painting", "of", "man", "woman", "tree", "ball", "circle", "square"),
)
# Layers by which a transformer is told of the text.
HEARD = (".attn2.to_out", ".attn2.to_v", ".add_v_proj", ".to_add_out", "context_embedder", "text_proj")
ENDINGS = ("s", "ing", "ed", "er", "color")


def saved(pipeline: Any, folder: Path) -> Path:
    """A pipeline as a folder in diffusers' layout."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def t5_tokenizer() -> T5Tokenizer:
    """Whole words for `WORDS`, pieces and letters for all others; `</s>` ends a text."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(f"▁{word}", -3.0 - index / 100) for index, word in enumerate(WORDS)]
    endings = [(ending, -5.0 - index / 100) for index, ending in enumerate(ENDINGS) if len(ending) > 1]
    characters = string.ascii_letters + string.digits + string.punctuation
    letters = [("▁", -4.0)] + [(letter, -8.0) for letter in characters]
    return T5Tokenizer(vocab=special + words + endings + letters, extra_ids=0, model_max_length=512)


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE as Llama 3's: HunyuanVideo's template before a prompt has its 95 tokens."""
    special = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<pad>",
    ]
    made = Tokenizer(models.BPE())
    cuts = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in (r"\s*[\r\n]+", r"\p{N}{1,3}")]
    made.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    texts = [DEFAULT_PROMPT_TEMPLATE["template"], " ".join(WORDS), "".join(f" {word}" for word in WORDS)]
    made.train_from_iterator(texts * 2, trainer)
    begin = made.token_to_id("<|begin_of_text|>")
    made.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=special[0], eos_token=special[1], pad_token=special[-1], model_max_length=512
    )


def clip_tokenizer() -> CLIPTokenizer:
    """The golden model's."""
    return CLIPTokenizer.from_pretrained(CLIP_TOKENIZER)


def _t5(umt5: bool = False) -> Any:
    shape: dict[str, Any] = {
        **{"vocab_size": len(t5_tokenizer()), "d_model": TEXT_WIDTH, "d_kv": 8, "d_ff": 48, "num_layers": 2},
        **{"num_heads": 4, "relative_attention_num_buckets": 8, "feed_forward_proj": "gated-gelu"},
    }
    return _lively(UMT5EncoderModel(UMT5Config(**shape)) if umt5 else T5EncoderModel(T5Config(**shape)))


def _clip(*, projected: bool = False) -> Any:
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=CLIP_WIDTH, intermediate_size=2 * CLIP_WIDTH, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=77, projection_dim=CLIP_WIDTH // 2,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    made = CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)
    for name, value in made.named_parameters():  # the library's first weights hardly tell prompts apart
        if "embedding" in name:
            nn.init.normal_(value)
    return _lively(made)


def _llama() -> Any:
    tokenizer = llama_tokenizer()
    return _lively(
        LlamaModel(
            LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=32, num_hidden_layers=4,
                num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3,
                pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
    )  # fmt: skip


def _lively(network: nn.Module) -> Any:
    """Random weights in place of the ones and zeros that norms begin with, and a text that is heard."""
    network.requires_grad_(requires_grad=False).eval()
    for name, value in network.named_parameters():
        if "norm" in name and value.ndim == 1:
            lowest, highest = (1, 3) if "norm_q" in name else (0.5, 1.5)  # a sharper attention
            weight = name.endswith(("weight", "gamma"))
            nn.init.uniform_(value, lowest, highest) if weight else nn.init.normal_(value, std=0.1)
        elif any(heard in name for heard in HEARD):
            value.mul_(4)
    return network


def _wan_transformer(**changes: Any) -> WanTransformer3DModel:
    shape: dict[str, Any] = {
        **{"num_attention_heads": 3, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "num_layers": 2},
        **{"text_dim": TEXT_WIDTH, "freq_dim": 32, "ffn_dim": 64, "rope_max_seq_len": 64},
    }
    made: WanTransformer3DModel = _lively(WanTransformer3DModel(**(shape | changes)))
    return made


def _wan_vae(**changes: Any) -> AutoencoderKLWan:
    shape: dict[str, Any] = {
        **{"base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 2, 2], "num_res_blocks": 1},
        **{"latents_mean": [-0.3, 0.1, 0.4, -0.2], "latents_std": [0.8, 1.3, 1.1, 0.9]},
    }
    made: AutoencoderKLWan = _lively(AutoencoderKLWan(**(shape | changes)))
    return made


def flow_unipc(**changes: Any) -> UniPCMultistepScheduler:
    """The scheduler that Wan comes with."""
    return UniPCMultistepScheduler(
        **({"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0} | changes)
    )


def tiny_wan(**parts: Any) -> WanPipeline:
    """Wan 2.1: latents of 4 channels, a frame for 4 and a row for 8; patches of 2 x 2.

    Args:
        parts: in place of its own.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "text_encoder": _t5(umt5=True),
            "transformer": _wan_transformer(),
            "vae": _wan_vae(),
        }
    return WanPipeline(**({"tokenizer": t5_tokenizer(), "scheduler": flow_unipc()} | made | parts))


def tiny_wan_in_two_stages() -> WanPipeline:
    """Wan 2.2 A14B: a second transformer below 0.875 of the noise levels."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return tiny_wan(transformer_2=_wan_transformer(), boundary_ratio=0.875)


def tiny_wan_of_patches() -> WanPipeline:
    """Wan 2.2 TI2V-5B: an autoencoder of 16 pixels a row, and a timestep told for each token."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        vae = _wan_vae(
            z_dim=6, is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16,
            decoder_base_dim=6, latents_mean=[0.1, -0.2, 0.3, 0.0, 0.2, -0.1],
            latents_std=[0.9, 1.1, 1.2, 0.8, 1.0, 0.7],
        )  # fmt: skip
        transformer = _wan_transformer(in_channels=6, out_channels=6)
        return tiny_wan(vae=vae, transformer=transformer, expand_timesteps=True, scheduler=flow_unipc(flow_shift=5.0))


def flow_euler(**changes: Any) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler of the other flows."""
    return FlowMatchEulerDiscreteScheduler(**({"shift": 3.0} | changes))


def tiny_ltx(**parts: Any) -> LTXPipeline:
    """LTX-Video: latents of 8 channels, a frame for 8 and a row for 32; patches of one."""
    levels = (8, 8, 8, 8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "text_encoder": _t5(),
            "transformer": _lively(
                LTXVideoTransformer3DModel(
                    in_channels=8, out_channels=8, num_attention_heads=3, attention_head_dim=8, cross_attention_dim=24,
                    num_layers=2, caption_channels=TEXT_WIDTH,
                )
            ),
            "vae": _lively(
                AutoencoderKLLTXVideo(
                    latent_channels=8, block_out_channels=levels, decoder_block_out_channels=levels,
                    layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5,
                )
            ),
        }  # fmt: skip
    scheduler = flow_euler(shift=1.0, use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1)
    return LTXPipeline(**({"tokenizer": t5_tokenizer(), "scheduler": scheduler} | made | parts))


def tiny_cogvideox(*, rotary: bool = True, **parts: Any) -> CogVideoXPipeline:
    """CogVideoX: latents of 4 channels, a frame for 4 and a row for 8; patches of 2 x 2; 32 tokens of text.

    Args:
        rotary: places are told by rotations, as in its 5B, and not added, as in its 2B.
        parts: in place of its own.
    """
    levels = (8, 8, 8, 8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "text_encoder": _t5(),
            "transformer": _lively(
                CogVideoXTransformer3DModel(
                    num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=16,
                    text_embed_dim=TEXT_WIDTH, num_layers=2, sample_width=8, sample_height=8, sample_frames=9,
                    max_text_seq_length=32, use_rotary_positional_embeddings=rotary,
                )
            ),
            "vae": _lively(
                AutoencoderKLCogVideoX(
                    latent_channels=4, block_out_channels=levels, layers_per_block=1, norm_num_groups=4,
                    sample_height=64, sample_width=64, scaling_factor=0.7,
                )
            ),
        }  # fmt: skip
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
        snr_shift_scale=1.0 if rotary else 3.0,
    )  # fmt: skip
    return CogVideoXPipeline(**({"tokenizer": t5_tokenizer(), "scheduler": scheduler} | made | parts))


def tiny_hunyuan_video(**parts: Any) -> HunyuanVideoPipeline:
    """HunyuanVideo: latents of 4 channels, a frame for 4 and a row for 8; patches of 2 x 2; it is told the guidance."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "text_encoder": _llama(),
            "text_encoder_2": _clip(),
            "transformer": _lively(
                HunyuanVideoTransformer3DModel(
                    in_channels=4, out_channels=4, num_attention_heads=3, attention_head_dim=8, num_layers=2,
                    num_single_layers=2, num_refiner_layers=1, mlp_ratio=1.0, text_embed_dim=TEXT_WIDTH,
                    pooled_projection_dim=CLIP_WIDTH, rope_axes_dim=(4, 2, 2),
                )
            ),
            "vae": _lively(
                AutoencoderKLHunyuanVideo(
                    latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
                )
            ),
        }  # fmt: skip
    own = {"tokenizer": llama_tokenizer(), "tokenizer_2": clip_tokenizer(), "scheduler": flow_euler(shift=7.0)}
    return HunyuanVideoPipeline(**(own | made | parts))


def _image_vae() -> Any:
    return _lively(
        AutoencoderKL(
            block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4, latent_channels=4, scaling_factor=1.5,
            shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False, force_upcast=False,
        )
    )  # fmt: skip


def tiny_stable_diffusion_3(*, t5: bool = True, **parts: Any) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5: latents of 4 channels, a row for 8; patches of 2 x 2; a second self-attention in a block.

    Args:
        t5: whether it has its third text encoder.
        parts: in place of its own.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "text_encoder": _clip(projected=True),
            "text_encoder_2": _clip(projected=True),
            "text_encoder_3": _t5() if t5 else None,
            "transformer": _lively(
                SD3Transformer2DModel(
                    sample_size=16, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
                    num_attention_heads=3, joint_attention_dim=TEXT_WIDTH, caption_projection_dim=24,
                    pooled_projection_dim=CLIP_WIDTH, pos_embed_max_size=24, dual_attention_layers=(0,),
                    qk_norm="rms_norm",
                )
            ),
            "vae": _image_vae(),
        }  # fmt: skip
    tokenizers = {"tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer()}
    own = tokenizers | {"tokenizer_3": t5_tokenizer() if t5 else None, "scheduler": flow_euler(shift=3.0)}
    return StableDiffusion3Pipeline(**(own | made | parts))


def tiny_flux(*, guidance: bool = True, **parts: Any) -> FluxPipeline:
    """Flux: latents of 4 channels, a row for 8, packed by 2 x 2.

    Args:
        guidance: it is told the guidance scale, as Flux dev, or not, as Flux schnell.
        parts: in place of its own.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "text_encoder": _clip(),
            "text_encoder_2": _t5(),
            "transformer": _lively(
                FluxTransformer2DModel(
                    in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=8, num_attention_heads=3,
                    joint_attention_dim=TEXT_WIDTH, pooled_projection_dim=CLIP_WIDTH, guidance_embeds=guidance,
                    axes_dims_rope=(4, 2, 2),
                )
            ),
            "vae": _image_vae(),
        }  # fmt: skip
    own = {"tokenizer": clip_tokenizer(), "tokenizer_2": t5_tokenizer()}
    return FluxPipeline(**(own | {"scheduler": flow_euler(use_dynamic_shifting=guidance, shift=3.0)} | made | parts))
