"""What `fatezero bench` measures and prints: its calls are counted, its arithmetic is known beforehand."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from fatezero.attention.processor import FrameAttention
from fatezero.attention.transformer_attention import PlaceAttention
from fatezero.benchmarking.peak import clear_peak, peak_bytes
from fatezero.benchmarking.random_wan import random_wan, wan_sites
from fatezero.benchmarking.turns import RunCost, cost_table, measure_in_turn, ratios
from fatezero.benchmarking.workload import EditWorkload, load_backbone, plain_method, random_latents
from fatezero.cli import main
from fatezero.config import MethodConfig, RuntimeConfig
from fatezero.diffusion.backbone import Backbone
from fatezero.diffusion.ddim import schedule
from fatezero.diffusion.model_families.unet import UNetBackbone
from tests.tiny_pipelines import saved, tiny_stable_diffusion_3

CPU = torch.device("cpu")
MB = 2**20


@pytest.fixture
def work(backbone32: UNetBackbone) -> EditWorkload:
    """Two frames, three steps, on the tiny checkpoint."""
    return EditWorkload(backbone32, MethodConfig(steps=3), random_latents(backbone32, 2, 64, 64))


@contextmanager
def watched_calls(unet: Any) -> Iterator[list[tuple[int, bool]]]:
    """Of each UNet call, the images in its batch and whether our attention was at work."""
    calls: list[tuple[int, bool]] = []

    def see(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        calls.append((len(args[0]), any(isinstance(p, FrameAttention) for p in module.attn_processors.values())))

    hook = unet.register_forward_pre_hook(see)
    try:
        yield calls
    finally:
        hook.remove()


def test_stock_and_bare_make_the_calls_of_inversion_and_guided_edit(work: EditWorkload) -> None:
    frames, steps = len(work.clean), work.method.steps
    for run, ours in ((work.stock, False), (work.bare, True)):
        with watched_calls(work.backbone.unet) as calls:
            run()
        assert calls == [(frames, ours)] * steps + [(2 * frames, ours)] * steps


def test_stock_is_the_plain_network(work: EditWorkload) -> None:
    """What the stock baseline calls is diffusers' UNet: each frame's prediction is that of the frame alone."""
    backbone, seen = work.backbone, []
    hook = backbone.unet.register_forward_hook(lambda *call: seen.append(call[2].sample))
    try:
        work.stock()
    finally:
        hook.remove()
    text = backbone.embed("a silver jeep on the road")
    step = schedule(backbone.scheduler_config, work.method.steps)[0].timestep
    with torch.no_grad():
        alone = [backbone.unet(frame[None], step, encoder_hidden_states=text.hidden).sample for frame in work.clean]
    torch.testing.assert_close(seen[0], torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_a_ratio_is_the_median_of_its_turns() -> None:
    """Not that of the median seconds: here 3 / 2 beside 1.25."""
    costs = {
        "base": [RunCost(1.0), RunCost(2.0), RunCost(4.0)],
        "ours": [RunCost(3.0), RunCost(2.5), RunCost(4.0)],
    }
    assert ratios(costs, "ours", "base") == [3.0, 1.25, 1.0]
    heading, base, ours = (line.split() for line in cost_table(costs, ["base"]))
    assert heading == ["seconds", "over", "base"]
    assert base == ["base", "2.00"]
    assert ours == ["ours", "3.00", "1.25", "(1.00", "to", "3.00)"]


def test_turns_run_everything_equally_often_in_both_orders() -> None:
    ran: list[str] = []
    costs = measure_in_turn({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 3, CPU)
    assert ran == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(measured) for name, measured in costs.items()} == {"a": 3, "b": 3}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="clears the high-water mark of Linux")
def test_a_peak_forgets_what_came_before() -> None:
    del_me = np.ones(200 * MB, np.uint8)
    del del_me
    held = clear_peak(CPU)
    if held is None:
        pytest.skip("this system does not let the mark be cleared")
    del_me = np.ones(60 * MB, np.uint8)
    del del_me
    assert 50 * MB < peak_bytes(CPU) - held < 100 * MB


def bench(folder: Path, *words: str) -> int:
    return bench_of(str(folder / "model"), "--frames=2", *words)


def bench_of(model: str, *words: str) -> int:
    small = ["--height=64", "--width=64", "--steps=2", "--repeats=1", "--device=cpu"]
    return main(["bench", f"--model={model}", *small, *words])


@pytest.mark.slow
def test_bench_prints_every_baseline(golden_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(golden_folder, "--lengths", "[2]", "--sizes", "[64]") == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if re.match(r"  \w+ +\d+\.\d\d", line)]
    over = {"stock": 2, "bare": 2, "qk": 3, "recompute": 3, "maps": 3}  # seconds, and ratios to other baselines
    tables = [*over, *over, "stock", "recompute"]  # of the image UNet, of the motion UNet, of a size
    assert [row[0] for row in rows] == tables
    assert [len(row[1:]) for row in rows] == [*over.values(), *over.values(), 1, 2]
    (length,) = (line for line in printed.splitlines() if " 2 frames:" in line)
    assert "s a frame" in length


@pytest.mark.slow
def test_bench_says_what_does_not_fit(golden_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(golden_folder, "--lengths", "[2]", "--memory_gb=0", "--backend=maps") == 0
    captured = capsys.readouterr()
    assert "maps is not measured. Backend 'maps' would keep" in captured.out
    assert "2 frames are not measured. Backend 'maps' would keep" in captured.out
    assert "Traceback" not in captured.err


@pytest.fixture(scope="module")
def small_wan() -> Backbone:
    return load_backbone("wan-small", RuntimeConfig(device="cpu", dtype="float32"))


@contextmanager
def watched_processors(transformer: Any) -> Iterator[list[tuple[int, bool]]]:
    """Of each call, the branches in its batch and whether our attention was at work."""
    calls: list[tuple[int, bool]] = []

    def see(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        calls.append((len(args[0]), any(isinstance(p, PlaceAttention) for p in module.attn_processors.values())))

    hook = transformer.register_forward_pre_hook(see)
    try:
        yield calls
    finally:
        hook.remove()


def test_stock_and_bare_of_a_transformer(small_wan: Backbone) -> None:
    """The same calls as of a UNet, of a clip at once; both leave the transformer as it was."""
    work = EditWorkload(small_wan, plain_method(small_wan, 3), random_latents(small_wan, 5, 32, 32))
    (transformer,) = small_wan.networks.transformers  # type: ignore[attr-defined]
    kinds = [type(module) for module in transformer.modules()]
    for run, ours in ((work.stock, False), (work.bare, True)):
        with watched_processors(transformer) as calls:
            run()
        assert calls == [(1, ours)] * 3 + [(2, ours)] * 3
        assert [type(module) for module in transformer.modules()] == kinds


def test_stock_of_a_transformer_is_diffusers_own(small_wan: Backbone) -> None:
    work, seen = EditWorkload(small_wan, plain_method(small_wan, 1), random_latents(small_wan, 5, 32, 32)), []
    networks = small_wan.networks  # type: ignore[attr-defined]
    hook = networks.transformers[0].register_forward_hook(lambda *call: seen.append(call[2][0]))
    try:
        work.stock()
    finally:
        hook.remove()
    text, (step,) = small_wan.embed("a silver jeep on the road"), small_wan.schedule(1, (2, 16, 4, 4))
    fresh = random_wan("wan-small", torch.float32).transformer.eval()
    with torch.no_grad():
        clip = work.clean.transpose(0, 1)[None]
        alone = fresh(clip, torch.tensor([step.timestep]), text.hidden, return_dict=False)[0]
    torch.testing.assert_close(seen[0], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", [5, 13])
@pytest.mark.parametrize("backend", ["qk", "maps"])
def test_bytes_are_foretold_exactly(small_wan: Backbone, backend: Literal["qk", "maps"], frames: int) -> None:
    """Also of a clip in two windows, of which each is kept."""
    method = replace(plain_method(small_wan, 2), window_frames=9)
    work = EditWorkload(small_wan, method, random_latents(small_wan, frames, 32, 48))
    runtime = RuntimeConfig(device="cpu", backend=backend)
    _, trajectory = work.edited(runtime)
    assert trajectory.attention is not None
    assert trajectory.attention.store.bytes_kept == work.choice(runtime).predicted > 0


def test_the_sites_of_wan_are_known_without_building_it(small_wan: Backbone) -> None:
    assert wan_sites("wan-small") == small_wan.sites
    sites = wan_sites("wan-1.3b")
    assert len(sites) == 2 * 30
    assert {(site.heads, site.head_width) for site in sites} == {(12, 128)}


@pytest.mark.slow
def test_bench_of_a_transformer_prints_every_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_of("wan-small", "--frames=5", "--lengths", "[]", "--sizes", "[32]") == 0
    printed = capsys.readouterr().out
    rows = [line.split()[0] for line in printed.splitlines() if re.match(r"  \w+ +\d+\.\d\d", line)]
    assert rows == ["stock", "bare", "qk", "recompute", "maps", "stock", "recompute"]
    bytes_of = re.findall(r"keeps (\d+) bytes of the source's attention; foretold were (\d+)", printed)
    assert len(bytes_of) == 2  # qk and maps
    assert all(kept == foretold for kept, foretold in bytes_of)
    # 11 latents of 30 x 52 patches are 17,160 places; of 12 heads and 1536 channels, in half, in 30 blocks
    assert f"maps       self {17160**2 * 12 * 2 * 30 / 1e9:8.2f} GB" in printed
    assert f"qk         self {2 * 17160 * 1536 * 2 * 30 / 1e9:8.2f} GB" in printed


@pytest.mark.slow
def test_bench_of_joint_attention_keeps_no_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_of(str(saved(tiny_stable_diffusion_3(), tmp_path)), "--frames=2", "--lengths", "[]") == 0
    printed = capsys.readouterr().out
    assert "maps is not measured. Backend 'maps' keeps maps" in printed
    rows = [line.split()[0] for line in printed.splitlines() if re.match(r"  \w+ +\d+\.\d\d", line)]
    assert rows == ["stock", "bare", "qk", "recompute"]


def test_bench_of_a_transformer_takes_no_key_frames(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_of("wan-small", "--frames=5", "--lengths", "[]", "--key-frames", '["middle"]') == 1
    assert "key_frames is" in capsys.readouterr().err
    assert bench_of("wan-small", "--frames=4") == 1
    assert "set --frames to 1, or to 5" in capsys.readouterr().err
