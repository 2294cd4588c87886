"""`fatezero bench`: what the method costs beyond the network calls it contains, in time and in kept bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import torch

from fatezero.attention.key_frames import Chunk
from fatezero.attention.sites import Site
from fatezero.benchmarking.bench_options import BenchOptions
from fatezero.benchmarking.growth import print_lengths, print_sizes
from fatezero.benchmarking.random_checkpoint import WIDTHS
from fatezero.benchmarking.random_wan import CHANNELS, wan_sites
from fatezero.benchmarking.turns import cost_table, measure_in_turn
from fatezero.benchmarking.workload import (
    EditWorkload,
    load_backbone,
    plain_method,
    random_latents,
    with_random_motion,
)
from fatezero.config import GB, FusionConfig, RuntimeConfig
from fatezero.diffusion.backbone import Backbone
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.diffusion.model_families.wan import TEXT_TOKENS
from fatezero.errors import UserError
from fatezero.source_attention.budget import RecordingShapes, bytes_per_step
from fatezero.system.terminal import say

BACKENDS: tuple[Literal["qk", "recompute", "maps"], ...] = ("qk", "recompute", "maps")
MB = 1e6


def bench_overhead(options: BenchOptions, runtime: RuntimeConfig) -> int:
    """Measure and print; returns 0."""
    torch.set_num_threads(options.threads)
    backbone = load_backbone(options.model, runtime)
    clock = f"processor time (threads: {options.threads})" if backbone.device.type == "cpu" else "the clock's time"
    say(
        f"{options.model}, {backbone.rounding}, torch {torch.__version__}\n"
        f"Seconds are {clock}, medians of runs in turn (repeats: {options.repeats}).\n"
        "A ratio is that of two runs of one turn: its median over the turns, with the least and the most.\n"
        "  stock      diffusers' own network alone: one branch a step to invert, and the two of guidance to edit\n"
        "  bare       the same calls with our attention, key frames and norms; nothing is recorded or fused\n"
        f"  {', '.join(BACKENDS)}: inversion and edit in full, by each backend"
    )
    _print_times(options, runtime, backbone)
    if isinstance(backbone, UNetBackbone) and not backbone.ties_frames:
        say("\nWith random motion modules in the same UNet:")
        _print_times(options, runtime, with_random_motion(backbone))
    if isinstance(backbone, UNetBackbone):
        _print_kept_bytes_of_unet()
    else:
        _print_kept_bytes_of_wan()
    if options.sizes:
        print_sizes(options, runtime, backbone)
    if options.lengths:
        print_lengths(options, runtime, backbone)
    return 0


def _print_times(options: BenchOptions, runtime: RuntimeConfig, backbone: Backbone) -> None:
    method = plain_method(backbone, options.steps, options.key_frames)
    work = EditWorkload(backbone, method, random_latents(backbone, options.frames, options.height, options.width))
    say(f"\nInversion + edit of {options.frames} frames at {options.height} x {options.width}, {options.steps} steps:")
    costs = measure_in_turn(_warmed(work, runtime), options.repeats, backbone.device)
    for line in cost_table(costs, ("stock", "bare")):
        say(line)


def _warmed(work: EditWorkload, runtime: RuntimeConfig) -> dict[str, Callable[[], object]]:
    """What is measured, each run once before; a backend that does not fit the budget is told and left out."""
    work.stock()
    work.bare()
    works: dict[str, Callable[[], object]] = {"stock": work.stock, "bare": work.bare}
    for backend in BACKENDS if runtime.backend == "auto" else (runtime.backend,):
        chosen = replace(runtime, backend=backend)
        try:
            _, trajectory = work.edited(chosen)
        except UserError as error:
            say(f"  {backend} is not measured. {error}")
            continue
        if trajectory.attention:
            kept, foretold = trajectory.attention.store.bytes_kept, work.choice(chosen).predicted
            say(f"  {backend} keeps {kept} bytes of the source's attention; foretold were {foretold}")
        works[backend] = partial(work.edited, chosen)
    return works


def _print_kept_bytes_of_wan() -> None:
    """For Wan 2.1's smaller transformer, without building it."""
    frames, rows, columns, itemsize = 41, 480 // 8, 832 // 8, 2
    sites = wan_sites("wan-1.3b")
    clip = tuple(range((frames - 1) // 4 + 1))
    names = frozenset(site.name for site in sites)
    shapes = RecordingShapes(sites, (rows, columns), (Chunk(clip, clip),), len(clip), 0, TEXT_TOKENS, itemsize)
    say(f"\nKept per step of {frames} frames at 832 x 480 by the 30 blocks of Wan 2.1 1.3B in half:")
    for backend in ("maps", "qk"):
        selfs, cross = (bytes_per_step(backend, kind, names, shapes) / GB for kind in ("self", "cross"))
        say(f"  {backend:10s} self {selfs:8.2f} GB  cross {cross:6.2f} GB")
    latent = len(clip) * CHANNELS * rows * columns * torch.float32.itemsize
    say(f"  recompute  latents {latent / GB:.4f} GB, and an averaged map of the prompt's words")


def _print_kept_bytes_of_unet() -> None:
    """For Stable Diffusion 1.x's shapes, without building it: counted, as the measured stores agree with the count."""
    sites = _stable_diffusion_sites()
    clip = tuple(range(8))
    shapes = RecordingShapes(sites, (64, 64), (Chunk(clip, clip),), 2, 0, 77, 2)
    names = frozenset(site.name for site in sites if site.downsampling >= FusionConfig().min_downsampling)
    qk = {kind: bytes_per_step("qk", kind, names, shapes) / len(clip) for kind in ("self", "cross")}
    maps = {kind: bytes_per_step("maps", kind, names, shapes) / len(clip) for kind in ("self", "cross")}
    say(
        "\nKept per step and frame of an 8-frame clip, Stable Diffusion 1.x at 512 x 512 in fp16, "
        "key frames (self, middle):"
    )
    say(f"  maps       self {maps['self'] / MB:8.2f} MB  cross {maps['cross'] / MB:6.2f} MB")
    say(
        f"  qk         self {qk['self'] / MB:8.2f} MB  cross {qk['cross'] / MB:6.2f} MB"
        f"  1/{maps['self'] / qk['self']:.2f} of self-attention, 1/{sum(maps.values()) / sum(qk.values()):.2f} in all"
    )
    latent, mean_map = 4 * 64 * 64 * 4, 16 * 16 * 12 * 4
    averaged = f"averaged cross map of a 12-token prompt {mean_map / MB:.3f} MB"
    say(f"  recompute  latents {latent / MB:.3f} MB and the {averaged}")


def _stable_diffusion_sites() -> tuple[Site, ...]:
    """The attention layers of Stable Diffusion 1.x that fusion can touch, by its published configuration."""
    levels = [(factor, width) for factor, width in zip((1, 2, 4), WIDTHS["sd1"], strict=False)]
    places = [(f"down.{f}.{i}", "down", f, w) for f, w in levels for i in range(2)]
    places += [("mid", "mid", 8, WIDTHS["sd1"][-1])] + [
        (f"up.{f}.{i}", "up", f, w) for f, w in levels for i in range(3)
    ]
    return tuple(
        Site(f"{name}.{kind}", kind, block, factor, width, 8, width // 8)  # type: ignore[arg-type]
        for name, block, factor, width in places
        for kind in ("self", "cross")
    )
