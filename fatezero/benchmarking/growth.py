"""How cost grows: seconds a frame and peak memory with a clip's length, time over the stock network with its size."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch

from fatezero.benchmarking.bench_options import BenchOptions
from fatezero.benchmarking.peak import clear_peak, peak_bytes
from fatezero.benchmarking.turns import cost_of, cost_table, measure_in_turn
from fatezero.benchmarking.workload import EditWorkload, load_backbone, plain_method, random_latents
from fatezero.config import RuntimeConfig
from fatezero.diffusion.backbone import Backbone
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.errors import UserError, attempt, unwrap
from fatezero.system.terminal import say

MB = 1e6
CHUNK = 8
GROWTH_STEPS = 2


@dataclass(frozen=True)
class Growth:
    """What a clip of some length took.

    Attributes:
        seconds: of inversion and edit.
        above: most bytes above the loaded model; None where that is not measured.
        own: bytes of the clip's latents and averaged word maps, of all steps.
    """

    seconds: float
    above: int | None
    own: int


def print_sizes(options: BenchOptions, runtime: RuntimeConfig, backbone: Backbone) -> None:
    """Time of inversion and edit over the stock network's, for square frames of several sizes."""
    say(f"\nRecompute over the stock network at the same size, {options.frames} frames, {options.steps} steps:")
    method = plain_method(backbone, options.steps, options.key_frames)
    works: dict[str, Callable[[], object]] = {}
    for size in options.sizes:
        work = EditWorkload(backbone, method, random_latents(backbone, options.frames, size, size))
        works = {"stock": work.stock, "recompute": partial(work.edited, replace(runtime, backend="recompute"))}
        for run in works.values():
            run()
        say(f"  {size} x {size}")
        for line in cost_table(measure_in_turn(works, options.repeats, backbone.device), ("stock",)):
            say(line)


def print_lengths(options: BenchOptions, runtime: RuntimeConfig, backbone: Backbone) -> None:
    """Seconds a frame and peak memory of clips of several lengths, each in its own process."""
    runtime = replace(runtime, backend="recompute" if runtime.backend == "auto" else runtime.backend)
    how = "whole, or in windows as long as the clips that the model was trained on"
    if isinstance(backbone, UNetBackbone):
        runtime = replace(runtime, chunk=runtime.chunk or CHUNK)
        how = f"in chunks of {runtime.chunk} (norm_scope frame)"
    say(
        f"\n{runtime.backend}, clips {how}, {options.height} x {options.width}, "
        f"{GROWTH_STEPS} steps, each in its own process; the clip's own is its latents and word maps of all steps:"
    )
    for length in options.lengths:
        try:
            grown = _in_process(replace(options, frames=length, steps=GROWTH_STEPS), runtime)
        except UserError as error:
            say(f"  {length:5d} frames are not measured. {error}")
            continue
        above = "peak memory not measured on this system"
        if grown.above is not None:
            above = (
                f"{grown.above / MB:6.0f} MB above the loaded model, of which the clip's own {grown.own / MB:.1f} MB"
            )
        say(f"  {length:5d} frames: {grown.seconds / length:8.3f} s a frame, {above}")


def _in_process(options: BenchOptions, runtime: RuntimeConfig) -> Growth:
    """Measure in a process of its own, whose memory holds nothing else.

    Raises:
        UserError: if the clip cannot be edited so, or the process is killed.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_growth, args=(options, runtime, sender))
    process.start()
    sender.close()  # so that a killed process ends the wait
    try:
        grown: Growth | UserError = receiver.recv()
    except EOFError as error:
        raise UserError(
            f"The process that measured {options.frames} frames was killed, by lack of memory most likely."
        ) from error
    process.join()
    return unwrap(grown)


def _measure_growth(
    options: BenchOptions, runtime: RuntimeConfig, sender: multiprocessing.connection.Connection
) -> None:
    sender.send(attempt(lambda: _growth(options, runtime)))


def _growth(options: BenchOptions, runtime: RuntimeConfig) -> Growth:
    torch.set_num_threads(options.threads)
    backbone = load_backbone(options.model, runtime)
    method = replace(plain_method(backbone, options.steps, options.key_frames), norm_scope="frame")
    work = EditWorkload(backbone, method, random_latents(backbone, options.frames, options.height, options.width))
    EditWorkload(backbone, method, work.clean[:1]).edited(runtime)  # what only the first call of a process costs
    kept = []
    loaded = clear_peak(backbone.device)
    cost = cost_of(lambda: kept.append(work.edited(runtime)), backbone.device)
    above = None if loaded is None else peak_bytes(backbone.device) - loaded
    ((_, trajectory),) = kept
    maps = 0 if trajectory.cross_maps is None else trajectory.cross_maps.nbytes
    return Growth(cost.seconds, above, trajectory.latents.nbytes + maps)
