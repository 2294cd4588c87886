"""Wan: equal to diffusers' own pipeline where nothing is fused, and to a naive computation where something is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from torch import Tensor
from torch.testing import assert_close

from fatezero import FateZero, RuntimeConfig, UserError
from fatezero.config import ModelOptions
from fatezero.runs.inversion_cache import InversionCache
from fatezero.types import Frames
from tests.integration.transformer_cases import (
    CASES,
    GUIDANCE,
    SOURCE,
    STEPS,
    SWAPPED,
    TARGET,
    WORDS,
    loaded,
    method_of,
    noise_of,
    random_frames,
    sampled,
)
from tests.integration.transformer_reference import NaiveEdit, WanByHand
from tests.tiny_pipelines import flow_euler, saved, tiny_wan, tiny_wan_in_two_stages, tiny_wan_of_patches

Name = Literal["wan", "two_stages", "patches"]
MAKERS: dict[Name, Callable[[], WanPipeline]] = {
    "wan": lambda: tiny_wan(scheduler=flow_euler()),
    "two_stages": tiny_wan_in_two_stages,  # with UniPC
    "patches": tiny_wan_of_patches,
}
SIZE = 64, 96  # 3 latents of 4 x 6 places; of 2 x 3 with patches


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Name, Path]:
    folder = tmp_path_factory.mktemp("wan")
    return {name: saved(make(), folder / name) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def editor(folders: dict[Name, Path]) -> Callable[..., FateZero]:
    def load(name: Name = "wan", **runtime: Any) -> FateZero:
        return loaded(folders[name], **runtime)

    return load


@pytest.fixture(scope="module")
def networks(folders: dict[Name, Path]) -> Callable[[Name], WanByHand]:
    """The same networks, as diffusers loads them."""

    def load(name: Name = "wan") -> WanByHand:
        pipe = WanPipeline.from_pretrained(folders[name], dtype=torch.float64)
        pipe.set_progress_bar_config(disable=True)
        return WanByHand(pipe)

    return load


def frames(count: int = 9) -> Frames:
    return random_frames(count, *SIZE)


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_unfused_sampling_is_the_pipelines(name: Name, editor: Any, networks: Any) -> None:
    fz, pipe = editor(name), networks(name).pipe
    if name != "wan":  # UniPC places the levels, and its moves are of other orders than Euler's
        pipe.scheduler.set_timesteps(STEPS)
        pipe.scheduler = _AsPlaced(pipe.scheduler)
    noise = noise_of(fz.backbone, 9, *SIZE)
    made = pipe(
        TARGET, height=SIZE[0], width=SIZE[1], num_frames=9, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
        latents=noise.transpose(0, 1)[None], output_type="latent",
    ).frames  # fmt: skip
    assert_close(sampled(fz, noise), made[0].transpose(0, 1).double(), atol=1e-5, rtol=0)


class _AsPlaced:
    """Euler's moves between the levels of another scheduler."""

    order = 1

    def __init__(self, placed: Any) -> None:
        self.config, self.timesteps, self.sigmas = placed.config, placed.timesteps, placed.sigmas

    def set_timesteps(self, *_: Any, **__: Any) -> None:
        self.at = 0

    def set_begin_index(self, _: int) -> None: ...

    def step(self, velocity: Tensor, _: Any, latents: Tensor, **__: Any) -> tuple[Tensor]:
        self.at += 1
        return (latents + (self.sigmas[self.at] - self.sigmas[self.at - 1]) * velocity,)


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_latents_are_the_autoencoders_normalised(name: Name, editor: Any, networks: Any) -> None:
    backbone, vae = editor(name).backbone, networks(name).pipe.vae
    clip = frames()
    pixels = torch.from_numpy(clip).permute(3, 0, 1, 2)[None].double() / 127.5 - 1
    mean, std = (
        torch.tensor(x).double()[:, None, None, None] for x in (vae.config.latents_mean, vae.config.latents_std)
    )
    with torch.no_grad():
        expected = (vae.encode(pixels).latent_dist.mode() - mean) / std
        latents = backbone.encode_clip(clip)
        assert_close(latents, expected[0].transpose(0, 1), atol=1e-5, rtol=0)
        shown = vae.decode(expected * std + mean).sample[0].permute(1, 2, 3, 0)
    decoded = ((shown / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    assert np.abs(backbone.decode_clip(latents).astype(int) - decoded).max() <= 1  # rounding to bytes


EDITS = [("wan", case) for case in CASES] + [("two_stages", "second order"), ("patches", "words")]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "case"), EDITS)
def test_an_edit_is_the_naive_one(name: Name, case: str, editor: Any, networks: Any) -> None:
    fz, target = editor(name, backend="qk"), SWAPPED if case == "replace" else TARGET
    words = WORDS | ({"target_words": ("red", "roads")} if case == "replace" else {})
    method, clip = method_of(fz, **CASES[case]), frames()
    result = fz.edit(clip, SOURCE, target, **words, method=method)
    naive = NaiveEdit(networks(name), method, SOURCE, target, **words).run(fz.backbone.encode_clip(clip))
    assert_close(result.latents, naive.edited[-1], atol=1e-5, rtol=0)
    if case == "second order":
        inversion = fz.invert(clip, SOURCE, [result.target])
        assert_close(inversion.trajectory.latents, torch.stack(naive.inverted), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
def test_all_backends_give_the_same_edit(order: Literal[1, 2], editor: Any) -> None:
    clip, results = frames(), {}
    for backend, store in (("qk", "host"), ("maps", "disk"), ("recompute", "host")):
        fz = editor(backend=backend, store=store)
        method = method_of(fz, solver_order=order, **CASES["words"])
        results[backend] = fz.edit(clip, SOURCE, TARGET, **WORDS, method=method)
    for backend, result in results.items():
        assert_close(result.latents, results["qk"].latents, atol=1e-9, rtol=0)
        assert result.choice is not None
        kept = result.bytes_kept["attention"]
        assert kept == result.choice.predicted
        assert (kept > 0) == (backend != "recompute")


@pytest.mark.slow
def test_a_long_clip_is_seen_in_windows(editor: Any, networks: Any) -> None:
    """7 latents in windows of 5, half of which overlap: from 0 and from 2."""
    fz, clip = editor(backend="qk"), frames(25)
    method = method_of(fz, window_frames=17, blending={"latent_window": (0, 0.5), "latent_words": "both"})
    result = fz.edit(clip, SOURCE, TARGET, **WORDS, method=method)
    windows = [range(0, 5), range(2, 7)], [0, 0, 0, 0, 1, 1, 1]
    naive = NaiveEdit(networks(), method, SOURCE, TARGET, **WORDS, windows=windows)
    assert_close(result.latents, naive.run(fz.backbone.encode_clip(clip)).edited[-1], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_clock(editor: Any, networks: Any) -> None:
    """Latent 0 stands for frame 0, latent 1 for frames 1 to 4, latent 2 for frames 5 to 8: in masks and attention."""
    fz, clip = editor(), frames()
    method = method_of(fz, blending={"latent_window": None})
    result = fz.edit(clip, SOURCE, TARGET, **WORDS, method=method)
    naive = NaiveEdit(networks(), method, SOURCE, TARGET, **WORDS).run(fz.backbone.encode_clip(clip))
    stands = [0, 1, 1, 1, 1, 2, 2, 2, 2]
    share = torch.stack(list(naive.attention_masks.values())).double().mean(0)[stands]
    enlarged = share.repeat_interleave(16, 1).repeat_interleave(16, 2)
    assert result.masks is not None
    assert_close(torch.from_numpy(result.masks).double(), enlarged, atol=1e-6, rtol=0)
    assert 0 < enlarged.mean() < 1
    for word, seen in naive.word_maps.items():
        expected = (seen / seen.amax((1, 2), keepdim=True))[stands]
        assert_close(torch.from_numpy(result.attention[word]).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
def test_the_same_prompt_fused_throughout_comes_near_the_source(order: Literal[1, 2], editor: Any) -> None:
    """Unguided, and at more steps nearer: the way back differs from the way to noise by what a step moves."""
    fz, clip = editor(), frames()
    clean, errors = fz.backbone.encode_clip(clip), []
    for steps in (4, 12):
        full = {"cross_window": (0, 1), "self_window": (0, 1)}
        method = replace(method_of(fz, fusion=full, blending=None, solver_order=order), steps=steps, guidance_scale=1.0)
        latents = fz.edit(clip, SOURCE, SOURCE, method=method).latents
        errors.append(float((latents - clean).abs().max()))
    assert errors[1] < errors[0] / 2


@pytest.mark.slow
def test_an_empty_mask_gives_the_source_back(editor: Any) -> None:
    """To the bit, whatever the prompts: nothing exceeds a threshold of 1."""
    fz, clip = editor(), frames(5)
    blending = {"latent_window": (0, 1), "latent_words": "source", "threshold": 1.0}
    result = fz.edit(clip, SOURCE, TARGET, **WORDS, method=method_of(fz, blending=blending))
    assert torch.equal(result.latents, fz.backbone.encode_clip(clip))


def test_a_sampled_posterior_follows_from_the_seed(editor: Any) -> None:
    backbone, clip = editor().backbone, frames(5)
    mode = backbone.encode_clip(clip)
    one, again, other = (backbone.encode_clip(clip, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert 0 < (one - mode).abs().max() < 10


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
def test_a_kept_inversion_gives_the_same_bytes(order: Literal[1, 2], folders: dict[Name, Path], tmp_path: Path) -> None:
    """Found again with all that the second order was asked about on the way."""
    said: list[str] = []
    runtime, cache = RuntimeConfig(device="cpu", dtype="float32"), InversionCache(tmp_path)
    fz, clip = FateZero.load(str(folders["wan"]), runtime, cache=cache, detail=said.append), frames(5)
    blending = {"latent_window": (0, 1), "latent_words": "both"}
    method = method_of(fz, solver_order=order, blending=blending)
    made, found = (fz.edit(clip, SOURCE, TARGET, **WORDS, method=method).latents for _ in range(2))
    assert torch.equal(made, found)
    assert sum("from the cache" in line for line in said) == 1
    other = replace(method, window_frames=5)  # is another inversion, though this clip is one window
    fz.edit(clip, SOURCE, TARGET, **WORDS, method=other)
    assert sum("from the cache" in line for line in said) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "changes", "said"),
    [
        (8, {}, "8 frames and .* takes one more than a multiple of 4: set --frames to 5, or to 9"),
        (
            5,
            {"key_frames": ("self", "first")},
            "key_frames is .* attends to those of all frames; set it to ..self..[.]",
        ),
        (5, {"key_frames_min_width": 8}, "key_frames_min_width is 8, which means nothing"),
        (5, {"norm_scope": "clip"}, "norm_scope is 'clip', which means nothing"),
        (5, {"feature_reuse": 2}, "feature_reuse is 2, which means nothing"),
        (5, {"prompt_contexts": 2}, "prompt_contexts is 2, which means nothing"),
        (5, {"window_frames": 7}, "window_frames is 7 and a latent of .* for 4 frames.*: set it to 5 or 9"),
        (5, {"fusion": {"temporal": True}}, "fusion.temporal is True, which means nothing"),
        (5, {"fusion": {"min_downsampling": 4}}, "no attention at downsampling 4 or coarser"),
        (5, {"blending": {"mask_downsampling": 4}}, "no cross-attention at downsampling 4: set .* to one of .2."),
        (
            5,
            {"blending": {"mask_blocks": (0, 7)}},
            "no cross-attention in block 7 of .*mask_blocks: set it to some of .0, 1.",
        ),
    ],
)
def test_what_means_nothing_to_it_is_refused(count: int, changes: Any, said: str, editor: Any) -> None:
    fz = editor()
    with pytest.raises(UserError, match=said) as refusal:
        fz.edit(frames(count), SOURCE, TARGET, **WORDS, method=method_of(fz, **changes))
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_sizes_that_patches_do_not_fill_are_refused(editor: Any) -> None:
    with pytest.raises(UserError, match=r"48 x 72 do not fit .* multiples of 16: .* for example to 48 x 64"):
        editor().edit(random_frames(5, 48, 72), SOURCE, TARGET)
    with pytest.raises(UserError, match="multiples of 32"):
        editor("patches").edit(random_frames(5, 48, 64), SOURCE, TARGET)


@pytest.mark.slow
def test_what_cannot_be_run_is_refused(folders: dict[Name, Path], editor: Any) -> None:
    with pytest.raises(UserError, match="leave --chunk and --segment out"):
        editor(chunk=4).edit(frames(5), SOURCE, TARGET)
    with pytest.raises(UserError, match="--compile is for UNets"):
        editor(compile=True)
    split = editor()
    split.backbone.networks.transformers[0]._parallel_config = object()  # what diffusers' enable_parallelism leaves
    with pytest.raises(UserError, match="share out clips instead"):
        split.edit(frames(5), SOURCE, TARGET)
    for field in ({"motion_adapter": "picturebook-motion"}, {"embedding": ("some.safetensors",)}, {"clip_skip": 1}):
        with pytest.raises(UserError) as refusal:
            FateZero.load(ModelOptions(model=str(folders["wan"]), **field), RuntimeConfig(device="cpu"))
        assert "\n" not in str(refusal.value)
        assert "is a transformer, of Wan: --" in str(refusal.value)
