"""`--compile`: the same results, nothing compiled twice, and a sentence where it cannot be done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch._dynamo.utils import counters

from fatezero.attention.temporal import inflate
from fatezero.config import FusionConfig, MethodConfig, RuntimeConfig
from fatezero.diffusion.compiling import compile_blocks
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.errors import UserError
from fatezero.pipeline import FateZero
from fatezero.results import EditResult

COMPILER = shutil.which(os.environ.get("CXX", "g++"))
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler, which --compile needs")
# One chunk: each shape is compiled once, which takes seconds. Under guidance two branches share the first block.
METHOD = MethodConfig(steps=2, norm_scope="clip", fusion=FusionConfig(min_downsampling=1), blending=None)
TINY = {
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("UpBlock2D",),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
}


def edit(backbone: UNetBackbone, seed: int) -> EditResult:
    frames = np.random.default_rng(seed).integers(0, 255, (2, 64, 64, 3), np.uint8)
    editor = FateZero(backbone, RuntimeConfig(backend="qk"), report=lambda _: None)
    return editor.edit(frames, "a silver jeep on a road", "a silver car on a road", method=METHOD)


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def tiny_unet(*, motion: bool) -> Any:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**TINY)
    if not motion:
        return unet.eval()
    shape = {"block_out_channels": (8,), "motion_layers_per_block": 1, "motion_norm_num_groups": 4}
    return UNetMotionModel.from_unet2d(unet, MotionAdapter(**shape, motion_num_attention_heads=2)).eval()


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("motion", [False, True])
def test_nothing_is_compiled_again_for_steps_and_clips_of_equal_shape(motion: bool, backbone32: UNetBackbone) -> None:
    """And the results are those of the networks as they are."""
    unet = tiny_unet(motion=motion)
    expected = [edit(replace(backbone32, unet=unet), seed).latents for seed in range(2)]
    compile_blocks(unet, "tiny")
    before = graphs()
    found = [edit(replace(backbone32, unet=unet), 0).latents]
    after_first = graphs()
    found.append(edit(replace(backbone32, unet=unet), 1).latents)
    assert before < after_first == graphs()
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


PROGRAM = """
import torch
from torch._dynamo.utils import counters
from diffusers import UNet2DConditionModel
from fatezero.diffusion.compiling import compile_blocks

unet = UNet2DConditionModel(**{tiny}).eval()
compile_blocks(unet, "tiny")
with torch.no_grad():
    unet(torch.ones(1, 4, 8, 8), 1, torch.ones(1, 3, 32))
print(counters["inductor"]["fxgraph_cache_miss"], counters["inductor"]["fxgraph_cache_hit"])
"""


def run(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(tiny=TINY)],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_compiler
@pytest.mark.slow
def test_another_process_finds_what_was_compiled(tmp_path: Path) -> None:
    first, second = run(tmp_path), run(tmp_path)
    misses, hits = map(int, first.stdout.split())
    assert misses > 0
    assert second.stdout.split() == ["0", str(misses + hits)]
    assert "CUDA" not in first.stderr


@pytest.mark.slow
def test_a_machine_without_compiler_is_said_in_a_sentence(tmp_path: Path) -> None:
    failed = run(tmp_path, CXX="/nowhere/compiler")
    assert failed.returncode == 1
    sentence = failed.stderr.splitlines()[-1]
    assert "UserError: Nothing can be compiled for cpu on this machine" in sentence
    assert "/nowhere/compiler" in sentence
    assert sentence.endswith("or leave --compile out.")


def test_temporal_layers_are_refused() -> None:
    unet = UNet2DConditionModel(**TINY)
    inflate(unet, 2)
    with pytest.raises(UserError, match=r"tuned has Tune-A-Video's temporal layers.*leave --compile out"):
        compile_blocks(unet, "tuned")


def test_a_kept_inversion_knows_how_it_was_rounded(backbone32: UNetBackbone) -> None:
    assert backbone32.rounding == "torch.float32 on cpu"
    assert replace(backbone32, compiled=True).rounding == "torch.float32 on cpu, compiled"
