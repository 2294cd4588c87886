"""The pipeline on the tiny checkpoint: backends, chunks and settings that must not change the result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fatezero.config import BlendingConfig, FusionConfig, MethodConfig, RuntimeConfig
from fatezero.diffusion.ddim import schedule
from fatezero.diffusion.inversion import invert
from fatezero.diffusion.model_families.unet import UNetBackbone, unet_denoiser
from fatezero.diffusion.prediction import Branch, Branches
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from fatezero.results import EditResult, Target
from fatezero.source_attention.backends import KeepMaps, KeepQueriesAndKeys, SourceAttention
from fatezero.source_attention.needs import Needs
from fatezero.source_attention.stores import MemoryStore
from fatezero.types import Frames

SOURCE, TARGET = "a silver jeep driving down a road", "a silver car driving down a road"
FULL = MethodConfig(
    steps=4,
    norm_scope="frame",
    fusion=FusionConfig(min_downsampling=1, reweight={"car": 2.0}),
    blending=BlendingConfig(threshold=0.8, latent_window=(0.2, 0.8)),
)
BY_SOURCE = BlendingConfig(threshold=0.8, latent_window=(0.2, 0.8), latent_words="source")
ANCHORED = replace(FULL, key_frames=("self", "middle", "last"))


def clip(frames: int = 5, height: int = 64, width: int = 96) -> Frames:
    """A bright square that moves over a gradient."""
    ramp = np.linspace(60, 160, width).astype(np.uint8)
    picture = np.broadcast_to(ramp[None, None, :, None], (frames, height, width, 3)).copy()
    for i in range(frames):
        picture[i, 16:40, 8 + 6 * i : 32 + 6 * i] = (190, 190, 220)
    return picture


def run(backbone: UNetBackbone, method: MethodConfig, frames: Frames | None = None, **runtime: Any) -> EditResult:
    editor = FateZero(backbone, RuntimeConfig(**runtime), report=lambda _: None)
    words = {"edited_words": ("jeep",), "target_words": ("car",)} if method.blending else {}
    return editor.edit(clip() if frames is None else frames, SOURCE, TARGET, method=method, **words)


def relative_error(ours: EditResult, theirs: EditResult) -> float:
    return float((ours.latents - theirs.latents).norm() / theirs.latents.norm())


@pytest.fixture(scope="module")
def reference(backbone32: UNetBackbone) -> EditResult:
    return run(backbone32, ANCHORED, backend="recompute")


@pytest.mark.slow
@pytest.mark.parametrize(
    "runtime",
    [
        {"backend": "qk"},
        {"backend": "qk", "store": "disk"},
        {"backend": "maps"},
        {"backend": "maps", "store": "device"},
        {"backend": "recompute", "chunk": 2},
        {"backend": "qk", "chunk": 2},
        {"backend": "maps", "store": "disk", "chunk": 3},
    ],
)
def test_backends_and_chunks_agree(runtime: dict[str, Any], backbone32: UNetBackbone, reference: EditResult) -> None:
    assert relative_error(run(backbone32, ANCHORED, **runtime), reference) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("key_frames", [("self", "middle"), (-1, "first"), ("middle",), ()])
def test_backends_agree_for_all_key_frames_and_clip_norms(key_frames: Any, backbone32: UNetBackbone) -> None:
    method = replace(FULL, steps=2, key_frames=key_frames, norm_scope="clip", key_frames_min_width=16)
    kept, again = (run(backbone32, method, backend=backend) for backend in ("qk", "recompute"))
    assert relative_error(kept, again) < 1e-5


@pytest.mark.slow
def test_the_method_does_something(backbone32: UNetBackbone, reference: EditResult) -> None:
    """Each part changes the result: none is wired to nothing."""
    for change in (
        {"fusion": None},
        {"blending": None},
        {"key_frames": ()},
        {"norm_scope": "clip"},
        {"guidance_scale": 1.0},
        {"fusion": replace(FULL.fusion, self_window=None)},  # type: ignore[type-var]
        {"fusion": replace(FULL.fusion, cross_window=None, reweight={})},  # type: ignore[type-var]
        {"fusion": replace(FULL.fusion, word_windows={"car": (0.5, 1.0)})},  # type: ignore[type-var]
        {"blending": replace(FULL.blending, latent_words="source")},  # type: ignore[type-var]
        {"blending": replace(FULL.blending, latent_window=None)},  # type: ignore[type-var]
    ):
        changed = run(backbone32, replace(ANCHORED, **change), backend="qk")  # type: ignore[arg-type]
        assert relative_error(changed, reference) > 1e-3, change


def test_per_frame_settings_are_the_plain_image_model(backbone32: UNetBackbone) -> None:
    """No key frames and per-frame norms: diffusers' own UNet, frame by frame."""
    method = MethodConfig(steps=2, key_frames=(), norm_scope="frame", fusion=None, blending=None)
    latents = torch.randn(3, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    text = backbone32.embed(SOURCE)
    with unet_denoiser(backbone32, method, 3, None) as denoiser:
        ours = denoiser.predict(Branches(conditional=Branch(latents, text)), 501).conditional
    theirs = [backbone32.unet(frame[None], 501, encoder_hidden_states=text.hidden).sample for frame in latents]
    torch.testing.assert_close(ours, torch.cat(theirs), rtol=1e-4, atol=1e-5)


def test_the_unet_is_put_back(backbone32: UNetBackbone) -> None:
    before = {name: type(processor) for name, processor in backbone32.unet.attn_processors.items()}
    modules = {name: id(module) for name, module in backbone32.unet.named_modules()}

    def broken() -> None:
        with unet_denoiser(backbone32, replace(FULL, norm_scope="clip"), 2, None):
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        broken()
    assert {name: type(processor) for name, processor in backbone32.unet.attn_processors.items()} == before
    assert {name: id(module) for name, module in backbone32.unet.named_modules()} == modules


class WatchSoftmax(TorchDispatchMode):
    """Notes the shape of every softmax that PyTorch computes; scaled-dot-product attention on the CPU computes none."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._softmax.default:
            self.shapes.add(tuple(args[0].shape[-2:]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("backend", "extra"), [("recompute", set()), ("qk", set()), ("maps", {(24, 48), (24, 77)})])
def test_no_self_attention_map_is_made(backend: Any, extra: set[Any], backbone32: UNetBackbone) -> None:
    """The only maps are the small cross maps that masks are made of; `maps` shows that others would be seen."""
    with WatchSoftmax() as watch:
        run(backbone32, replace(FULL, steps=2), backend=backend)
    assert (2 * 3, 77) in watch.shapes  # 64 x 96 pixels, 8 x 12 latents, masks at a quarter of them
    assert extra <= watch.shapes
    assert extra or watch.shapes == {(2 * 3, 77)}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["qk", "maps", "recompute"])
@pytest.mark.parametrize("chunk", [None, 2])
def test_predicted_bytes_are_the_kept_bytes(backend: Any, chunk: int | None, backbone32: UNetBackbone) -> None:
    result = run(backbone32, replace(ANCHORED, key_frames_min_width=16), backend=backend, chunk=chunk)
    assert result.choice is not None
    assert result.choice.predicted == result.bytes_kept["attention"]
    assert (result.choice.predicted == 0) == (backend == "recompute")


@pytest.mark.parametrize("backend", [KeepQueriesAndKeys(), KeepMaps()])
def test_kept_bytes_are_all_that_is_held(backend: Any, backbone32: UNetBackbone) -> None:
    """No recording is a view that keeps a larger tensor alive."""
    sites = frozenset(site.name for site in backbone32.sites)
    attention = SourceAttention(backend, MemoryStore(torch.device("cpu")), Needs(sites, frozenset({0}), frozenset({0})))
    method = replace(FULL, steps=1, blending=None)
    with unet_denoiser(backbone32, method, 4, None) as denoiser, torch.no_grad():
        invert(denoiser, torch.zeros(4, 4, 8, 8), SOURCE, schedule(backbone32.scheduler_config, 1), attention=attention)
    recording = attention.store.get((0, 0), torch.device("cpu"))
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in recording.values()}
    assert sum(held.values()) == attention.store.bytes_kept


@pytest.mark.slow
def test_the_budget_decides(backbone32: UNetBackbone) -> None:
    for budget, backend in ((1.0, "qk"), (0.0, "recompute")):
        choice = run(backbone32, FULL, memory_gb=budget).choice
        assert choice is not None
        assert choice.backend == backend
    assert run(backbone32, replace(FULL, fusion=None)).choice is None
    with pytest.raises(UserError, match="'maps' would keep"):
        run(backbone32, FULL, memory_gb=0.0, backend="maps")


def test_what_is_free_decides_nothing_and_is_shared(backbone32: UNetBackbone) -> None:
    """Backends round differently: the choice follows from the request, and too little memory is told."""
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    target = Target(prompt=TARGET, method=FULL)
    alone = FateZero(backbone32, RuntimeConfig(), lambda _: None)
    choice = alone.invert(frames, SOURCE, [target]).choice
    assert choice is not None
    assert (choice.backend, choice.budget) == ("qk", 2_000_000_000)
    crowded = FateZero(backbone32, RuntimeConfig(), lambda _: None, processes=10**9)
    with pytest.raises(UserError, match="free for each of 1000000000 processes"):
        crowded.invert(frames, SOURCE, [target])


def test_words_are_not_a_text(backbone32: UNetBackbone) -> None:
    editor = FateZero(backbone32, RuntimeConfig(), lambda _: None)
    with pytest.raises(UserError, match=r"such as \('ball',\)"):
        editor.edit(np.zeros((1, 64, 64, 3), np.uint8), SOURCE, TARGET, edited_words="ball", method=FULL)
    with pytest.raises(UserError, match="edited_words is the text 'ball'"):
        Target(prompt=TARGET, edited_words="ball", method=FULL)  # type: ignore[arg-type]


@pytest.mark.slow
def test_one_inversion_serves_many_targets(backbone32: UNetBackbone) -> None:
    editor = FateZero(backbone32, RuntimeConfig(), report=lambda _: None)
    narrow = replace(FULL, fusion=FusionConfig(self_window=(0, 0.25), cross_window=(0, 0.25), min_downsampling=2))
    targets = [
        Target(prompt=prompt, edited_words=("jeep",), target_words=(word,), method=method)
        for prompt, word, method in ((TARGET, "car", FULL), ("a silver ball driving down a road", "ball", narrow))
        for method in [replace(method, fusion=replace(method.fusion, reweight={}))]  # type: ignore[type-var]
    ]
    shared = editor.invert(clip(), SOURCE, targets)
    for target in targets:
        alone = editor.edit_inverted(editor.invert(clip(), SOURCE, [target]), target)
        np.testing.assert_array_equal(editor.edit_inverted(shared, target).frames, alone.frames)


def test_target_words_stand_in_the_places_of_the_edited_words(backbone32: UNetBackbone) -> None:
    editor = FateZero(backbone32, RuntimeConfig(), report=lambda _: None)
    found = editor.edit(clip(), SOURCE, TARGET, edited_words=("jeep",), method=FULL)
    assert torch.equal(found.latents, run(backbone32, FULL).latents)
    assert not torch.equal(found.latents, run(backbone32, replace(FULL, blending=BY_SOURCE)).latents)


def test_words_that_are_taken_out_blend_by_the_source_alone(backbone32: UNetBackbone) -> None:
    editor = FateZero(backbone32, RuntimeConfig(), report=lambda _: None)
    both = replace(FULL, fusion=FusionConfig(min_downsampling=1))
    taken_out, by_source = (
        editor.edit(clip(), SOURCE, "a silver jeep", edited_words=("driving down a road",), method=method)
        for method in (both, replace(both, blending=BY_SOURCE))
    )
    assert torch.equal(taken_out.latents, by_source.latents)


def test_an_inversion_that_kept_too_little_is_refused(backbone32: UNetBackbone) -> None:
    editor = FateZero(backbone32, RuntimeConfig(backend="qk"), report=lambda _: None)
    plain = replace(FULL, blending=None, fusion=FusionConfig(self_window=(0, 0.25)))
    wide = replace(plain, fusion=FusionConfig(self_window=(0, 1.0)))
    inversion = editor.invert(clip(), SOURCE, [Target(prompt=TARGET, method=plain)])
    with pytest.raises(UserError, match="kept less"):
        editor.edit_inverted(inversion, Target(prompt=TARGET, method=wide))
    for change in (
        {"steps": 3}, {"key_frames": ()}, {"norm_scope": "clip"}, {"blending": BlendingConfig()}, {"prompt_contexts": 2}
    ):  # fmt: skip
        with pytest.raises(UserError, match="another inversion"):
            editor.edit_inverted(inversion, Target(prompt=TARGET, method=replace(plain, **change)))  # type: ignore[arg-type]
    unlike = [Target(prompt=TARGET, method=method) for method in (plain, replace(plain, steps=5))]
    with pytest.raises(UserError, match="cannot share an inversion"):
        editor.invert(clip(), SOURCE, unlike)
    unfused = editor.invert(clip(), SOURCE, [Target(prompt=TARGET, method=replace(plain, fusion=None))])
    with pytest.raises(UserError, match="another inversion"):
        editor.edit_inverted(unfused, Target(prompt=TARGET, method=plain))


@pytest.mark.slow
def test_the_same_request_gives_the_same_bytes(backbone32: UNetBackbone) -> None:
    sampled = replace(FULL, posterior="sample")
    first, second = (run(backbone32, sampled) for _ in range(2))
    np.testing.assert_array_equal(first.frames, second.frames)
    assert relative_error(run(backbone32, FULL), first) > 1e-3  # the mode is another start


@pytest.mark.slow
def test_inversion_without_guidance_comes_back(backbone64: UNetBackbone) -> None:
    """DDIM there and back under one prompt approaches the identity as steps grow."""
    errors = []
    for count in (4, 16):
        method = MethodConfig(steps=count, norm_scope="frame", fusion=None, blending=None, guidance_scale=1.0)
        editor = FateZero(backbone64, RuntimeConfig(), report=lambda _: None)
        result = editor.edit(clip(2), SOURCE, SOURCE, method=method)
        clean = editor.invert(clip(2), SOURCE, [Target(prompt=SOURCE, method=method)]).clean
        with unet_denoiser(backbone64, method, 2, None) as denoiser:
            steps = schedule(backbone64.scheduler_config, count)
            assert torch.equal(invert(denoiser, clean, SOURCE, steps).latents[0], clean)
        errors.append(float((result.latents - clean).abs().mean()))
    assert errors[1] < errors[0] / 2


@pytest.mark.slow
def test_sdedit_starts_from_the_noised_source(backbone32: UNetBackbone) -> None:
    method = MethodConfig(steps=10, fusion=None, blending=None, norm_scope="frame", sdedit_strength=0.1)
    stages: list[tuple[str, int]] = []
    editor = FateZero(backbone32, RuntimeConfig(), report=lambda _: None)
    faint, strong = (
        editor.edit(clip(), SOURCE, TARGET, method=m, progress=lambda stage, _, total: stages.append((stage, total)))
        for m in (method, replace(method, sdedit_strength=1.0))
    )
    assert stages.count(("editing", 1)) == 1  # a tenth of ten steps
    assert stages.count(("editing", 10)) == 10
    start = editor.backbone.encode(torch.from_numpy(clip()).permute(0, 3, 1, 2) / 255)
    assert (faint.latents - start).abs().mean() < (strong.latents - start).abs().mean()
    with pytest.raises(UserError, match="set fusion and blending to null"):
        MethodConfig(sdedit_strength=0.5)


def test_a_single_frame_is_a_clip(backbone32: UNetBackbone) -> None:
    assert run(backbone32, FULL, clip(1)).frames.shape == (1, 64, 96, 3)


def test_masks_and_attention_keep_the_clips_shape(backbone32: UNetBackbone, reference: EditResult) -> None:
    assert reference.masks is not None
    assert reference.masks.shape == (5, 64, 96)
    assert 0 < reference.masks.mean() < 1
    assert reference.attention["jeep"].shape == (5, 2, 3)
    assert reference.attention["jeep"].max() == 1


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "share"), [("bfloat16", 1 / 2), ("float16", 1 / 4)])
def test_half_precision_is_nearer_than_another_method(
    dtype: Any, share: float, golden_folder: Any, backbone32: UNetBackbone
) -> None:
    half = UNetBackbone.load(str(golden_folder / "model"), RuntimeConfig(device="cpu", dtype=dtype))
    method = MethodConfig(steps=2, norm_scope="frame", blending=None)
    frames = clip(2)
    other = replace(method, fusion=None)
    near, exact, unlike = (
        run(*of, frames).frames.astype(int) for of in ((half, method), (backbone32, method), (backbone32, other))
    )
    assert abs(near - exact).mean() < abs(unlike - exact).mean() * share


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        (np.zeros((2, 60, 64, 3), np.uint8), "multiples of 8"),
        (np.zeros((2, 64, 64, 3), np.float32), "uint8"),
        (np.zeros((0, 64, 64, 3), np.uint8), "at least one frame"),
    ],
)
def test_unfit_frames_are_named(frames: Any, complaint: str, backbone32: UNetBackbone) -> None:
    with pytest.raises(UserError, match=complaint):
        run(backbone32, FULL, frames)


def test_unfit_words_are_named(backbone32: UNetBackbone) -> None:
    editor = FateZero(backbone32, RuntimeConfig(), report=lambda _: None)
    with pytest.raises(UserError, match="'tiger' is not a word"):
        editor.edit(clip(), SOURCE, TARGET, edited_words=("tiger",), target_words=("car",), method=FULL)
    coarse = replace(FULL, blending=BlendingConfig(mask_downsampling=3))
    with pytest.raises(UserError, match="downsampling 3: set"):
        editor.edit(clip(), SOURCE, TARGET, edited_words=("jeep",), method=coarse)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("unet.conv_out", "denoising network .* NaN or infinity at timestep"),
        ("vae.quant_conv", "autoencoder"),
        ("vae.decoder.conv_out", "autoencoder"),
    ],
)
def test_nan_in_a_network_is_named(place: str, complaint: str, golden_folder: Any) -> None:
    broken = UNetBackbone.load(str(golden_folder / "model"), RuntimeConfig(device="cpu", dtype="float32"))
    network, layer = place.split(".", 1)
    getattr(broken, network).get_submodule(layer).bias.data.fill_(float("nan"))
    with pytest.raises(UserError, match=complaint):
        run(broken, FULL)


def test_overlapping_words_count_once(backbone32: UNetBackbone) -> None:
    editor = FateZero(backbone32, RuntimeConfig(), report=lambda _: None)
    plans = [
        editor.plan(SOURCE, Target(prompt=TARGET, edited_words=words, target_words=("car",), method=FULL))
        for words in (("silver jeep",), ("silver jeep", "jeep", "silver"))
    ]
    assert plans[0].source_tokens == plans[1].source_tokens == (2, 3)
