"""Networks without weights, called once: whether what comes out has the size of what went in.

On the "meta" device, where a call takes neither memory nor time to speak of.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fatezero.diffusion.checkpoint import frames_per_latent, pixels_per_latent
from fatezero.diffusion.layouts import MOTION_ADAPTER
from fatezero.diffusion.texts import SIZES_TOLD

TRIAL_SIDE = 64  # of a UNet's latents: a multiple of every level's
TOKENS = 2  # of text
MAX_RATIO = 64  # of pixels or frames to latents; 32 and 8 in LTX-Video


def gives_what_it_takes(empty: Any, class_name: str) -> bool:
    """Call a network on the "meta" device; whether rows and columns come out as they went in.

    Args:
        empty: on the "meta" device.
        class_name: its own.
    """
    if class_name == MOTION_ADAPTER:  # has no call of its own
        return True
    if class_name.startswith("Autoencoder"):
        return _autoencoder(empty, class_name)
    if class_name.startswith("UNet"):
        return _unet(empty, class_name)
    if class_name in TRANSFORMERS:
        return TRANSFORMERS[class_name](empty)
    return bool(empty(torch.zeros(1, TOKENS, dtype=torch.long)).last_hidden_state.shape[1] == TOKENS)


def _autoencoder(empty: Any, class_name: str) -> bool:
    unit, length = pixels_per_latent(empty.config), frames_per_latent(empty.config)
    images = class_name in {"AutoencoderKL", "AutoencoderTiny"}
    if not images and not (0 < unit <= MAX_RATIO and 0 < length <= MAX_RATIO):  # which would take long to try
        return False
    side = TRIAL_SIDE if images else 2
    given = torch.zeros(1, 3, *(() if images else (1 + 2 * length,)), unit * side, unit * side)
    encoded = empty.encode(given)
    latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    told = {"temb": torch.zeros(1)} if getattr(empty.config, "timestep_conditioning", False) else {}
    shape = latents.shape[-1:] if images else latents.shape[-3::2]
    wanted = (side,) if images else (3, side)
    return bool(tuple(shape) == wanted and empty.decode(latents, **told).sample.shape == given.shape)


def _unet(empty: Any, class_name: str) -> bool:
    frames = (1,) if class_name == "UNetMotionModel" else ()
    given = torch.zeros(1, empty.config.in_channels, *frames, TRIAL_SIDE, TRIAL_SIDE)
    text = torch.zeros(1, TOKENS, empty.config.encoder_hid_dim or empty.config.cross_attention_dim)
    added = _trial_addition(empty.config) if empty.config.addition_embed_type == "text_time" else None
    return bool(empty(given, 1, text, added_cond_kwargs=added).sample.shape[2:] == given.shape[2:])


def _trial_addition(config: Any) -> dict[str, Tensor]:
    """What a UNet of SDXL is told beside the prompt: sizes, and the pooled text that its width leaves room for."""
    pooled = config.projection_class_embeddings_input_dim - SIZES_TOLD * config.addition_time_embed_dim
    return {"text_embeds": torch.zeros(1, pooled), "time_ids": torch.zeros(1, SIZES_TOLD)}


def _wan(empty: Any) -> bool:
    config = empty.config
    length, height, width = config.patch_size
    given = torch.zeros(1, config.in_channels, length, 2 * height, 2 * width)
    made = empty(given, torch.ones(1, dtype=torch.long), torch.zeros(1, TOKENS, config.text_dim)).sample
    return bool(made.shape == (1, config.out_channels, *given.shape[2:]))


def _ltx(empty: Any) -> bool:
    config = empty.config
    given, text = torch.zeros(1, 4, config.in_channels), torch.zeros(1, TOKENS, config.caption_channels)
    made = empty(
        given, text, torch.ones(1), encoder_attention_mask=torch.ones(1, TOKENS), num_frames=1, height=2, width=2
    ).sample
    return bool(made.shape == (1, 4, config.out_channels))


def _cogvideox(empty: Any) -> bool:
    """At the size that its places were learnt for."""
    config = empty.config
    length = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
    length += -length % (config.patch_size_t or 1)
    given = torch.zeros(1, length, config.in_channels, config.sample_height, config.sample_width)
    told = {"ofs": torch.ones(1)} if config.ofs_embed_dim else {}
    text = torch.zeros(1, config.max_text_seq_length, config.text_embed_dim)
    return bool(empty(given, text, torch.ones(1), **told).sample.shape[-2:] == given.shape[-2:])


def _hunyuan_video(empty: Any) -> bool:
    config = empty.config
    side = 2 * config.patch_size
    given = torch.zeros(1, config.in_channels, config.patch_size_t, side, side)
    text = torch.zeros(1, TOKENS, config.text_embed_dim)
    pooled = torch.zeros(1, config.pooled_projection_dim)
    guidance = torch.ones(1) if config.guidance_embeds else None
    time = torch.ones(1, dtype=torch.long)
    made = empty(given, time, text, torch.ones(1, TOKENS), pooled, guidance=guidance).sample
    return bool(made.shape == (1, config.out_channels, *given.shape[2:]))


def _stable_diffusion_3(empty: Any) -> bool:
    config = empty.config
    given = torch.zeros(1, config.in_channels, 2 * config.patch_size, 2 * config.patch_size)
    text = torch.zeros(1, TOKENS, config.joint_attention_dim)
    made = empty(given, text, torch.zeros(1, config.pooled_projection_dim), torch.ones(1)).sample
    return bool(made.shape == (1, config.out_channels, *given.shape[2:]))


def _flux(empty: Any) -> bool:
    config = empty.config
    given, text = torch.zeros(1, 4, config.in_channels), torch.zeros(1, TOKENS, config.joint_attention_dim)
    pooled, places = torch.zeros(1, config.pooled_projection_dim), (torch.zeros(4, 3), torch.zeros(TOKENS, 3))
    guidance = torch.ones(1) if config.guidance_embeds else None
    return bool(empty(given, text, pooled, torch.ones(1), *places, guidance).sample.shape == given.shape)


TRANSFORMERS = {
    "WanTransformer3DModel": _wan,
    "LTXVideoTransformer3DModel": _ltx,
    "CogVideoXTransformer3DModel": _cogvideox,
    "HunyuanVideoTransformer3DModel": _hunyuan_video,
    "SD3Transformer2DModel": _stable_diffusion_3,
    "FluxTransformer2DModel": _flux,
}
