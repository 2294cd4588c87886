"""A transformer's checkpoint as a backbone, by its family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fatezero.attention.kernels import check_kernel
from fatezero.config import RuntimeConfig
from fatezero.diffusion.additions import tuned_lora
from fatezero.diffusion.checkpoint import Checkpoint, family_in, native_frames
from fatezero.diffusion.devices import choose_device, choose_dtype
from fatezero.diffusion.layouts import COGVIDEOX, FLUX, HUNYUAN_VIDEO, LTX, STABLE_DIFFUSION_3, WAN, Family
from fatezero.diffusion.lora import add_loras
from fatezero.diffusion.matching_parts import check_transformer_parts
from fatezero.diffusion.memory_switches import cast_layers, check_switches, offload_groups
from fatezero.diffusion.model_families.cogvideox import CogVideoXNetworks
from fatezero.diffusion.model_families.flux import FluxNetworks
from fatezero.diffusion.model_families.hunyuan_video import HunyuanVideoNetworks
from fatezero.diffusion.model_families.ltx import LTXNetworks
from fatezero.diffusion.model_families.sd3 import StableDiffusion3Networks
from fatezero.diffusion.model_families.transformer import TransformerBackbone, TransformerNetworks
from fatezero.diffusion.model_families.wan import WanNetworks
from fatezero.diffusion.number_formats import slow_format
from fatezero.diffusion.onednn import use_onednn
from fatezero.diffusion.pipeline_loading import load_pipeline
from fatezero.errors import UserError

NETWORKS: dict[str, Callable[[str, Any], TransformerNetworks]] = {
    WAN.name: WanNetworks,
    LTX.name: LTXNetworks,
    COGVIDEOX.name: CogVideoXNetworks,
    HUNYUAN_VIDEO.name: HunyuanVideoNetworks,
    STABLE_DIFFUSION_3.name: StableDiffusion3Networks,
    FLUX.name: FluxNetworks,
}


def load_transformer(found: Checkpoint, runtime: RuntimeConfig) -> TransformerBackbone:
    """Load a checkpoint whose denoising network is a transformer.

    Raises:
        UserError: if it cannot be loaded, or what is asked of the machine is not there.
    """
    device = choose_device(runtime.device)
    family, name = family_in(found.folder), found.networks.model
    dtype = choose_dtype(runtime.dtype, device, family.half)
    if runtime.compile:
        raise UserError("--compile is for UNets: leave it out for a transformer.")
    check_kernel(runtime.attention_kernel)
    check_switches(runtime, device)
    networks = networks_of(family)
    pipe = load_pipeline(found.folder, dtype, variant=found.networks.weights_variant, vae=found.vae)
    check_transformer_parts(family, pipe.components, name)
    add_loras(pipe, (*tuned_lora(found.folder), *found.additions.loras))
    return transformer_backbone(networks(name, pipe), found, runtime, native_frames(found.folder)[0])


def transformer_backbone(
    networks: TransformerNetworks, found: Checkpoint, runtime: RuntimeConfig, trained_frames: int
) -> TransformerBackbone:
    """Put a pipeline's networks where they compute, in the formats that are asked for.

    Args:
        networks: on the CPU, in their dtype.
        found: the files that they were loaded from.
        runtime: how they run.
        trained_frames: length of the clips that they were trained on.
    """
    device, transformers, encoders = choose_device(runtime.device), networks.transformers, networks.text_encoders
    dtype: torch.dtype = transformers[0].dtype
    for part in (networks.autoencoder, *transformers, *encoders):
        part.requires_grad_(requires_grad=False).eval()
        use_onednn(part)
    if runtime.layerwise_casting:
        cast_layers(transformers, dtype)
    if runtime.group_offload:
        offload_groups(transformers, encoders, device)
    for part in (networks.autoencoder,) if runtime.group_offload else (networks.autoencoder, *transformers, *encoders):
        part.to(device)
    return TransformerBackbone(
        checkpoint=found,
        networks=networks,
        trained_frames=trained_frames,
        notes=slow_format(dtype, device),
        attention_kernel=runtime.attention_kernel,
        layerwise_casting=runtime.layerwise_casting,
    )


def networks_of(family: Family) -> Callable[[str, Any], TransformerNetworks]:
    """What brings a family's networks.

    Raises:
        UserError: if this project cannot edit with it yet.
    """
    if family.name not in NETWORKS:
        raise UserError(f"{family.name} is not a model that FateZero edits with: use one of {', '.join(NETWORKS)}.")
    return NETWORKS[family.name]
