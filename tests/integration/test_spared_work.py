"""What an edit need not compute is not computed: rows and calls are counted on the tiny checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from fatezero.config import BlendingConfig, FusionConfig, MethodConfig, RuntimeConfig
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.onednn import OneDnnLinear
from fatezero.pipeline import FateZero
from fatezero.results import EditResult, Target

FRAMES, STEPS = 2, 2
METHOD = MethodConfig(
    steps=STEPS,
    norm_scope="frame",
    fusion=FusionConfig(cross_window=(0.0, 1.0), self_window=(0.0, 1.0)),
    blending=BlendingConfig(threshold=0.5),
)
FIRST, LAST = "down_blocks.0.resnets.0", "up_blocks.3.resnets.0"
SELF, CROSS = "attentions.0.transformer_blocks.0.attn1", "attentions.0.transformer_blocks.0.attn2"


@contextmanager
def counted(unet: nn.Module, *names: str) -> Iterator[dict[str, list[int]]]:
    """Rows that modules are called with, call by call."""
    rows: dict[str, list[int]] = {name: [] for name in names}
    with ExitStack() as hooks:
        for name in names:
            # The last hook of all sees what the module is given in the end.
            def see(_: nn.Module, args: tuple[Any, ...], output: torch.Tensor, name: str = name) -> None:
                rows[name].append(len(args[0]))

            hooks.callback(unet.get_submodule(name).register_forward_hook(see).remove)
        yield rows


def edit(backbone: UNetBackbone, method: MethodConfig, backend: Any) -> tuple[EditResult, dict[str, list[int]]]:
    """An edit from an inversion that is not counted."""
    editor = FateZero(backbone, RuntimeConfig(backend=backend), report=lambda _: None)
    frames = torch.randint(0, 255, (FRAMES, 64, 64, 3), generator=torch.Generator().manual_seed(0)).byte().numpy()
    target = Target(prompt="a silver car on a road", edited_words=("jeep",), method=method)
    inversion = editor.invert(frames, "a silver jeep on a road", [target])
    names = (FIRST, LAST, f"down_blocks.1.{SELF}.to_q", f"down_blocks.0.{CROSS}.to_k", f"down_blocks.0.{SELF}.to_q")
    with counted(backbone.unet, *names) as rows:
        return editor.edit_inverted(inversion, target), rows


def test_the_source_leaves_behind_its_last_layer(backbone32: UNetBackbone) -> None:
    """Fused are the layers below the finest: the last block sees the two branches of guidance alone."""
    _, rows = edit(backbone32, METHOD, "recompute")
    assert rows[LAST] == [2 * FRAMES] * STEPS
    _, rows = edit(backbone32, replace(METHOD, fusion=replace(METHOD.fusion, min_downsampling=1)), "recompute")  # type: ignore[type-var]
    assert rows[LAST] == [3 * FRAMES] * STEPS


def test_equal_branches_share_what_reads_no_prompt(backbone32: UNetBackbone) -> None:
    _, rows = edit(backbone32, METHOD, "recompute")
    assert rows[FIRST] == rows[f"down_blocks.0.{SELF}.to_q"] == [2 * FRAMES] * STEPS  # the source, and both others
    _, rows = edit(backbone32, METHOD, "qk")
    assert rows[FIRST] == rows[f"down_blocks.0.{SELF}.to_q"] == [FRAMES] * STEPS
    _, rows = edit(backbone32, replace(METHOD, fusion=replace(METHOD.fusion, min_downsampling=1)), "qk")  # type: ignore[type-var]
    assert rows[FIRST] == [FRAMES] * STEPS
    assert rows[f"down_blocks.0.{SELF}.to_q"] == [2 * FRAMES] * STEPS  # fused, so no longer equal


@pytest.mark.parametrize("backend", ["qk", "maps", "recompute"])
def test_a_prompt_is_projected_once(backend: Any, backbone32: UNetBackbone) -> None:
    """Not in every step, and not for every frame."""
    _, rows = edit(backbone32, METHOD, backend)
    assert rows[f"down_blocks.0.{CROSS}.to_k"] == [3 if backend == "recompute" else 2]


def test_queries_that_the_source_replaces_are_not_made(backbone32: UNetBackbone) -> None:
    _, rows = edit(backbone32, replace(METHOD, blending=None), "qk")
    assert rows[f"down_blocks.1.{SELF}.to_q"] == [FRAMES] * STEPS  # without guidance's other branch, none
    _, rows = edit(backbone32, METHOD, "qk")
    assert rows[f"down_blocks.1.{SELF}.to_q"] == [2 * FRAMES] * STEPS  # inside the mask they are needed


@pytest.mark.parametrize("backend", ["qk", "maps"])
def test_an_edit_alone_in_its_batch_may_ask_nothing_itself(backend: Any, backbone64: UNetBackbone) -> None:
    """Without guidance and masks all that it asks is the source's: no query of its own is left in a fused layer."""
    method = replace(METHOD, blending=None, guidance_scale=1.0)
    kept, rows = edit(backbone64, method, backend)
    assert rows[f"down_blocks.1.{SELF}.to_q"] == [0] * STEPS
    torch.testing.assert_close(kept.latents, edit(backbone64, method, "recompute")[0].latents, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_nothing_is_spared_at_the_cost_of_the_result(backbone64: UNetBackbone) -> None:
    """Every backend and both kinds of sparing agree with an edit whose last layer is fused, where nothing leaves."""
    results = [edit(backbone64, replace(METHOD, guidance_scale=g), b)[0] for g in (1.0, 7.5) for b in ("maps", "qk")]
    again = [edit(backbone64, replace(METHOD, guidance_scale=g), "recompute")[0] for g in (1.0, 7.5)]
    for kept, recomputed in zip((results[:2], results[2:]), again, strict=True):
        for one in kept:
            torch.testing.assert_close(one.latents, recomputed.latents, rtol=1e-9, atol=1e-9)


def test_onednns_linear_is_the_linear() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(24, 40)
    fast = OneDnnLinear(24, 40)
    fast.load_state_dict(plain.state_dict())
    x = torch.randn(3, 7, 24)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), plain(x), rtol=1e-5, atol=1e-6)
        assert torch.equal(fast(input=x), fast(x))  # as motion modules call it
        torch.testing.assert_close(fast(x[:0]), plain(x[:0]))
        torch.testing.assert_close(fast.double()(x.double()), plain.double()(x.double()))
    fast.float()(x).sum().backward()
    assert fast.weight.grad is not None


def test_linears_of_a_backbone_are_onednns(backbone32: UNetBackbone) -> None:
    kinds = Counter(type(module) for module in backbone32.unet.modules() if isinstance(module, nn.Linear))
    assert set(kinds) == ({OneDnnLinear} if torch.backends.mkldnn.is_available() else {nn.Linear})
