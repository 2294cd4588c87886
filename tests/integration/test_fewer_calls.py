"""Guidance in some steps, deep features reused, a second order: results against plain loops of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from fatezero.attention.mask_layers import MaskLayers
from fatezero.config import BlendingConfig, FusionConfig, MethodConfig, RuntimeConfig
from fatezero.diffusion.ddim import move, schedule
from fatezero.diffusion.feature_reuse import deep_features
from fatezero.diffusion.inversion import Trajectory, invert
from fatezero.diffusion.model_families.unet import UNetBackbone, unet_denoiser
from fatezero.edit_plan import EditPlan, plan_edit
from fatezero.editing import denoise
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from fatezero.results import EditResult, Target
from fatezero.types import Frames

SOURCE, TARGET = "a silver jeep driving down a road", "a silver car driving down a road"
IMAGE = MethodConfig(steps=4, key_frames=(), norm_scope="frame", fusion=None, blending=None)
FUSED = MethodConfig(
    steps=4,
    key_frames=("self", "middle"),
    norm_scope="frame",
    fusion=FusionConfig(cross_window=(0, 1), self_window=(0, 1)),
    blending=BlendingConfig(threshold=0.8),
)


def clip(frames: int = 3) -> Frames:
    return np.random.default_rng(0).integers(0, 255, (frames, 64, 64, 3), np.uint8)


def noise(frames: int = 2) -> Tensor:
    return torch.randn(frames, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def run(backbone: UNetBackbone, method: MethodConfig, **runtime: Any) -> EditResult:
    words = {"edited_words": ("jeep",), "target_words": ("car",)} if method.blending else {}
    editor = FateZero(backbone, RuntimeConfig(**runtime), report=lambda _: None)
    return editor.edit(clip(), SOURCE, TARGET, method=method, **words)


def plan_of(backbone: UNetBackbone, method: MethodConfig) -> EditPlan:
    return plan_edit(backbone, method, method.steps, SOURCE, TARGET)


def denoised(backbone: UNetBackbone, method: MethodConfig) -> Tensor:
    with unet_denoiser(backbone, method, 2, None) as denoiser, torch.no_grad():
        return denoise(denoiser, plan_of(backbone, method), schedule(backbone.scheduler_config, method.steps), noise())


@contextmanager
def watched_batches(backbone: UNetBackbone) -> Iterator[list[int]]:
    """How many latents each call of the UNet has."""
    sizes: list[int] = []
    hook = backbone.unet.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    yield sizes
    hook.remove()


# Guidance


def guided_by_diffusers(backbone: UNetBackbone, own: set[int], guided: set[int], steps: int = 4) -> Tensor:
    """Diffusers' UNet and scheduler: both branches in the steps `own`, guidance in `guided` by the last difference."""
    scheduler = DDIMScheduler.from_config(backbone.scheduler_config)
    scheduler.set_timesteps(steps)
    x, difference = noise(), torch.zeros(())
    text, nothing = (backbone.embed(prompt).hidden.expand(2, -1, -1) for prompt in (TARGET, ""))
    for index, t in enumerate(scheduler.timesteps):
        predict = partial(backbone.unet, x, t)
        output = predict(encoder_hidden_states=text).sample
        if index in own:
            difference = output - predict(encoder_hidden_states=nothing).sample
        if index in guided:
            output = output + 6.5 * difference
        x = scheduler.step(output, t, x).prev_sample
    return x


@pytest.mark.parametrize(
    ("changes", "own", "guided"),
    [
        ({}, {0, 1, 2, 3}, {0, 1, 2, 3}),
        ({"guidance_window": (0.0, 0.5)}, {0, 1}, {0, 1}),
        ({"guidance_window": (0.25, 1.0), "guidance_every": 2}, {1, 3}, {1, 2, 3}),
        ({"guidance_every": 3}, {0, 3}, {0, 1, 2, 3}),
    ],
)
def test_guidance_acts_in_its_steps(
    changes: dict[str, Any], own: set[int], guided: set[int], backbone64: UNetBackbone
) -> None:
    """And the unconditional branch runs in no others."""
    with torch.no_grad():
        expected = guided_by_diffusers(backbone64, own, guided)
    with watched_batches(backbone64) as sizes:
        ours = denoised(backbone64, replace(IMAGE, **changes))
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)
    assert sizes == [4 if index in own else 2 for index in range(4)]


def test_no_window_is_no_guidance(backbone64: UNetBackbone) -> None:
    shut = run(backbone64, replace(FUSED, steps=2, guidance_window=(0.0, 0.0)))
    alone = run(backbone64, replace(FUSED, steps=2, guidance_scale=1.0))
    assert torch.equal(shut.latents, alone.latents)


# Deep features


def level_by_level(
    backbone: UNetBackbone, x: Tensor, t: int, text: Tensor, deep: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What a plain UNet returns, block by block, and what entered its last up block: `deep` where it is given."""
    unet: Any = backbone.unet
    emb = unet.time_embedding(unet.time_proj(torch.full((len(x),), t)).to(x))
    states = {"temb": emb, "encoder_hidden_states": text}
    x = unet.conv_in(x)
    x, first = unet.down_blocks[0](x, **states), (x,)
    x, residuals = x[0], first + x[1]
    if deep is None:
        for block in unet.down_blocks[1:-1]:
            x, more = block(x, **states)
            residuals += more
        x, more = unet.down_blocks[-1](x, temb=emb)
        residuals += more
        x = unet.mid_block(x, **states)
        x, residuals = unet.up_blocks[0](x, residuals[-3:], temb=emb), residuals[:-3]
        for block in unet.up_blocks[1:-1]:
            x, residuals = block(x, residuals[-3:], **states), residuals[:-3]
        deep = x
    x = unet.up_blocks[-1](deep, residuals[:3], **states)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(x))), deep


@pytest.mark.parametrize("every", [2, 3])
def test_features_are_reused_in_an_edit(every: int, backbone64: UNetBackbone) -> None:
    """Against the UNet's own blocks called one by one, each branch with its own features."""
    expected, kept = noise(), dict[str, Tensor]()
    texts = {prompt: backbone64.embed(prompt).hidden.expand(2, -1, -1) for prompt in ("", TARGET)}
    for index, step in enumerate(reversed(schedule(backbone64.scheduler_config, 4))):
        outputs = []
        for prompt, text in texts.items():
            deep = kept.get(prompt) if index % every else None
            with torch.no_grad():
                output, kept[prompt] = level_by_level(backbone64, expected, step.timestep, text, deep)
            outputs.append(output)
        expected = move(expected, outputs[0] + 7.5 * (outputs[1] - outputs[0]), step.alpha_noisy, step.alpha_clean)
    torch.testing.assert_close(
        denoised(backbone64, replace(IMAGE, feature_reuse=every)), expected, rtol=1e-8, atol=1e-8
    )


@contextmanager
def features_put_in(backbone: UNetBackbone, reused: list[bool]) -> Iterator[None]:
    """Each call of the UNet is computed in whole; in some, what enters the last up block is then the last one's."""
    calls, kept = iter(reused), list[Tensor]()

    def swap(_module: Any, _args: Any, output: Tensor) -> Tensor:
        if next(calls):
            return kept[-1][-len(output) :]
        kept.append(output)
        return output

    hook = backbone.unet.up_blocks[-2].register_forward_hook(swap)
    yield
    hook.remove()
    assert next(calls, None) is None


@pytest.mark.slow
@pytest.mark.parametrize(("every", "inverting"), [(2, [0, 0, 1, 0]), (3, [0, 1, 1, 0])])
@pytest.mark.parametrize("backend", ["qk", "maps", "recompute"])
def test_features_are_reused_with_fusion(
    backend: Any, every: int, inverting: list[int], backbone64: UNetBackbone
) -> None:
    """As with everything computed, and the deep features of the last whole step put in its place, in both directions.

    Inversion step 3 - k is whole where edit step k is, and the first one is.
    """
    editing = [index % every > 0 for index in range(4)]
    with features_put_in(backbone64, [bool(reused) for reused in inverting] + editing):
        expected = run(backbone64, FUSED, backend=backend)
    ours = run(backbone64, replace(FUSED, feature_reuse=every), backend=backend)
    torch.testing.assert_close(ours.latents, expected.latents, rtol=1e-8, atol=1e-8)
    unlike = run(backbone64, FUSED, backend=backend)
    assert not torch.allclose(ours.latents, unlike.latents, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_backends_and_chunks_agree_on_reused_features(backbone64: UNetBackbone) -> None:
    """Under latent blending, whose masks come from the last whole step, and guidance that begins on the way."""
    method = replace(
        FUSED,
        feature_reuse=3,
        guidance_window=(0.5, 1.0),
        solver_order=2,
        blending=BlendingConfig(threshold=0.8, latent_window=(0.0, 1.0)),
    )
    reference = run(backbone64, method, backend="recompute").latents
    for runtime in (
        {"backend": "qk"},
        {"backend": "maps"},
        {"backend": "qk", "chunk": 2},
        {"backend": "recompute", "chunk": 1},
    ):
        torch.testing.assert_close(run(backbone64, method, **runtime).latents, reference, rtol=1e-8, atol=1e-8)


def test_a_branch_has_features_before_it_reuses_them(backbone64: UNetBackbone) -> None:
    """Guidance begins in step 2 of 4, which reuses the features of step 0: there the branch runs and does not guide."""
    plan = plan_of(backbone64, replace(IMAGE, feature_reuse=3, guidance_window=(0.5, 1.0)))
    assert [step.unconditional for step in plan.steps] == [True, False, True, True]
    assert [step.guided for step in plan.steps] == [False, False, True, True]
    assert [step.reuses_features for step in plan.steps] == [False, True, True, False]


def test_masks_of_reusing_steps_are_the_last_whole_ones(backbone64: UNetBackbone) -> None:
    def trajectory(every: int) -> Trajectory:
        with unet_denoiser(backbone64, replace(IMAGE, feature_reuse=every), 2, None) as denoiser, torch.no_grad():
            steps = schedule(backbone64.scheduler_config, 4)
            return invert(denoiser, noise(), SOURCE, steps, mask_layers=MaskLayers(4), feature_reuse=every)

    reused, whole = trajectory(2).cross_maps, trajectory(1).cross_maps
    assert reused is not None
    assert whole is not None
    assert torch.equal(reused[2], reused[1])  # steps 1 and 3 are whole, as edit steps 2 and 0 are; and the first
    assert torch.equal(reused[0], whole[0])
    assert not torch.equal(reused[3], reused[1])


def test_what_is_kept_is_forecast_where_features_are_reused(backbone64: UNetBackbone) -> None:
    result = run(backbone64, replace(FUSED, feature_reuse=2), backend="qk")
    whole = run(backbone64, FUSED, backend="qk")
    assert result.choice is not None
    assert result.choice.predicted == result.bytes_kept["attention"] == whole.bytes_kept["attention"] / 2


def test_blocks_are_put_back(backbone64: UNetBackbone) -> None:
    def broken() -> None:
        with deep_features(backbone64.unet):
            assert "forward" in vars(backbone64.unet.mid_block)
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        broken()
    assert not any("forward" in vars(module) for module in backbone64.unet.modules())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"fusion": FusionConfig(min_downsampling=1)}, "outermost level.* set fusion.min_downsampling to 2 or more"),
        ({"fusion": FusionConfig(self_window=(0.25, 0.5))}, "no step that is computed in whole lies in fusion.self_w"),
        ({"fusion": FusionConfig(cross_window=(0.25, 0.5))}, "in whole lies in fusion.cross_window: widen it"),
        ({"fusion": FusionConfig(word_windows={"car": (0.6, 1.0)})}, r"in whole lies in fusion.word_windows\['car'\]"),
    ],
)
def test_fusion_that_reuse_would_drop_is_refused(
    changes: dict[str, Any], complaint: str, backbone64: UNetBackbone
) -> None:
    with pytest.raises(UserError, match=complaint):
        plan_of(backbone64, replace(FUSED, feature_reuse=2, **changes))


# What they change


def test_guidance_leaves_the_inversion_alone() -> None:
    def basis(**changes: Any) -> object:
        return Target(prompt=TARGET, method=replace(FUSED, **changes)).basis

    assert basis(guidance_window=(0.0, 0.5), guidance_every=2) == basis()
    assert len({basis(), basis(solver_order=2), basis(feature_reuse=2)}) == 3


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"guidance_window": (0.5, 0.2)}, "guidance_window is .*: a window is"),
        ({"guidance_window": (0.5, 0.5), "negative_prompt": "grey"}, "guidance_window .* branch out: widen it"),
        ({"guidance_every": 0}, "guidance_every is 0: it is a number from 1"),
        ({"solver_order": 3}, "solver_order is 3: it is a number from 1 to 2"),
        ({"feature_reuse": 0}, "feature_reuse is 0: it is a number from 1"),
    ],
)
def test_values_out_of_range_are_named(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        MethodConfig(**changes)
