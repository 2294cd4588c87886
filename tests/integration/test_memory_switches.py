"""Switches that save memory: float8 weights, groups offloaded, autoencoders in tiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fatezero import EditResult, FateZero, RuntimeConfig, UserError
from fatezero.diffusion.memory_switches import check_switches, offload_groups
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.pixels import to_unit_range
from fatezero.results import Target
from fatezero.types import Frames
from tests.tiny_pipelines import saved, tiny_wan

STEPS = 2
PROMPTS = "a silver jeep on the road", "a red bus on the road"


@pytest.fixture(scope="module")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny_wan(), tmp_path_factory.mktemp("models") / "wan")


@pytest.fixture
def editor(wan_folder: Path) -> FateZero:
    return loaded(wan_folder)


def loaded(folder: Path, **runtime: object) -> FateZero:
    chosen = RuntimeConfig(device="cpu", dtype="float32", **runtime)  # type: ignore[arg-type]
    return FateZero.load(str(folder), chosen, report=lambda _: None)


def noise_clip(frames: int, height: int, width: int) -> Frames:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def edited(editor: FateZero, frames: Frames, **method: object) -> EditResult:
    chosen = replace(editor.method, steps=STEPS, **method)  # type: ignore[arg-type]
    return editor.edit(frames, *PROMPTS, edited_words=("silver", "jeep"), method=chosen)


@pytest.mark.slow
def test_layerwise_casting_is_weights_rounded_to_float8(editor: FateZero, wan_folder: Path) -> None:
    """The edit is that of a network whose blocks' layers were rounded by hand, to the same bytes."""
    clip = noise_clip(5, 32, 32)
    plain = edited(editor, clip).latents
    (transformer,) = editor.backbone.networks.transformers  # type: ignore[attr-defined]
    layers = [module for module in transformer.blocks.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == 2 * 10  # two blocks: four projections of each attention, two of the feed-forward layer
    for layer in layers:
        for value in (layer.weight, layer.bias):
            value.copy_(value.to(torch.float8_e4m3fn).float())
    casting = loaded(wan_folder, layerwise_casting=True)
    latents = edited(casting, clip).latents
    assert torch.equal(latents, edited(editor, clip).latents)
    assert not torch.equal(latents, plain)
    (stored,) = casting.backbone.networks.transformers  # type: ignore[attr-defined]
    assert stored.blocks[0].ffn.net[2].weight.dtype == torch.float8_e4m3fn  # also after it has computed
    assert "float8" in casting.backbone.rounding
    assert casting.backbone.dtype == torch.float32


@pytest.mark.slow
def test_offloaded_groups_give_the_same_bytes(editor: FateZero, wan_folder: Path) -> None:
    """On a GPU weights come and go; here only the hooks do, which must not change what our processors compute."""
    clip, networks = noise_clip(5, 32, 32), loaded(wan_folder)
    family = networks.backbone.networks  # type: ignore[attr-defined]
    offload_groups(family.transformers, family.text_encoders, torch.device("cpu"))
    assert torch.equal(edited(networks, clip).latents, edited(editor, clip).latents)
    assert networks.backbone.device.type == "cpu"


def test_switches_are_refused_where_they_do_nothing(wan_folder: Path, golden_folder: Path) -> None:
    with pytest.raises(UserError, match=r"--group-offload .* device 'cpu'"):
        loaded(wan_folder, group_offload=True)
    for switch, option in (("group_offload", "--group-offload"), ("layerwise_casting", "--layerwise-casting")):
        with pytest.raises(UserError, match=f"{option} is for video transformers"):
            loaded(golden_folder / "model", **{switch: True})
    with pytest.raises(UserError, match="MPS lacks"):
        check_switches(RuntimeConfig(layerwise_casting=True), torch.device("mps"))
    check_switches(RuntimeConfig(layerwise_casting=True, group_offload=True), torch.device("cuda"))


@pytest.mark.slow
def test_tiles_are_those_of_diffusers(editor: FateZero) -> None:
    """A clip wider than a tile is encoded and decoded as the autoencoder does by itself; a smaller one as without."""
    backbone, vae = editor.backbone, editor.backbone.networks.autoencoder  # type: ignore[attr-defined]
    wide, small = noise_clip(1, 32, 320), noise_clip(1, 32, 32)
    latents = backbone.encode_clip(wide, tiling=True)
    assert not torch.equal(latents, backbone.encode_clip(wide))
    decoded = backbone.decode_clip(latents, tiling=True)
    assert not np.array_equal(decoded, backbone.decode_clip(latents))
    assert torch.equal(backbone.encode_clip(small, tiling=True), backbone.encode_clip(small))
    vae.enable_tiling()
    assert torch.equal(latents, backbone.encode_clip(wide))
    assert np.array_equal(decoded, backbone.decode_clip(latents))


@pytest.mark.slow
def test_tiles_of_an_image_autoencoder(golden_folder: Path) -> None:
    backbone = UNetBackbone.load(str(golden_folder / "model"), RuntimeConfig(device="cpu", dtype="float32"))
    clip, vae = noise_clip(2, 64, 128), backbone.vae
    vae.tile_sample_min_size, vae.tile_latent_min_size = 64, 64 // 8
    tiled = backbone.encode_clip(clip, tiling=True)
    assert not torch.equal(tiled, backbone.encode_clip(clip))
    vae.enable_tiling()
    assert torch.equal(tiled, backbone.encode(to_unit_range(clip)))


@pytest.mark.slow
def test_tiling_is_the_methods(editor: FateZero) -> None:
    """Inversions with and without are not shared, and an edit's frames follow it."""
    plain = Target(prompt=PROMPTS[1], method=editor.method)
    tiled = Target(prompt=PROMPTS[1], method=replace(editor.method, autoencoder_tiling=True))
    assert plain.basis != tiled.basis
    clip = noise_clip(1, 16, 288)
    assert not np.array_equal(edited(editor, clip, autoencoder_tiling=True).frames, edited(editor, clip).frames)
