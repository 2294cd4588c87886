"""`fatezero bench`: what the method costs beyond the network calls it contains, in time, kept bytes and peak memory."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from fatezero.attention.key_frames import Chunk
from fatezero.attention.processor import Call
from fatezero.attention.sites import Site
from fatezero.benchmarking.bench_options import BenchOptions
from fatezero.benchmarking.random_checkpoint import WIDTHS, random_motion, random_pipeline
from fatezero.config import FusionConfig, MethodConfig, ModelOptions, RuntimeConfig
from fatezero.diffusion.backbone import Backbone, choose_device, choose_dtype
from fatezero.diffusion.checkpoint import Checkpoint, pixels_per_latent
from fatezero.diffusion.ddim import schedule
from fatezero.diffusion.denoiser import video_denoiser
from fatezero.diffusion.inversion import invert
from fatezero.edit_plan import plan_edit
from fatezero.editing import edit
from fatezero.errors import UserError
from fatezero.pipeline import peak_memory
from fatezero.source_attention.budget import RecordingShapes, bytes_per_step, choose_backend
from fatezero.system.terminal import say

SOURCE, TARGET = "a silver jeep on the road", "a red sports car on the road"
EDITED_WORDS = ("silver", "jeep")
MB = 1e6


def bench_overhead(options: BenchOptions) -> int:
    """Measure and print; returns 0."""
    torch.set_num_threads(options.threads)
    backbone = _backbone(options, RuntimeConfig())
    say(
        f"{options.model} on {backbone.device} in {backbone.dtype}, {options.threads} threads, "
        f"torch {torch.__version__}"
    )
    _print_times(options, backbone)
    if not backbone.ties_frames:
        say("\nWith random motion modules in the same UNet:")
        _print_times(options, replace(backbone, unet=random_motion(backbone.unet)))
    _print_kept_bytes()
    if options.lengths:
        _print_peak_memory(options)
    return 0


def _backbone(options: BenchOptions, runtime: RuntimeConfig) -> Backbone:
    if options.model not in WIDTHS:
        return Backbone.load(options.model, runtime)
    device = choose_device(runtime.device)
    pipe = random_pipeline(options.model, choose_dtype(runtime.dtype, device))  # type: ignore[arg-type]
    return Backbone.of_pipeline(pipe, Checkpoint(ModelOptions(model=options.model), Path()), device)


def _print_times(options: BenchOptions, backbone: Backbone) -> None:
    method = MethodConfig(steps=options.steps)
    clean = _latents(options, backbone, options.frames)
    runs: dict[str, Callable[[], float]] = {}
    for backend in ("qk", "recompute"):
        runtime = RuntimeConfig(backend=backend)
        runs[backend] = lambda r=runtime: _time_method(backbone, method, clean, r)  # type: ignore[misc]
        runs[f"bare for {backend}"] = lambda b=backend: _time_bare(backbone, method, clean, b)  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(options.repeats):
        for name, run in runs.items():
            times[name].append(run())
    say(
        f"\nInversion + edit of {options.frames} frames at {options.height} x {options.width}, {options.steps} steps, "
        "full method,"
    )
    say("over the bare UNet calls in it (same batches and key frames, nothing recorded or fused):")
    for backend in ("qk", "recompute"):
        ratios = [a / b for a, b in zip(times[backend], times[f"bare for {backend}"], strict=True)]
        seconds, bare = (statistics.median(times[name]) for name in (backend, f"bare for {backend}"))
        say(
            f"  {backend:10s} {seconds:7.2f} s / {bare:7.2f} s = {statistics.median(ratios):.3f}"
            f"  (of {len(ratios)} runs in turn: {min(ratios):.3f} to {max(ratios):.3f})"
        )


def _latents(options: BenchOptions, backbone: Backbone, frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scale = pixels_per_latent(backbone.vae.config)
    shape = (frames, int(backbone.unet.config.in_channels), options.height // scale, options.width // scale)
    return torch.randn(shape, generator=generator).to(backbone.device, backbone.latent_dtype)


@torch.no_grad()
def _time_method(backbone: Backbone, method: MethodConfig, clean: torch.Tensor, runtime: RuntimeConfig) -> float:
    started = _now(backbone)
    _run_method(backbone, method, clean, runtime)
    return _now(backbone) - started


def _run_method(backbone: Backbone, method: MethodConfig, clean: torch.Tensor, runtime: RuntimeConfig) -> None:
    steps = schedule(backbone.scheduler_config, method.steps)
    plan = plan_edit(backbone, method, steps, SOURCE, TARGET, EDITED_WORDS)
    with video_denoiser(backbone, method, len(clean), runtime.chunk) as denoiser:
        choice = choose_backend(runtime, plan.needs, denoiser.recording_shapes(clean), backbone.device)
        attention = choice.open(plan.needs, backbone.device)
        downsampling = method.blending.mask_downsampling if method.blending else None
        trajectory = invert(denoiser, clean, SOURCE, steps, downsampling, attention)
        edit(denoiser, plan, trajectory)


@torch.no_grad()
def _time_bare(backbone: Backbone, method: MethodConfig, clean: torch.Tensor, backend: str) -> float:
    steps = schedule(backbone.scheduler_config, method.steps)
    plan = plan_edit(backbone, method, steps, SOURCE, TARGET, EDITED_WORDS)
    text = backbone.embed(SOURCE)
    with video_denoiser(backbone, method, len(clean), None) as denoiser:
        denoiser.state.call = Call(
            branches=1,
            frames=len(clean),
            latent_size=(clean.shape[-2], clean.shape[-1]),
            key_positions=denoiser.positions[0],
        )
        sources = [step.fuses and backend == "recompute" for step in plan.steps]
        branches = [1] * len(steps) + [3 if source else 2 for source in sources]
        batches = {n: torch.cat([clean] * n) for n in set(branches)}
        started = _now(backbone)
        for n, step in zip(branches, (*steps, *reversed(steps)), strict=True):
            backbone.predict(batches[n], step.timestep, [text] * n, len(clean))
        return _now(backbone) - started


def _now(backbone: Backbone) -> float:
    """Seconds of the clock; on the CPU of processor time, so that other work on the machine does not count."""
    if backbone.device.type == "cpu":
        return time.process_time()
    if backbone.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _print_kept_bytes() -> None:
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


def _print_peak_memory(options: BenchOptions) -> None:
    say(
        f"\nPeak memory of recompute in chunks of 8 (norm_scope frame), {options.height} x {options.width}, "
        "each in its own process:"
    )
    context = multiprocessing.get_context("spawn")
    for length in options.lengths:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_measure_peak, args=(replace(options, frames=length, steps=2), sender))
        process.start()
        sender.close()  # so that a killed process ends the wait
        try:
            loaded, peak, latents = receiver.recv()
        except EOFError as error:
            raise UserError(
                f"The process that measured {length} frames was killed, by lack of memory most likely."
            ) from error
        process.join()
        above = f"{(peak - loaded) / MB:6.0f} MB above the loaded model, of which latents {latents / MB:.1f} MB"
        say(f"  {length:5d} frames: {peak / MB:8.0f} MB, {above}")


def _measure_peak(options: BenchOptions, sender: multiprocessing.connection.Connection) -> None:
    torch.set_num_threads(options.threads)
    runtime = RuntimeConfig(backend="recompute", chunk=8)
    backbone = _backbone(options, runtime)
    loaded = peak_memory(backbone.device)
    clean = _latents(options, backbone, options.frames)
    with torch.no_grad():
        _run_method(backbone, MethodConfig(steps=options.steps, norm_scope="frame"), clean, runtime)
    sender.send((loaded, peak_memory(backbone.device), clean.nbytes * (options.steps + 1)))
