"""What a checkpoint is and whether it can edit, said without reading its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safetensors import safe_open

from fatezero.config import ModelOptions, RuntimeConfig
from fatezero.diffusion.additions import NETWORKS, LoraFile, tuned_lora
from fatezero.diffusion.checkpoint import TEMPORAL, Checkpoint, family_in, find_checkpoint, native_frames, native_size
from fatezero.diffusion.components import EmptyNetwork, empty_network, empty_parts, load_schedule
from fatezero.diffusion.ddim import schedule
from fatezero.diffusion.devices import choose_device, choose_dtype
from fatezero.diffusion.layouts import ADAPTER_STEM, MOTION_ADAPTER, STEMS, Layout
from fatezero.diffusion.lora import check_lora
from fatezero.diffusion.matching_parts import check_transformer_parts
from fatezero.diffusion.model_families.transformer_loading import networks_of
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.motion_unet import joined
from fatezero.diffusion.original_layout import family_of
from fatezero.diffusion.pipeline_loading import silence_libraries
from fatezero.diffusion.single_file import read_header
from fatezero.diffusion.texts import text_encoding
from fatezero.diffusion.textual_inversion import add_words
from fatezero.diffusion.vetting import vet_checkpoint
from fatezero.diffusion.weight_sets import WeightsChoice, original_file, variants_in
from fatezero.errors import UserError
from fatezero.system.terminal import quoted, shortened

Finding = tuple[bool, str]  # whether it serves, one line
TRIAL_STEPS = 50
TEXT = 300  # characters of a line


def describe(networks: ModelOptions) -> Iterator[Finding]:
    """Lines about a checkpoint and what is added to it; the first that does not serve is the last.

    Args:
        networks: as the user asks for them.
    """
    try:
        yield from _lines(networks)
    except UserError as error:
        yield False, str(error)


def _lines(networks: ModelOptions) -> Iterator[Finding]:
    silence_libraries()
    found = find_checkpoint(networks)
    dtype = choose_dtype("auto", choose_device(RuntimeConfig().device), family_in(found.folder).half)
    choice = WeightsChoice(networks.weights_variant, str(dtype).removeprefix("torch."))
    layout = vet_checkpoint(found.folder, choice)
    yield True, f"{networks.model}: {_kind(found.folder, layout)}"
    parts, tokenizers = empty_parts(found.folder, layout, choice, found.vae)
    for part, empty in parts.items():
        place = found.vae if part == "vae" and found.vae is not None else found.folder / part
        yield True, f"{part}: {_network(empty, place, STEMS[part], choice)}"
    made = {part: empty.network for part, empty in parts.items()} | tokenizers
    if layout.has_unet:
        yield from _unet_lines(found, layout, made, choice)
    else:
        yield from _transformer_lines(found, layout, made)


def _unet_lines(found: Checkpoint, layout: Layout, made: dict[str, Any], choice: WeightsChoice) -> Iterator[Finding]:
    networks = found.networks
    adapter = _adapter(found, layout)
    if adapter is not None:
        empty = empty_network(adapter, MOTION_ADAPTER, ADAPTER_STEM, choice)
        made["unet"] = joined(made["unet"], empty.network, networks.motion_adapter or str(adapter))
        yield True, f"motion adapter: {_network(empty, adapter, ADAPTER_STEM, choice)}"
    tokenizer = made["tokenizer"]
    read = f"{tokenizer.model_max_length} (more with prompt_contexts)"
    yield True, f"tokenizer: CLIP's, {len(tokenizer)} tokens, prompts of up to {read}"
    yield from _schedule_lines(_backbone(found, layout, made), layout.classes["scheduler"])
    side, unit = native_size(found.folder)
    yield True, f"size: {side} x {side} pixels, sides in multiples of {unit}"
    yield from _added(found, made)


def _transformer_lines(found: Checkpoint, layout: Layout, made: dict[str, Any]) -> Iterator[Finding]:
    check_transformer_parts(layout.family, made, found.networks.model)
    for part, encoder in layout.tokenizers.items():
        yield True, f"{part}: {len(made[part])} tokens, for {encoder}"
    scheduler = load_schedule(found.folder, layout)
    yield True, shortened(f"schedule: {_schedule(scheduler)}", TEXT)
    # Refuses what loads and cannot edit.
    networks_of(layout.family)(found.networks.model, SimpleNamespace(**made, scheduler=scheduler))
    if layout.boundary_ratio is not None:
        yield True, f"two stages: transformer_2 denoises below {layout.boundary_ratio:g} of the noise levels"
    if layout.expand_timesteps:
        yield True, "timesteps: one for each token"
    (side, unit), (frames, length) = native_size(found.folder), native_frames(found.folder)
    clips = f"; clips of {frames} frames, in lengths of {length}k + 1" if length > 1 else ""
    yield True, f"size: short side of {side} pixels, sides in multiples of {unit}{clips}"
    networks = {part: made[part] for part in NETWORKS if part in made}
    yield from _loras((*tuned_lora(found.folder), *found.additions.loras), networks)


def _schedule(scheduler: Any) -> str:
    """Of a transformer: a flow and its shift, or CogVideoX's noise levels."""
    config, name = scheduler.config, type(scheduler).__name__
    if "snr_shift_scale" in config:
        return (
            f"{name}, {config.beta_schedule} betas from {config.beta_start} to {config.beta_end}, signal to noise "
            f"shifted by {config.snr_shift_scale:g}, {config.num_train_timesteps} levels, {config.timestep_spacing} "
            f"spacing, predicts {config.prediction_type}"
        )
    shift = f"shift {config.get('flow_shift', config.get('shift')):g}"
    if config.get("use_dynamic_shifting") and "base_shift" in config:
        least, most = config.base_image_seq_len, config.max_image_seq_len
        shift = f"shift {config.base_shift:g} at {least} tokens to {config.max_shift:g} at {most}"
    return f"flow matching, {name}, {shift}, {config.num_train_timesteps} levels"


def _backbone(found: Checkpoint, layout: Layout, made: Mapping[str, Any]) -> UNetBackbone:
    """The networks without weights, as they would edit."""
    backbone = UNetBackbone(
        checkpoint=found,
        unet=made["unet"],
        vae=made["vae"],
        texts=text_encoding(made, zeros_for_nothing=layout.zeros_for_empty_prompt),
        tokenizer=made["tokenizer"],
        scheduler_config=dict(load_schedule(found.folder, layout).config),
    )
    backbone.check_parts()
    return backbone.with_chosen_levels()


def _adapter(found: Checkpoint, layout: Layout) -> Path | None:
    """The motion adapter's folder, which may be in the checkpoint's own."""
    inside = layout.animated and layout.classes["unet"] == "UNet2DConditionModel"
    return found.folder / "motion_adapter" if inside else found.adapter


def _kind(folder: Path, layout: Layout) -> str:
    tuned = ", with temporal layers tuned on a clip" if (folder / TEMPORAL).is_dir() else ""
    original = original_file(folder)
    if original is not None:
        return f"a single file of {family_of(read_header(original))} in its authors' layout{tuned}"
    return f"a folder in diffusers' layout, {layout.pipeline}{tuned}"


def _network(empty: EmptyNetwork, folder: Path, stem: str, choice: WeightsChoice) -> str:
    numbers = sum(value.numel() for value in empty.network.parameters())
    formats = ", ".join(sorted(_formats(empty)))
    found = variants_in(folder, stem)
    read = "the full weights" if empty.variant is None else f"the variant {empty.variant}"
    several = f"; of {', '.join(sorted(str(one or 'full') for one in found))}" if len(found) > 1 else ""
    chosen = f"{several} {read} are read with dtype {choice.dtype}" if several else f"; {read}, read as {choice.dtype}"
    return f"{type(empty.network).__name__} of {numbers / 1e6:.1f} million numbers in {formats}{chosen}"


def _formats(empty: EmptyNetwork) -> set[str]:
    """Number formats of a network's weights; in a single file, those of all its networks."""
    formats = set()
    for file in empty.files:
        with safe_open(file, framework="numpy") as opened:
            slices = [opened.get_slice(name) for name in opened.keys()]  # noqa: SIM118  (no mapping)
            formats |= {one.get_dtype() for one in slices if prod(one.get_shape()) > 1}
    return formats - {"I64"}


def _schedule_lines(backbone: UNetBackbone, own: str) -> Iterator[Finding]:
    """Of the noise schedule, which may be of another class than DDIM."""
    instead = "" if own == "DDIMScheduler" else f"; DDIM in place of {own}"
    known = backbone.scheduler_config
    schedule(known, TRIAL_STEPS)
    betas = f"{known['beta_schedule']} betas from {known['beta_start']} to {known['beta_end']}"
    said = (
        f"schedule: {betas if known['trained_betas'] is None else 'trained betas'}, {known['num_train_timesteps']} "
        f"levels, {known['timestep_spacing']} spacing, predicts {known['prediction_type']}{instead}"
    )
    yield True, shortened(said, TEXT)
    yield from ((True, f"schedule: {note}") for note in backbone.notes)


def _loras(loras: Iterable[LoraFile], networks: Mapping[str, Any]) -> Iterator[Finding]:
    for lora in loras:
        check_lora(networks, lora)
        yield True, f"LoRA: {lora.weights}, scale {lora.scale:g}"


def _added(found: Checkpoint, made: Mapping[str, Any]) -> Iterator[Finding]:
    """What can be added to the networks, and that what was asked for fits."""
    networks = {part: made[part] for part in NETWORKS if part in made}
    texts = [network for part, network in networks.items() if part != "unet"]
    tokenizers = [made[part] for part in ("tokenizer", "tokenizer_2") if part in made]
    widths = " ".join(map(str, made["unet"].config.block_out_channels))
    read = [int(network.config.hidden_size) for network in texts]
    said = " and ".join(map(str, read))
    yield True, f"fits: motion adapters for UNets of widths {widths}; LoRA and embeddings for texts of width {said}"
    yield from _loras(found.additions.loras, networks)
    for embedding in found.additions.embeddings:
        words = add_words(embedding, tokenizers, read)
        yield True, f"embedding: {embedding.weights} for {quoted(embedding.token)}, vectors: {len(words)}"
    if found.additions.clip_skip:
        yield True, f"clip_skip: {found.additions.clip_skip} of the text encoder's layers, from its end"
