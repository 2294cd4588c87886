"""FlowEdit and SDEdit against their algorithms written out again, in float64, on a tiny Wan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from torch import Tensor
from torch.testing import assert_close

from fatezero import FateZero, MethodConfig, RuntimeConfig, UserError
from fatezero.config import FlowEditConfig
from fatezero.diffusion.recommendations import with_settings
from tests.integration.transformer_cases import SOURCE, TARGET, loaded, method_of, random_frames
from tests.integration.transformer_reference import WanByHand
from tests.tiny_pipelines import flow_euler, saved, tiny_wan

SEED = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny_wan(scheduler=flow_euler()), tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def editor(folder: Path) -> FateZero:
    return loaded(folder)


def flow_edit_method(editor: FateZero, **changes: Any) -> MethodConfig:
    return method_of(editor, fusion=None, blending=None, flow_edit=FlowEditConfig(**changes))


@torch.no_grad()
def by_hand(networks: WanByHand, method: MethodConfig, clean: Tensor, flow: FlowEditConfig | None) -> Tensor:
    """The paper's algorithm 1; without its differences, where there is no `flow`, it is SDEdit."""
    generator = torch.Generator().manual_seed(SEED)

    def velocity(x: Tensor, timestep: float, prompt: str, scale: float) -> Tensor:
        free, bound = (networks.velocity(x, timestep, networks.text(text)) for text in ("", prompt))
        return free + scale * (bound - free)

    def noise() -> Tensor:
        return torch.randn(clean.shape, generator=generator).double()

    edited, count, last = clean, method.edit_steps, method.edit_steps
    if flow is not None:
        count, last = round(flow.n_max * method.steps), round(flow.n_min * method.steps)
    levels = networks.levels(method.steps, clean.shape)[:count]
    for index, (timestep, cleaner, noisier) in reversed(list(enumerate(levels))):
        if flow is not None and index >= last:
            difference = torch.zeros_like(clean)
            for _ in range(flow.n_avg):
                source = (1 - noisier) * clean + noisier * noise()
                target = edited + source - clean
                difference += velocity(target, timestep, TARGET, method.guidance_scale)
                difference -= velocity(source, timestep, SOURCE, flow.source_guidance)
            edited = edited + (cleaner - noisier) * difference / flow.n_avg
            continue
        if index == last - 1:
            edited = edited + noisier * (noise() - clean)
        edited = edited + (cleaner - noisier) * velocity(edited, timestep, TARGET, method.guidance_scale)
    return edited


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"n_max": 0.8}, {"n_max": 1.0, "n_min": 0.5, "n_avg": 2, "source_guidance": 2.0}])
def test_it_is_the_papers_algorithm(changes: Any, editor: FateZero, folder: Path) -> None:
    clip, method = random_frames(9, 64, 96), flow_edit_method(editor, **changes)
    result = editor.edit(clip, SOURCE, TARGET, method=method, seed=SEED)
    networks = WanByHand(WanPipeline.from_pretrained(folder, dtype=torch.float64))
    clean = editor.backbone.encode_clip(clip)
    assert_close(result.latents, by_hand(networks, method, clean, method.flow_edit), atol=1e-5, rtol=0)
    assert (result.latents - clean).abs().max() > 0.1
    assert result.masks is None
    assert result.bytes_kept["attention"] == 0


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_sdedit_starts_from_the_noised_source(strength: float, editor: FateZero, folder: Path) -> None:
    clip, method = random_frames(9, 64, 96), method_of(editor, fusion=None, blending=None, sdedit_strength=strength)
    result = editor.edit(clip, SOURCE, TARGET, method=method, seed=SEED)
    networks = WanByHand(WanPipeline.from_pretrained(folder, dtype=torch.float64))
    expected = by_hand(networks, method, editor.backbone.encode_clip(clip), None)
    assert_close(result.latents, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_same_prompts_and_guidance_give_the_source_back(folder: Path) -> None:
    """To the bit, in float32 too: both velocities are of the same latents."""
    editor, clip = loaded(folder, dtype="float32"), random_frames(9, 64, 96)
    method = flow_edit_method(editor, n_max=1.0, source_guidance=3.0)
    assert torch.equal(editor.edit(clip, SOURCE, SOURCE, method=method).latents, editor.backbone.encode_clip(clip))


def test_the_seed_decides(editor: FateZero) -> None:
    clip, method = random_frames(5, 32, 32), flow_edit_method(editor)
    one, again, other = (editor.edit(clip, SOURCE, TARGET, method=method, seed=seed).latents for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_it_is_set_by_name() -> None:
    off = MethodConfig(fusion=None, blending=None)
    method = with_settings(off, {"flow_edit.n_max": 0.5, "flow_edit.n_avg": 2}, "here")
    assert method.flow_edit == FlowEditConfig(n_max=0.5, n_avg=2)
    assert with_settings(method, {"flow_edit": None}, "here").flow_edit is None
    assert not method.inverts
    assert method.edit_steps == 25


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"flow_edit": FlowEditConfig(), "blending": None}, "set fusion, blending and sdedit_strength to null"),
        ({"flow_edit": FlowEditConfig(), "fusion": None, "blending": None, "solver_order": 2}, "set solver_order to 1"),
        (
            {"flow_edit": FlowEditConfig(), "fusion": None, "blending": None, "guidance_scale": 1},
            "guidance_scale 1 leaves the unconditional branch out",
        ),
        (
            {"flow_edit": FlowEditConfig(n_max=0.5, n_min=0.4), "fusion": None, "blending": None, "steps": 4},
            "Of 4 steps none lies between flow_edit.n_min 0.4 and n_max 0.5",
        ),
    ],
)
def test_what_excludes_it_is_refused(changes: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        MethodConfig(**changes)


def test_a_window_without_steps_is_refused() -> None:
    with pytest.raises(UserError, match="raise n_max"):
        FlowEditConfig(n_max=0.5, n_min=0.5)


@pytest.mark.slow
def test_a_unet_is_refused(golden_folder: Path) -> None:
    editor = FateZero.load(str(golden_folder / "model"), RuntimeConfig(device="cpu"), report=lambda _: None)
    method = MethodConfig(fusion=None, blending=None, flow_edit=FlowEditConfig())
    with pytest.raises(UserError, match="flow_edit goes by velocities of flow matching"):
        editor.edit(random_frames(2, 64, 64), SOURCE, TARGET, method=method)
