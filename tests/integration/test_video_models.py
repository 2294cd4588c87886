"""Tune-A-Video's layers and motion adapters in the tiny checkpoint: nothing where untrained, right where they act."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffPipeline, MotionAdapter, StableDiffusionPipeline
from torch import Tensor, nn

from fatezero.attention.temporal import TemporalConvolution, inflate, is_temporal, temporal_layers
from fatezero.config import BlendingConfig, FusionConfig, MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.model_families.unet import UNetBackbone, unet_denoiser
from fatezero.diffusion.motion_unet import with_motion
from fatezero.diffusion.prediction import Branch, Branches
from fatezero.diffusion.temporal_weights import load_temporal, save_inflated
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from fatezero.results import EditResult

SOURCE, TARGET = "a silver jeep driving down a road", "a silver car driving down a road"
IMAGE = MethodConfig(steps=3, norm_scope="frame", key_frames=("self", "middle"))
FUSED = replace(
    IMAGE,
    fusion=FusionConfig(min_downsampling=1, temporal=True),
    blending=BlendingConfig(threshold=0.8, mask_downsampling=2),
)


def with_unet(backbone: UNetBackbone, unet: Any) -> UNetBackbone:
    """The same checkpoint with another UNet; nothing that was worked out about the old one is kept."""
    return replace(backbone, unet=unet.requires_grad_(requires_grad=False).eval())


def inflated(backbone: UNetBackbone, *, trained: bool, rank: int | None = 4) -> UNetBackbone:
    unet = deepcopy(backbone.unet)
    torch.manual_seed(0)
    inflate(unet, rank)
    if trained:
        shake(value for name, value in unet.named_parameters() if is_temporal(name))
    return with_unet(backbone, unet)


def adapter(folder: Path, *, trained: bool, **changes: Any) -> Path:
    torch.manual_seed(0)
    shape = {"block_out_channels": (8, 16, 32, 32), "motion_norm_num_groups": 8, "motion_max_seq_length": 6}
    made = MotionAdapter(**(shape | changes))
    if not trained:
        for name, module in made.named_modules():
            if name.endswith("proj_out"):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
    made.save_pretrained(folder)
    return folder


def shake(values: Iterator[Tensor]) -> None:
    with torch.no_grad():
        for value in values:
            value.add_(torch.randn(value.shape).to(value) * 0.2)


@pytest.fixture(params=["inflated", "motion"])
def video64(request: pytest.FixtureRequest, backbone64: UNetBackbone, tmp_path: Path) -> UNetBackbone:
    """Both kinds of video model, with weights as if trained."""
    if request.param == "inflated":
        return inflated(backbone64, trained=True)
    unet = with_motion(backbone64.unet, adapter(tmp_path, trained=True), "random")  # type: ignore[arg-type]
    return with_unet(backbone64, unet)


def predict(backbone: UNetBackbone, latents: Tensor, method: MethodConfig = IMAGE, branches: int = 1) -> list[Tensor]:
    text = backbone.embed(SOURCE)
    with unet_denoiser(backbone, method, len(latents), None) as denoiser, torch.no_grad():
        first, *more = (Branch(latents + i, text) for i in range(branches))
        output = denoiser.predict(Branches(conditional=first, unconditional=more[0] if more else None), 301)
    return [part for part in (output.conditional, output.unconditional) if part is not None]


def noise(frames: int = 4) -> Tensor:
    return torch.randn(frames, 4, 8, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def edited(backbone: UNetBackbone, method: MethodConfig, **runtime: Any) -> EditResult:
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    editor = FateZero(backbone, RuntimeConfig(**runtime), report=lambda _: None)
    return editor.edit(frames, SOURCE, TARGET, edited_words=("jeep",), method=method)


def test_deep_features_of_whole_clips_are_reused(video64: UNetBackbone) -> None:
    """As with everything computed, and what entered the last up block put in its place, of both branches."""
    first, second = (Branch(noise() + i, video64.embed(SOURCE)) for i in range(2))
    before = Branches(conditional=first, unconditional=second)
    after = Branches(conditional=second, unconditional=first)
    kept: list[Tensor] = []
    with unet_denoiser(video64, replace(IMAGE, feature_reuse=2), 4, None) as denoiser, torch.no_grad():
        denoiser.predict(before, 301)
        ours = denoiser.predict(after, 281, reuse=True)
    hook = video64.unet.up_blocks[-2].register_forward_hook(lambda *seen: kept.append(seen[-1]) or kept[0])
    with unet_denoiser(video64, IMAGE, 4, None) as denoiser, torch.no_grad():
        denoiser.predict(before, 301)
        theirs = denoiser.predict(after, 281)
        hook.remove()
        computed = denoiser.predict(after, 281)
    torch.testing.assert_close(ours.conditional, theirs.conditional, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.unconditional, theirs.unconditional, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(ours.conditional, computed.conditional, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scope", ["clip", "frame"])
@pytest.mark.parametrize("rank", [4, None])
def test_fresh_temporal_layers_change_nothing(backbone64: UNetBackbone, scope: str, rank: int | None) -> None:
    method = replace(IMAGE, norm_scope=scope)
    (fresh,) = predict(inflated(backbone64, trained=False, rank=rank), noise(), method)
    plain = predict(backbone64, noise(), method)[0]  # zeros are added, but the sum may lie in memory otherwise
    torch.testing.assert_close(fresh, plain, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_a_fresh_adapter_changes_nothing(backbone64: UNetBackbone, tmp_path: Path) -> None:
    unet = with_motion(backbone64.unet, adapter(tmp_path, trained=False), "fresh")  # type: ignore[arg-type]
    (fresh,) = predict(with_unet(backbone64, unet), noise())
    torch.testing.assert_close(fresh, predict(backbone64, noise())[0], rtol=0, atol=1e-12)


def test_a_temporal_convolution_is_the_formula() -> None:
    """x + up * (down * x) at every place, both over three frames with zeros beyond the ends, in loops."""
    conv = nn.Conv2d(3, 4, 3, padding=1).double()
    layer = TemporalConvolution(4, 2).double()
    shake(layer.parameters())
    conv.add_module("conv_temporal", layer)
    x = torch.randn(2 * 3, 3, 5, 6, dtype=torch.float64)
    with torch.no_grad(), temporal_layers(conv, lambda: 3):  # type: ignore[arg-type]
        ours = conv(x)
    with torch.no_grad():
        plain = conv(x).numpy().reshape(2, 3, 4, 5, 6)
    down, up = layer.down.weight.detach().numpy(), layer.up.weight.detach().numpy()

    def along_time(clip: np.ndarray, weight: np.ndarray) -> np.ndarray:
        padded = np.pad(clip, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
        taps = [np.einsum("oc,bfchw->bfohw", weight[:, :, tap], padded[:, tap : tap + 3]) for tap in range(3)]
        return np.sum(taps, axis=0)

    theirs = plain + along_time(along_time(plain, down), up)
    np.testing.assert_allclose(ours.numpy(), theirs.reshape(6, 4, 5, 6), atol=1e-12)


def test_temporal_attention_is_the_formula(backbone64: UNetBackbone) -> None:
    """Each place attends over its frames after the whole block, in numpy."""
    backbone = inflated(backbone64, trained=True)
    block = backbone.unet.get_submodule("down_blocks.1.attentions.0.transformer_blocks.0")
    seen: list[tuple[Tensor, Tensor]] = []
    plain = block.forward
    with unet_denoiser(backbone, replace(IMAGE, key_frames=()), 4, None) as denoiser, torch.no_grad():
        before: list[Tensor] = []
        block.forward = lambda *args, **kwargs: before.append(out := plain(*args, **kwargs)) or out  # type: ignore[method-assign]
        handle = block.register_forward_hook(lambda _m, _i, out: seen.append((before[-1], out)))
        try:
            branch = Branch(noise(), backbone.embed(SOURCE))
            denoiser.predict(Branches(conditional=branch, unconditional=branch), 301)
        finally:
            handle.remove()
            del block.forward
    given, ours = (x.numpy() for x in seen[0])
    attention, norm = block.get_submodule("attn_temporal"), block.get_submodule("norm_temporal")
    tokens = given.reshape(2, 4, -1, given.shape[-1]).transpose(0, 2, 1, 3)  # branch, place, frame, channel
    spread = (tokens - tokens.mean(-1, keepdims=True)) / np.sqrt(tokens.var(-1, keepdims=True) + norm.eps)
    normed = spread * norm.weight.numpy() + norm.bias.numpy()
    heads = attention.heads

    def project(layer: Any) -> np.ndarray:
        out = normed @ layer.weight.numpy().T
        return out.reshape(*out.shape[:-1], heads, -1).swapaxes(2, 3)

    q, k, v = (project(layer) for layer in (attention.to_q, attention.to_k, attention.to_v))
    scores = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
    mixed = (scores / scores.sum(-1, keepdims=True)) @ v
    mixed = mixed.swapaxes(2, 3).reshape(normed.shape)
    theirs = tokens + mixed @ attention.to_out[0].weight.numpy().T + attention.to_out[0].bias.numpy()
    np.testing.assert_allclose(ours, theirs.transpose(0, 2, 1, 3).reshape(given.shape), atol=1e-10)


@pytest.mark.slow
def test_motion_modules_are_diffusers_own(backbone64: UNetBackbone, tmp_path: Path) -> None:
    """Through the editor's attention the motion UNet gives what it gives by itself."""
    unet = with_motion(backbone64.unet, adapter(tmp_path, trained=True), "random")  # type: ignore[arg-type]
    backbone = with_unet(backbone64, unet)
    (ours,) = predict(backbone, noise(), replace(IMAGE, key_frames=()))
    text = backbone.embed(SOURCE).hidden.expand(4, -1, -1)
    with torch.no_grad():
        theirs = unet(noise().transpose(0, 1)[None], 301, text).sample[0].transpose(0, 1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_folders_of_animatediff_are_loaded(
    backbone32: UNetBackbone, golden_folder: Path, tmp_path: Path, whole: bool
) -> None:
    """As diffusers saves its pipeline, modules in the UNet; and with an image UNet and the adapter beside it."""
    motion = adapter(tmp_path / "adapter", trained=True)
    image = StableDiffusionPipeline.from_pretrained(golden_folder / "model", safety_checker=None)
    parts = {name: getattr(image, name) for name in ("vae", "text_encoder", "tokenizer", "scheduler")}
    made = AnimateDiffPipeline(**parts, unet=image.unet, motion_adapter=MotionAdapter.from_pretrained(motion))
    made.save_pretrained(tmp_path / "model")
    if not whole:
        image.unet.save_pretrained(tmp_path / "model" / "unet")
        index = tmp_path / "model" / "model_index.json"
        written = index.read_text(encoding="utf-8")
        index.write_text(written.replace("UNetMotionModel", "UNet2DConditionModel"), encoding="utf-8")
    loaded = UNetBackbone.load(str(tmp_path / "model"), RuntimeConfig(device="cpu", dtype="float32")).unet
    expected = with_motion(backbone32.unet, motion, "random").state_dict()  # type: ignore[arg-type]
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_frames_meet_through_time(video64: UNetBackbone) -> None:
    latents = noise()
    (before,) = predict(video64, latents, replace(IMAGE, key_frames=()))
    latents[3] += 1
    (after,) = predict(video64, latents, replace(IMAGE, key_frames=()))
    assert (after[0] - before[0]).abs().max() > 1e-6


@pytest.mark.slow
def test_branches_do_not_meet(video64: UNetBackbone) -> None:
    one, two = predict(video64, noise(), branches=2)
    torch.testing.assert_close(one, predict(video64, noise())[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(two, predict(video64, noise() + 1)[0], rtol=0, atol=1e-10)


def test_branches_of_the_same_latents_read_their_own_prompts(video64: UNetBackbone) -> None:
    """They share what reads no prompt."""
    branches = [Branch(noise(), video64.embed(prompt)) for prompt in (TARGET, "")]
    branches[1] = replace(branches[1], latents=branches[0].latents)
    with unet_denoiser(video64, IMAGE, 4, None) as denoiser, torch.no_grad():
        together = denoiser.predict(Branches(conditional=branches[0], unconditional=branches[1]), 301)
        alone = [denoiser.predict(Branches(conditional=branch), 301).conditional for branch in branches]
    torch.testing.assert_close(together.conditional, alone[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(together.unconditional, alone[1], rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "finest"), [("qk", 1), ("maps", 1), ("qk", 2), ("maps", 4)])
def test_backends_agree_with_temporal_fusion(video64: UNetBackbone, backend: Any, finest: int) -> None:
    """Where the finest layers are not fused, the source of `recompute` leaves the batch on the way up."""
    method = replace(FUSED, fusion=FusionConfig(min_downsampling=finest, temporal=True))
    reference = edited(video64, method, backend="recompute")
    ours = edited(video64, method, backend=backend)
    torch.testing.assert_close(ours.latents, reference.latents, rtol=0, atol=1e-8)
    assert ours.choice is not None
    assert ours.bytes_kept["attention"] == ours.choice.predicted > 0


@pytest.mark.slow
def test_temporal_fusion_is_a_choice(video64: UNetBackbone) -> None:
    assert FUSED.fusion is not None
    alone = replace(FUSED, fusion=replace(FUSED.fusion, temporal=False))
    different = edited(video64, FUSED).latents - edited(video64, alone).latents
    assert different.abs().max() > 1e-4


@pytest.mark.slow
def test_a_mask_of_everything_fuses_no_self_attention(video64: UNetBackbone) -> None:
    """M = 1 keeps the edit's own attention, in space and in time."""
    everything = replace(FUSED, blending=BlendingConfig(threshold=0, mask_downsampling=2))
    none = replace(FUSED, fusion=FusionConfig(min_downsampling=1, self_window=None), blending=None)
    torch.testing.assert_close(edited(video64, everything).latents, edited(video64, none).latents, rtol=0, atol=1e-8)


@pytest.mark.parametrize("runtime", [{"chunk": 2}])
def test_video_models_cannot_be_cut(video64: UNetBackbone, runtime: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="layers along time that tie all its frames"):
        edited(video64, IMAGE, **runtime)
    assert edited(video64, IMAGE, chunk=3).frames.shape[0] == 3


@pytest.mark.slow
def test_the_adapter_counts_frames(backbone64: UNetBackbone, tmp_path: Path) -> None:
    unet = with_motion(backbone64.unet, adapter(tmp_path, trained=True), "random")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="count 6 frames and the clip has 7: set --frames to 6"):
        predict(with_unet(backbone64, unet), noise(7))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"block_out_channels": (16, 16, 32, 32)}, r"widths \(16, 16, 32, 32\)"),
        ({"conv_in_channels": 9}, "conditions on images"),
        ({"motion_layers_per_block": 1}, "does not fit this UNet"),
    ],
)
def test_adapters_of_other_models_are_refused(
    golden_folder: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    folder = adapter(tmp_path, trained=True, **changes)
    with pytest.raises(UserError, match=sentence):
        UNetBackbone.load(
            ModelOptions(model=str(golden_folder / "model"), motion_adapter=str(folder)), RuntimeConfig(device="cpu")
        )


@pytest.mark.parametrize(
    ("name", "sentence"), [("nowhere", "There is no motion adapter"), ("", "There is no motion adapter")]
)
def test_missing_adapters_are_said(golden_folder: Path, name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        UNetBackbone.load(
            ModelOptions(model=str(golden_folder / "model"), motion_adapter=name or "./nowhere"),
            RuntimeConfig(device="cpu"),
        )


def test_an_adapter_without_weights_is_refused(golden_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="with safetensors weights beside it"):
        UNetBackbone.load(
            ModelOptions(model=str(golden_folder / "model"), motion_adapter=str(tmp_path)), RuntimeConfig(device="cpu")
        )


@pytest.mark.slow
def test_temporal_layers_travel_beside_the_unet(backbone64: UNetBackbone, golden_folder: Path, tmp_path: Path) -> None:
    ours = inflated(backbone64, trained=True)
    save_inflated(ours.unet, 4, tmp_path)  # type: ignore[arg-type]
    again = deepcopy(backbone64.unet)
    load_temporal(again, tmp_path / "temporal")  # type: ignore[arg-type]
    (theirs,) = predict(with_unet(backbone64, again), noise())
    assert torch.equal(predict(ours, noise())[0], theirs)
    stock = type(backbone64.unet).from_pretrained(tmp_path / "unet", dtype=torch.float64)
    assert stock.state_dict().keys() == backbone64.unet.state_dict().keys()
    (tmp_path / "temporal" / "config.json").write_text('{"rank": 2}')
    with pytest.raises(UserError, match="belong to a UNet of another shape"):
        load_temporal(deepcopy(backbone64.unet), tmp_path / "temporal")  # type: ignore[arg-type]
    (tmp_path / "temporal" / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not readable JSON"):
        load_temporal(deepcopy(backbone64.unet), tmp_path / "temporal")  # type: ignore[arg-type]
